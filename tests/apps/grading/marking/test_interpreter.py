"""The Python of the sandbox, for every way in which the outer Python was started."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_MARK = """
import io, sys, zipfile
from pathlib import Path
from rabbitry.apps.grading.marking import load_scheme, mark
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w") as archive:
    archive.writestr("main.py", "import sys; print(sys.prefix)")
done = mark(load_scheme(Path(sys.argv[1])), packed.getvalue(), "main.zip")
print(done.mark, done.feedback)
"""
_SCHEME = """
[scheme]
name = "Homework"
file = "main.py"

[[part]]
name = "runs"
points = 4
command = ["python3", "main.py"]
expect = { regex = "^PREFIX$" }
"""


def _virtual_environment(folder: Path, python: Path) -> Path:
    """Make a virtual environment whose Python links to `python`, with the packages of this one."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(python)
    (folder / "lib").symlink_to(Path(sys.prefix, "lib").resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix, 'bin')}\ninclude-system-site-packages = false\n")
    return folder / "bin/python"


def _with_dots(folder: Path) -> Path:
    (folder / "beside").mkdir()
    _virtual_environment(folder / "environment", Path(sys.executable).resolve())
    return Path("beside/../environment/bin/../bin/python")


def _behind_a_link(folder: Path) -> Path:
    _virtual_environment(folder / "environment", Path(sys.executable).resolve())
    (folder / "link").symlink_to(folder / "environment")
    return folder / "link/bin/python"


def _linked_to_elsewhere(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/python").symlink_to(Path(sys.executable).resolve())
    return _virtual_environment(folder / "environment", folder / "elsewhere/python")


def _linked_by_a_relative_path(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/python").symlink_to(Path(sys.executable).resolve())
    return _virtual_environment(folder / "environment", Path("../../elsewhere/python"))


def _relative(folder: Path) -> Path:
    return _virtual_environment(folder / "environment", Path(sys.executable).resolve()).relative_to(folder)


@pytest.mark.parametrize(
    "prepare", [_with_dots, _behind_a_link, _linked_to_elsewhere, _linked_by_a_relative_path, _relative]
)
def test_a_submission_runs_however_python_is_reached(tmp_path: Path, prepare: Callable[[Path], Path]) -> None:
    scheme = tmp_path / "scheme.toml"
    scheme.write_text(_SCHEME.replace("PREFIX", str(tmp_path / "environment")))
    python = prepare(tmp_path)
    # A relative path with a slash is looked up from the current folder.
    done = subprocess.run(
        [str(python), "-c", _MARK, str(scheme)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4.0 "), done.stdout
