"""The snippets of the pages run as they stand there: `test_….py` by pytest, the others as programs, beside a broker."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rabbitry.testing import RunningBroker

_DOCS = Path(__file__).parent.parent.parent / "docs"


def _snippets(page: str) -> dict[str, str]:
    text = (_DOCS / page).read_text()
    return dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


_PAGES = {page: _snippets(page) for page in ("testing.md", "flow.md")}


@pytest.mark.parametrize(("page", "number"), [("testing.md", 6), ("flow.md", 5)])
def test_every_snippet_is_run(page: str, number: int) -> None:
    assert len(_PAGES[page]) == (_DOCS / page).read_text().count("```python") == number


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("page", "name"), [(page, name) for page, snippets in _PAGES.items() for name in snippets])
def test_a_snippet_runs_as_it_stands(page: str, name: str, tmp_path: Path) -> None:
    for other, text in _PAGES[page].items():
        (tmp_path / other).write_text(text)
    is_test = name.startswith("test_")
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", name] if is_test else [name]
    with RunningBroker() as broker:
        done = subprocess.run(
            [sys.executable, *arguments], env=os.environ | {"RABBITRY_BROKER": broker.url}, cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not is_test or re.search(r"\d passed", done.stdout)
