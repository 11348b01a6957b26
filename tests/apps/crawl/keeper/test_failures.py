"""Failures of the database by their remedy: waiting, another database, or leaving out a message."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from rabbitry.apps import _records
from rabbitry.apps.crawl.keeper import index, sets
from rabbitry.apps.crawl.keeper import role as role_module
from rabbitry.apps.crawl.keeper.costs import LIMIT
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.failures import Failure, failure_of
from rabbitry.apps.crawl.keeper.inputs import Input
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.keeper.role import Role
from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.crawl.node import Node
from rabbitry.apps.exceptions import RecordsError
from rabbitry.flow import App, Batch
from rabbitry.runtime.backoff import Backoff
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import eventually


def failure(database: Database, *statements: str) -> Failure:
    """Return the kind of failure that statements cause."""

    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    with pytest.raises(RecordsError) as raised:
        database.write_now(work)
    return failure_of(raised.value)


FILL_SQLITE = (
    "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 100000)"
    " INSERT INTO crawl_counts (name, number) SELECT 'x' || value, 1 FROM n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A created database on SQLite."""
    with Database(f"sqlite:///{tmp_path}/crawl.db"):
        return tmp_path / "crawl.db"


def test_a_full_disk_and_a_locked_database_may_pass(file: Path) -> None:
    with Database(f"sqlite:///{file}") as database:
        database.write_now(lambda connection: connection.execute(text("PRAGMA busy_timeout = 0")))
        assert failure(database, "PRAGMA max_page_count = 1", FILL_SQLITE) is Failure.PASSING
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert failure(database) is Failure.PASSING
        database.write_now(lambda connection: connection.execute(text("UPDATE crawl_keeper SET is_paused = 1")))


def test_damage_and_other_tables_last(file: Path) -> None:
    with Database(f"sqlite:///{file}") as database:
        assert failure(database, "SELECT missing FROM crawl_keeper") is Failure.LASTING
        assert failure(database, "DROP TABLE crawl_later", "SELECT * FROM crawl_later") is Failure.LASTING
    data = bytearray(file.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)  # everything except the schema
    file.write_bytes(data)
    with closing(sqlite3.connect(file)) as connection, pytest.raises(sqlite3.DatabaseError, match="malformed"):
        connection.execute("SELECT * FROM crawl_keeper").fetchall()
    with pytest.raises(RecordsError, match="malformed"), Database(f"sqlite:///{file}"):
        pass


def test_a_read_only_database_lasts(file: Path) -> None:
    with Database(f"sqlite:///{file}") as database:
        assert failure(database, "PRAGMA query_only = 1", "UPDATE crawl_keeper SET is_paused = 1") is Failure.LASTING


def test_values_that_the_database_refuses_are_those_of_a_message(database: Database) -> None:
    twice = "INSERT INTO crawl_counts (name, number) VALUES ('a', 1)"
    assert failure(database, twice, twice) is Failure.OF_A_MESSAGE

    def too_large(connection: Connection) -> None:
        sets.change(connection, "INSERT INTO crawl_counts (name, number) VALUES (?, ?)", "a\0b", 1 << 62)
        sets.change(connection, "INSERT INTO crawl_counts (name, number) VALUES (?, ?)", "a", [])

    with pytest.raises(RecordsError) as raised:
        database.write_now(too_large)
    assert failure_of(raised.value) is Failure.OF_A_MESSAGE


def test_a_cut_connection_to_postgresql_passes_and_lost_rights_last(postgresql_server: PostgreSQL) -> None:
    with Database(postgresql_server.create_database()) as database:
        assert failure(database, "SELECT pg_terminate_backend(pg_backend_pid())") is Failure.PASSING
        database.write_now(lambda connection: connection.execute(text("UPDATE crawl_keeper SET is_paused = 1")))
        no_rights = "CREATE ROLE nobody_here", "SET LOCAL ROLE nobody_here", "UPDATE crawl_keeper SET is_paused = 1"
        assert failure(database, *no_rights) is Failure.LASTING
        assert failure(database, "SELECT * FROM crawl_none") is Failure.LASTING


def test_data_over_a_limit_of_postgresql_are_those_of_a_message(postgresql_server: PostgreSQL) -> None:
    too_long = "SELECT to_tsvector('simple', string_agg(md5(n::text), ' ')) FROM generate_series(1, 40000) AS n"
    with Database(postgresql_server.create_database()) as database:
        assert failure(database, too_long) is Failure.OF_A_MESSAGE


@contextmanager
def failing(database: Database, monkeypatch: pytest.MonkeyPatch, *statements: str) -> Iterator[list[int]]:
    """Run these statements first in each transaction of the keeper; yield a list that gets an entry for each one."""
    begun: list[int] = []
    apply = Keeper.apply

    def work(
        keeper: Keeper, connection: Connection, inputs: Sequence[Input], now: float, *, comes_again: bool = False,
        limit: int = LIMIT, is_alone: bool = False, is_late: bool = False,
    ) -> Decided:  # fmt: skip
        begun.append(len(inputs))
        for statement in statements:
            connection.execute(text(statement))
        return apply(
            keeper, connection, inputs, now, comes_again=comes_again, limit=limit, is_alone=is_alone, is_late=is_late
        )

    monkeypatch.setattr(Keeper, "apply", work)
    yield begun


async def kept(role: Role, until: Callable[[], bool]) -> bool:
    """Run a keeper without messages until it ends or a condition holds; return whether it ended."""
    task = asyncio.create_task(role.keep([], [], Batch(0)))
    try:
        while not task.done() and not until():
            await asyncio.wait((task,), timeout=0.01)
        return task.done()
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def test_a_keeper_ends_if_its_database_can_never_be_used_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(f"sqlite:///{file}") as database, failing(database, monkeypatch, "SELECT * FROM none") as begun:
        role = Role(Node("keeper"), database)
        assert not await kept(role, role.ended.done), "its messages are neither acked nor failed"
        assert len(begun) == 1
        with pytest.raises(RecordsError, match="no such table"):
            role.ended.result()


async def test_a_keeper_waits_for_its_database_with_patience(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(f"sqlite:///{file}") as database:
        full = ("PRAGMA max_page_count = 1", FILL_SQLITE)
        with failing(database, monkeypatch, *full) as begun:
            role = Role(Node("keeper"), database, patience=0.45)  # shorter than its first pause
            assert not await kept(role, role.ended.done)
            assert len(begun) == 2, "the second time comes after a pause, past its patience"
            with pytest.raises(RecordsError, match="full"):
                role.ended.result()


async def test_a_keeper_goes_on_when_postgresql_is_back(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with Database(postgresql_server.create_database()) as database, failing(database, monkeypatch, cut) as begun:
        role = Role(Node("keeper"), database)

        def is_cut() -> bool:
            if len(begun) == 1:
                monkeypatch.undo()
            return role.ended.done()

        assert await kept(role, is_cut), "its messages are acked"
        assert begun


async def test_a_keeper_goes_on_when_another_stopped_inside_a_transaction(
    postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgresql_server.create_database()
    monkeypatch.setattr(_records, "_STOPPED_SECONDS", 0.1)
    with (
        Database(url) as database,
        closing(psycopg.connect(url, application_name="rabbitry")) as stopped,
        closing(psycopg.connect(url, application_name="rabbitry")) as reader,
    ):
        # It stops between statements that it sends together, as `executemany` does: no time limit of the server counts.
        stopped.execute("UPDATE crawl_keeper SET is_paused = 1")
        send_and_stop(stopped, b"UPDATE crawl_keeper SET is_paused = 1")
        send_and_stop(reader, b"SELECT 1 FROM crawl_counts")
        role = Role(Node("keeper"), database)
        assert await kept(role, role.ended.done), "its messages are acked"
        assert changed_at(database, reader) is not None, "one that nobody waits for goes on"
    assert "ended 1 connection whose program stopped inside a transaction" in caplog.text


def send_and_stop(connection: psycopg.Connection, statement: bytes) -> None:
    """Send one of the statements of a pipeline, and no end of the pipeline."""
    if connection.pgconn.pipeline_status == psycopg.pq.PipelineStatus.OFF:
        connection.pgconn.enter_pipeline_mode()
    connection.pgconn.send_query_params(statement, [])
    connection.pgconn.send_flush_request()
    connection.pgconn.flush()


def changed_at(database: Database, connection: psycopg.Connection) -> datetime | None:
    """Return the time of the last statement that the server got from an active connection; None if it has ended."""
    query = text("SELECT state_change FROM pg_stat_activity WHERE pid = :pid AND state = 'active'")
    return database.read_now(lambda reading: reading.execute(query, {"pid": connection.info.backend_pid}).scalar())


async def test_each_statement_of_a_pipeline_shows_that_its_program_runs(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.create_database()
    with Database(url) as database, closing(psycopg.connect(url)) as running:
        send_and_stop(running, b"SELECT 1")
        await eventually(lambda: changed_at(database, running) is not None, "the first statement")
        first = changed_at(database, running)
        send_and_stop(running, b"SELECT 2")
        await eventually(lambda: changed_at(database, running) != first, "the second statement")
        assert changed_at(database, running) is not None


def test_a_user_without_create_permission_gets_a_clear_error(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.create_database()
    weak = f"weak_{url.rpartition('/')[2]}"  # roles belong to the whole server
    with Database(url) as database:
        statements = (
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            f"CREATE ROLE {weak} LOGIN",
            "DROP TABLE crawl_version",
        )
        database.write_now(lambda connection: [connection.execute(text(each)) for each in statements])
    with pytest.raises(RecordsError, match="this user must be allowed to make tables"):
        Database(url.replace("rabbitry@", f"{weak}@")).__enter__()


async def test_returned_documents_leave_the_database_once_it_is_writable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(f"http://a.test/{number}", 1.0, "p", "c", 1.0) for number in range(3)]
    given_back: list[object] = []
    apply, drop = Keeper.apply, Keeper.drop_waiting
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    errors: list[Exception] = [OperationalError("COMMIT", None, full)]

    def fail(*_: object, **__: object) -> Decided:
        monkeypatch.setattr(Keeper, "apply", apply)
        raise ZeroDivisionError

    def drop_and_fail(keeper: Keeper, connection: Connection, now: float, documents: Sequence[Document]) -> None:
        drop(keeper, connection, now, documents)
        if errors:
            raise errors.pop()

    async def publish(app: App, value: object, *, key: str) -> str:
        given_back.append(value)
        return key

    with Database(f"sqlite:///{file}") as database:
        database.write_now(lambda connection: Keeper("one", index).apply(connection, documents, 1.0, limit=0))
        monkeypatch.setattr(Keeper, "apply", fail)
        monkeypatch.setattr(Keeper, "drop_waiting", drop_and_fail)
        monkeypatch.setattr(App, "publish", publish)
        monkeypatch.setattr(role_module, "_PAUSES", Backoff(0.001, 0.001))
        await Role(Node("keeper"), database).keep([], [], Batch(0))
        assert not errors
        assert given_back == documents
        assert database.write_now(lambda connection: Keeper("two", index).first_waiting(connection, 1.0)) == []
