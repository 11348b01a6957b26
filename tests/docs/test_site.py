"""The site: it is built without a warning, its links lead somewhere, and its reference has each public name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rabbitry
from tests.docs.blocks import ROOT

_CHECK = ROOT / "scripts/check_site.py"


def _check(site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, _CHECK, site], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.fresh_clone
@pytest.mark.timeout(300)
def test_the_site_has_no_broken_links(tmp_path: Path) -> None:
    built = subprocess.run(
        [Path(sys.executable).parent / "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path], cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    checked = _check(tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "")
    reference = "".join(path.read_text() for path in (tmp_path / "reference").glob("*.html"))
    assert [name for name in rabbitry.__all__ if f'.{name}"' not in reference] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<link rel="icon" href="https://elsewhere.example/i.png"><a href="other.html#there">1</a>'
        '<a href="other.html#gone">2</a><a href="gone.html">3</a><a href="https://elsewhere.example/">4</a>'
    )
    (tmp_path / "other.html").write_text('<p id="there">')
    checked = _check(tmp_path)
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "index.html: links to other.html#gone, but that page has no such anchor",
        "index.html: links to gone.html, which does not exist",
        "index.html: loads https://elsewhere.example/i.png",
    ]
