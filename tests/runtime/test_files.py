"""Locks of files, syncing, and whether there is a file."""

import threading
from pathlib import Path

import pytest

from rabbitry.runtime.files import exists, lock_file, sync


def test_a_lock_holds_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with open(path, "r+b") as first, open(path, "r+b") as second, open(path, "r+b") as third:
        lock_file(first.fileno(), waits=False)
        with pytest.raises(OSError, match=r"\[Errno"):
            lock_file(second.fileno(), waits=False)
        has_it = threading.Event()

        def wait() -> None:
            lock_file(third.fileno(), waits=True)
            has_it.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        first.close()
        waiting.join(60)
        assert has_it.is_set()


def test_a_file_and_a_folder_are_synced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    sync(tmp_path / "file")
    sync(tmp_path)
    with pytest.raises(OSError, match="missing"):
        sync(tmp_path / "missing")


def test_a_file_exists_or_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert exists(file)
    assert exists(tmp_path)
    assert not exists(tmp_path / "other")
    assert not exists(file / "below")


def test_nobody_is_told_that_there_is_no_file_where_that_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(self: Path, *, follow_symlinks: bool = True) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(PermissionError):
        exists(tmp_path / "file")
