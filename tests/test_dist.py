"""`scripts/dist` builds the distributions, and its wheel works outside the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rabbitry

ROOT = Path(__file__).parent.parent
_THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


def _dist(out: Path, *versions: str) -> subprocess.CompletedProcess[str]:
    more = {"DIST": str(out), "PATH": f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        [ROOT / "scripts/dist", *versions], env=os.environ | more, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.mark.fresh_clone
@pytest.mark.timeout(1000)
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    done = _dist(tmp_path, _THIS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the wheel works on Python {_THIS}" in done.stderr

    name = f"rabbitry-{rabbitry.__version__}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}-py3-none-any.whl", f"{name}.tar.gz"]
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl") as wheel:
        packed = set(wheel.namelist())
    sources = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src/rabbitry").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= packed
    assert {path.partition("/")[0] for path in packed} == {"rabbitry", f"{name}.dist-info"}
    with tarfile.open(tmp_path / f"{name}.tar.gz") as sdist:
        assert {f"{name}/{part}" for part in ("LICENSE", "PYPI.md", "pyproject.toml")} <= set(sdist.getnames())


@pytest.mark.fresh_clone
@pytest.mark.timeout(300)
def test_a_missing_python_is_a_failure(tmp_path: Path) -> None:
    done = _dist(tmp_path / "out", "3.99")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "dist: none of these Pythons was found: 3.99"
    assert not (tmp_path / "out").exists()
