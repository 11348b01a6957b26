"""The folder in memory of a run: when it is used, and that it ends with the run."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import memory


@pytest.fixture
def without_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Undo what this run has done; return a folder in place of the file system in memory."""
    monkeypatch.setenv("TMPDIR", "")  # so that its value comes back, or its absence
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(memory, "_SHARED", tmp_path)
    monkeypatch.setattr(memory, "_ENOUGH", 1)
    return tmp_path


def test_temporary_files_are_in_a_folder_that_ends_with_the_run(
    without_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tempfile.gettempdir()
    ends: list[Callable[[], None]] = []
    memory.use(ends.append)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        folder = Path(file.name).parent
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert folder.parent == without_folder
    assert os.environ["TMPDIR"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    for end in reversed(ends):
        end()
    assert list(without_folder.iterdir()) == []


def test_the_folder_of_a_killed_run_is_deleted_by_the_next_one(
    without_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = without_folder / "rabbitry-run-left"
    left.mkdir()
    ends: list[Callable[[], None]] = []
    for _ in range(2):
        memory.use(ends.append)
        monkeypatch.delenv("TMPDIR")
    assert not left.exists()
    assert len(list(without_folder.iterdir())) == 2  # of the two runs, both of which go on
    for end in reversed(ends):
        end()


def test_a_folder_that_was_named_is_kept(without_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/var/tmp")  # noqa: S108 - only its name matters
    memory.use(_never)
    assert os.environ["TMPDIR"] == "/var/tmp"  # noqa: S108


@pytest.mark.parametrize("change", [("_ENOUGH", 1 << 62), ("_SHARED", Path("/nowhere"))], ids=["short", "missing"])
def test_without_enough_memory_nothing_changes(
    change: tuple[str, object], without_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, *change)
    memory.use(_never)
    assert "TMPDIR" not in os.environ
    assert list(without_folder.iterdir()) == []


def _never(end: Callable[[], None]) -> None:
    raise AssertionError("a folder was made")
