"""SQLite database files: named errors for unusable ones, and no writes into a deleted one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, text

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.exceptions import NoRecords, RecordsError
from rabbitry.exceptions import UsageError

KEPT = "crawl.db"


def pause(connection: Connection) -> None:
    """Write a change."""
    connection.execute(text("UPDATE crawl_keeper SET is_paused = 1"))


def remove(file: Path) -> None:
    """Remove only the file of a database, as people do."""
    file.unlink()


def replace(file: Path) -> None:
    """Replace the file of a database by a copy."""
    shutil.copy(file, file.with_name("copy"))
    os.replace(file.with_name("copy"), file)


def remove_log(file: Path) -> None:
    """Remove the write-ahead log, with the last changes."""
    file.with_name(f"{file.name}-wal").unlink()


@pytest.mark.parametrize("harm", [remove, replace, remove_log])
def test_nothing_counts_as_written_to_a_file_that_is_gone(harm: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / KEPT
    with Database(f"sqlite:///{file}") as database:
        database.write_now(pause)
        harm(file)
        for _ in range(2):
            with pytest.raises(RecordsError, match=f"{file} .*removed or replaced"):
                database.write_now(pause)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"folder of the database {tmp_path}/file/{KEPT} can't be made"):
        Database(f"sqlite:///{tmp_path}/file/{KEPT}")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"the database {tmp_path} is a folder"):
        Database(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("kept", ["file", "folder"])
def test_an_unwritable_database_is_reported(kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(f"sqlite:///{tmp_path}/{KEPT}"):
        pass
    forbidden = tmp_path / KEPT if kept == "file" else tmp_path
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == forbidden and mode & os.W_OK))
    with pytest.raises(RecordsError, match=f"{forbidden} can't be written to by this user"):
        Database(f"sqlite:///{tmp_path}/{KEPT}")


@pytest.mark.parametrize("name", [f"none/{KEPT}", f"file/{KEPT}", "folder"])
def test_reading_creates_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NoRecords, match=str(tmp_path / name)), Database(f"sqlite:///{tmp_path / name}", existing=True):
        pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [KEPT, "100% of #1, no?.db"])
def test_a_copy_is_read_if_nothing_can_be_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(f"sqlite:///{tmp_path}/{KEPT}") as database:
        database.write_now(pause)
    (tmp_path / KEPT).rename(tmp_path / name)
    # Root may write everywhere. SQLite does not try, so it was opened read-only.
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode & os.W_OK))
    with Database(f"sqlite:///{tmp_path}/{quote(name)}", existing=True) as database:
        read = database.read_now(
            lambda connection: connection.execute(text("SELECT is_paused FROM crawl_keeper")).all()
        )
        assert [tuple(row) for row in read] == [(1,)]
        assert [path.name for path in tmp_path.iterdir()] == [name]
