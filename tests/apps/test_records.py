"""An app's database that is locked, unreachable or damaged; grading's stands for all."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from rabbitry.apps import _records
from rabbitry.apps.exceptions import NoRecords, RecordsAway, RecordsError
from rabbitry.apps.grading.message import submission
from rabbitry.apps.grading.records import Database, course
from rabbitry.apps.grading.records.schema import submissions
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import WITHIN


def test_a_database_without_its_version_is_named(database_url: str) -> None:
    with Database(database_url) as database:
        database.write_now(lambda connection: connection.execute(text("DELETE FROM alembic_version")))
    for existing in (False, True):
        with pytest.raises(RecordsError) as caught, Database(database_url, existing=existing):
            pass
        assert str(caught.value) == (
            f"database {database}: its table 'alembic_version' is empty, so the version of its other tables is "
            "unknown: restore it from a backup, or use another database"
        )
        assert not isinstance(caught.value, NoRecords)


def test_an_unreachable_server_is_away() -> None:
    with pytest.raises(RecordsAway), Database(f"postgresql://ann@127.0.0.1:{free_port()}/course"):
        pass


@contextmanager
def locked(database: Database, statement: str = "SELECT 1") -> Iterator[None]:
    """Hold a lock for the block: on all of SQLite's file, or on what the statement locks on PostgreSQL."""
    begun, over = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        connection.execute(text(statement))
        begun.set()
        assert over.wait(WITHIN)

    held = database._submit(hold)
    try:
        assert begun.wait(WITHIN)
        yield
    finally:
        over.set()
        held.result(WITHIN)


def test_writes_that_wait_together_for_a_locked_file_wait_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_records, "_BUSY_SECONDS", 0.2)
    url, tried, begin = f"sqlite:///{tmp_path / 'records.sqlite3'}", list[Connection](), _records._begin_sqlite

    def noted(connection: Connection) -> None:
        tried.append(connection)
        begin(connection)

    with Database(url) as other:
        monkeypatch.setattr(_records, "_begin_sqlite", noted)
        with Database(url) as database, locked(other):
            tried.clear()
            futures = [database._submit(course.counts) for _ in range(30)]
            for future in futures:
                with pytest.raises(RecordsAway, match=r"kept it locked for 0\.2 s"):
                    future.result(WITHIN)
            assert 0 < len(tried) <= 2, "the first one may have begun before the others came"


def test_a_lock_on_one_row_fails_the_work_that_needs_it_alone(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_records, "_LOCK_SECONDS", 0.5)
    monkeypatch.setattr(_records, "_LOCK_SECONDS_AGAIN", 0.1)
    url = postgresql_server.create_database()

    def change(connection: Connection, identity: str) -> int:
        mine = submissions.update().where(submissions.c.id == identity)
        return connection.execute(mine.values(size=7)).rowcount

    with Database(url) as other, Database(url) as database:
        for number in range(10):
            made = submission(7, "cloud_computing", b"x", "x.py", f"s{number}")
            database.write_now(partial(course.record, assignment=made))
        with locked(other, "UPDATE submissions SET size = 8 WHERE id = 's3'"):
            futures: list[Future[Any]] = [
                database._submit(partial(change, identity=f"s{number}")) for number in range(10)
            ]
            with pytest.raises(RecordsAway, match="another program has kept it locked"):
                futures.pop(3).result(WITHIN)
            assert [future.result(WITHIN) for future in futures] == [1] * 9
        assert database.write_now(partial(change, identity="s3")) == 1
