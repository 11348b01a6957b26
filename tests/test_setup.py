"""`scripts/setup`: one line of progress, and what pip printed only where it fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminals import shown_by

_SETUP = Path(__file__).parent.parent / "scripts/setup"
_REFUSED = "ERROR: Invalid requirement"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with this Python's environment as its own, and a lock that pip can't read."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "wrong.lock").write_text("one==1\ntwo ===== 2\n")
    return tmp_path


def test_pips_output_is_shown_if_it_fails(folder: Path) -> None:
    done = subprocess.run(
        [_SETUP, "wrong.lock"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "setup: installing Rabbitry and 2 packages into .venv; the first time takes a minute"
    assert _REFUSED in done.stderr
    assert lines[-1] == "setup: installing into .venv failed with exit code 1; its output is above"


def test_on_a_terminal_each_step_is_written_over_the_one_before(folder: Path) -> None:
    # A pip that has nothing to do takes the place of the real one.
    environment = folder / "environment"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin/python"
    python.write_text('#!/bin/sh\necho "Collecting one"\necho "Collecting two"\n')
    python.chmod(0o755)
    (folder / ".venv").unlink()
    (folder / ".venv").symlink_to(environment)
    (folder / "two.lock").write_text("one==1\ntwo==2\n")
    text = shown_by([_SETUP, "two.lock"], cwd=folder)[0].decode()
    assert text.count("\n") == 1, text
    assert "installing into .venv (2 of 2 packages)" in text
    assert text.endswith("setup: installed Rabbitry and 2 packages into .venv\r\n")
