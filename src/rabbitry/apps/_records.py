"""An app's database: SQLite or PostgreSQL, schema upgrades, and queries off the event loop.

Writes go to one thread, which puts all that wait into one transaction, because a commit costs a write to disk
whatever it holds. If one of them fails, each is done again in a transaction of its own; but if the database is locked
or can't be reached, all of them have failed, since each would wait for it again, one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import quote

import platformdirs
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    column,
    create_engine,
    event,
    insert,
    inspect,
    select,
    table,
)
from sqlalchemy import text as sql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError, SQLAlchemyError

from rabbitry._words import counted
from rabbitry.apps._records_file import OpenedFile, is_at_rest, make
from rabbitry.apps.exceptions import NoRecords, RecordsAway, RecordsError
from rabbitry.exceptions import UsageError
from rabbitry.runtime.backoff import Backoff
from rabbitry.runtime.parent import DATABASE, RECORDS_FOLDER

_MOST_AT_ONCE: Final = 200
_BUSY_SECONDS: Final = 30
_LOCK_NOT_AVAILABLE: Final = "55P03"
"""PostgreSQL's error code for a lock that was not had within `lock_timeout`."""
_BUSY_PAUSES: Final = Backoff(0.001, 0.1)
_READERS: Final = 4
_STOPPED_SECONDS: Final = 60.0
"""Seconds after which a program inside a transaction that sends nothing counts as stopped."""
_LOCK_SECONDS: Final = 300.0
"""Seconds that a statement waits for a lock on PostgreSQL. Not every stopped program's connection can be ended."""
_LOCK_SECONDS_AGAIN: Final = 1.0
"""The same for work that shared a transaction with some that had waited so long: the lock may be on others' rows."""
_POSTGRESQL: Final[dict[str, str | tuple[str, ...]]] = {
    "application_name": "rabbitry",
    # A server that vanishes without closing the connection is noticed within a minute.
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Connection parameters, see libpq's documentation (34.1.2); those in the URL take precedence."""

_logger = logging.getLogger(__name__)

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of an app. Several apps may share a database.

    app: names the SQLite file. migrations: the folder of Alembic's scripts. head: the newest migration. tables: the
    result of all migrations, made at once in a new database; without it, a new database goes through each of them.
    version_table: holds the database's version. lock: a number unique to the app, the PostgreSQL advisory lock held
    during an upgrade. linger: seconds that a write waits for others to share its commit, which saves most of the
    commit's CPU and disk time. pragmas: further settings of each SQLite connection; writer_pragmas: used instead on the
    writer's connection.
    """

    app: str
    migrations: Path
    head: str
    version_table: str
    lock: int
    tables: MetaData | None = None
    linger: float = 0.0
    pragmas: tuple[str, ...] = ()
    writer_pragmas: tuple[str, ...] = ()

    def default_url(self) -> str:
        """Return RABBITRY_DATABASE, or SQLite in the folder of `rabbitry up`, or in the user's data folder."""
        if given := os.environ.get(DATABASE):
            return given
        folder = Path(os.environ.get(RECORDS_FOLDER) or platformdirs.user_data_path("rabbitry"))
        return f"sqlite:///{folder / f'{self.app}.sqlite3'}"


class Database:
    """An app's database. A context manager; entering brings the schema up to date.

    Work is a function of a SQLAlchemy connection. It may be called again if a transaction failed.
    """

    def __init__(self, schema: Schema, url: str | None = None, *, existing: bool = False) -> None:
        """Check the URL of a database, which is opened on entering.

        existing: the database must exist; neither its file nor its tables are made. Raises UsageError if the URL is
        malformed or names another kind of database; the text shows no password.
        """
        self._schema = schema
        self._existing = existing
        given = url or schema.default_url()
        self._engine = _engine(given, existing=existing, pragmas=schema.pragmas)
        parsed = make_url(given)
        self._shown = parsed.render_as_string(hide_password=True)
        self._path = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
        # SQLite drops a connection's cache when another connection has written: the writer has one of its own.
        self._writer = _engine(given, existing=existing, pragmas=schema.writer_pragmas or schema.pragmas)
        self._writing = self._writer.execution_options(writes=True)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="records reader")
        self._work: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="records writer", daemon=True)
        # Held while work is handed over and while closing: it comes before the end of the queue, or is refused.
        self._gate = threading.Lock()
        self._is_closed = False
        self._file: OpenedFile | None = None

    def __str__(self) -> str:
        """Return the URL without a password."""
        return self._shown

    def __enter__(self) -> Self:
        """Bring the schema up to date, and start the writer.

        Raises RecordsError if the database can't be reached or is newer than this program; NoRecords if it must
        exist and does not.
        """
        try:
            if self._existing:
                self._check()
            else:
                with self._writing.begin() as connection:
                    _upgrade(connection, self._schema, str(self))
                if self._path is not None:
                    self._file = OpenedFile(self._path)
        except SQLAlchemyError as error:
            self._close()
            named = _named(error, str(self))
            if isinstance(error, ProgrammingError):  # no schema to make tables in, or no permission
                named = RecordsError(f"{named}: this user must be allowed to make tables there")
            raise named from error
        except BaseException:
            self._close()
            raise
        self._thread.start()
        return self

    def _check(self) -> None:
        if self._path is not None and not self._path.is_file():
            raise NoRecords(f"there are no records yet: no file {self._path}")
        with self._engine.connect() as connection:
            found = _version(connection, self._schema, str(self))
        if found is None:
            raise NoRecords(f"there are no records yet in the database {self}")
        if found != self._schema.head:
            raise RecordsError(
                f"the database has schema {found!r}, and this version of Rabbitry reads {self._schema.head!r}: "
                f"the roles of {self._schema.app} upgrade an older one when they start"
            )

    def __exit__(self, *_: object) -> None:
        """Finish the work in the queue, and close. Later work, reading too, is refused with RecordsError."""
        with self._gate:
            self._is_closed = True
            self._work.put(None)
        self._thread.join()
        self._close()

    def _close(self) -> None:
        self._readers.shutdown()
        self._engine.dispose()
        self._writer.dispose()

    async def write(self, work: Work[T]) -> T:
        """Do work in a transaction. Raises RecordsError and the work's errors. Cancelled, the outcome is unknown."""
        writing = asyncio.wrap_future(self._submit(work))
        if self._path is not None:
            return await writing
        try:
            while not (await asyncio.wait((writing,), timeout=_STOPPED_SECONDS))[0]:
                await self._end_stopped()
            return writing.result()
        finally:
            writing.cancel()  # no effect if it is done

    async def _end_stopped(self) -> None:
        """Do the same as `_end_stopped_now`, off the event loop."""
        with contextlib.suppress(RecordsError):  # closed just now: everything is written
            await self._in_reader(self._end_stopped_now)

    def _end_stopped_now(self) -> None:
        """End the transactions of programs that were stopped inside them, and for whose locks others wait."""
        with contextlib.suppress(RecordsError):  # the write itself reports that the server can't be reached
            if ended := self._read(partial(_end_stopped, seconds=_STOPPED_SECONDS)):
                text = "database %s: ended %s whose program stopped inside a transaction, for at least %.0f s"
                _logger.warning(text, self, counted(ended, "connection"), _STOPPED_SECONDS)

    def write_now(self, work: Work[T]) -> T:
        """Do the same as `write`, without an event loop."""
        writing = self._submit(work)
        while self._path is None:
            try:
                return writing.result(_STOPPED_SECONDS)
            except TimeoutError:
                if writing.done():  # the work itself raised it
                    raise
                self._end_stopped_now()
        return writing.result()

    async def read(self, work: Work[T]) -> T:
        """Do work that only reads. Raises RecordsError, also once the database is closed."""
        return await self._in_reader(partial(self._read, work))

    def read_now(self, work: Work[T]) -> T:
        """Do the same as `read`, without an event loop."""
        self._check_open()
        return self._read(work)

    def _in_reader(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Call a function on a reader's thread."""
        with self._gate:
            self._check_open()
            return asyncio.get_running_loop().run_in_executor(self._readers, function)

    def _read(self, work: Work[T]) -> T:
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise _named(error, str(self)) from error

    def _check_open(self) -> None:
        if self._is_closed:  # a thread may outlive the block
            raise RecordsError(f"database {self}: it was closed")

    def _submit(self, work: Work[T]) -> Future[T]:
        future: Future[T] = Future()
        with self._gate:
            self._check_open()
            self._work.put((work, future))
        return future

    def _write_all(self) -> None:
        item = self._work.get()
        while item is not None:
            time.sleep(self._schema.linger)
            batch: list[tuple[Work[Any], Future[Any]]] = []
            while item is not None:
                if item[1].set_running_or_notify_cancel():
                    batch.append(item)
                if len(batch) == _MOST_AT_ONCE or self._work.empty():
                    break
                item = self._work.get()
            self._write_batch(batch)
            if item is not None:
                item = self._work.get()

    def _write_batch(self, batch: list[tuple[Work[Any], Future[Any]]], *, is_again: bool = False) -> None:
        """Do work in one transaction. is_again: whether other work, in the same transaction, has waited for a lock."""
        if not batch:
            return
        try:
            with self._writing.begin() as connection:
                if is_again:
                    connection.execute(sql(f"SET LOCAL lock_timeout = {round(1000 * _LOCK_SECONDS_AGAIN)}"))
                results = [work(connection) for work, _ in batch]
            if self._file is not None:
                self._file.check()
        except Exception as error:  # noqa: BLE001 - it is raised where the work is awaited
            is_of_row = _is_of_row(error)
            named = _named(error, str(self)) if isinstance(error, SQLAlchemyError) else None
            if len(batch) > 1 and (is_of_row or not isinstance(named, RecordsAway)):
                for item in batch:
                    self._write_batch([item], is_again=is_of_row)
                return
            for _, future in batch:
                if named is not None:
                    named.__cause__ = error
                future.set_exception(named or error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


def _engine(url: str, *, existing: bool, pragmas: tuple[str, ...]) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError("a database's URL is sqlite:///FILE or postgresql://user@host/name") from error
    if parsed.get_backend_name() == "postgresql":
        query = _POSTGRESQL | dict(parsed.query)
        engine = create_engine(parsed.set(drivername="postgresql+psycopg", query=query), pool_pre_ping=True)
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise UsageError("a database's URL is sqlite:///FILE or postgresql://user@host/name")
    if not existing:
        make(Path(parsed.database))
    elif is_at_rest(Path(parsed.database)):
        parsed = parsed.set(database=f"file:{quote(parsed.database)}", query={"immutable": "1", "uri": "true"})
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", partial(_prepare_sqlite, pragmas))
    if not existing:
        event.listen(engine, "connect", _set_wal)  # the mode is kept in the file; readers change nothing
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _: object) -> None:
    # Without it, the locks of a program that vanished inside a transaction would be held for two hours.
    connection.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.execute(f"SET lock_timeout = {round(1000 * _LOCK_SECONDS)}")
    connection.commit()


def _end_stopped(connection: Connection, seconds: float) -> int:
    """End connections whose program stopped inside a transaction so long ago, and for whose locks others wait.

    Return their number. Only connections of this user's programs count. idle_in_transaction_session_timeout does not
    cover a program that stopped between statements that it sends together, as psycopg's `executemany` does: to
    PostgreSQL such a connection is active. A healthy one is not ended, however long its transaction takes: each
    statement that it sends changes `state_change`, and while the server works, it does not wait for its client.
    """
    return len(connection.execute(_END_STOPPED, {"seconds": seconds}).all())


_END_STOPPED: Final = sql(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND usename = current_user AND application_name = current_setting('application_name')"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND wait_event_type = 'Client'"
    " AND state_change < clock_timestamp() - make_interval(secs => :seconds)"
    " AND pid IN (SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock')"
)


def _prepare_sqlite(pragmas: tuple[str, ...], connection: Any, _: object) -> None:
    connection.isolation_level = None  # otherwise sqlite3 begins transactions itself, too late
    for pragma in ("synchronous = FULL", "foreign_keys = ON", *pragmas):
        connection.execute(f"PRAGMA {pragma}")


def _set_wal(connection: Any, _: object) -> None:
    # SQLite's own "timeout" does not cover this statement: it fails at once if another process is creating the
    # database or closing it as the last one.
    deadline = time.monotonic() + _BUSY_SECONDS
    attempt = 0
    while True:
        attempt += 1
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # the upper bits hold the kind
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(_BUSY_PAUSES.pause(attempt))


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes would fail, instead of waiting, if another one writes.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection, schema: Schema, where: str) -> None:
    """Upgrade the schema; other programs that start at the same time wait."""
    if connection.dialect.name == "postgresql":
        connection.execute(sql("SELECT pg_advisory_xact_lock(:lock)"), {"lock": schema.lock})
    found = _version(connection, schema, where)
    if found == schema.head:
        return
    if found is None and schema.tables is not None:
        _make(connection, schema, schema.tables)
        return
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs each plugin that it loads
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(schema.migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = schema.version_table
    try:
        command.upgrade(config, schema.head)
    except CommandError as error:
        raise _other_version(found) from error


def _make(connection: Connection, schema: Schema, tables: MetaData) -> None:
    """Make the newest tables in a new database, with the version table as Alembic makes it.

    It takes a fifth of the CPU that all migrations take (9 ms, not 47, on SQLite), and does not import Alembic.
    """
    tables.create_all(connection, checkfirst=False)
    key = PrimaryKeyConstraint("version_num", name=f"{schema.version_table}_pkc")
    version = Table(schema.version_table, MetaData(), Column("version_num", String(32), nullable=False), key)
    version.create(connection)
    connection.execute(insert(version).values(version_num=schema.head))


def _version(connection: Connection, schema: Schema, where: str) -> str | None:
    """Return the schema's version; None if there are no tables. Raises RecordsError if the version is missing."""
    if not inspect(connection).has_table(schema.version_table):
        return None
    version = column("version_num", String)
    found = connection.execute(select(version).select_from(table(schema.version_table, version))).scalar()
    if found is None:
        raise RecordsError(
            f"database {where}: its table {schema.version_table!r} is empty, so the version of its other tables is "
            "unknown: restore it from a backup, or use another database"
        )
    return found


def _other_version(found: str | None) -> RecordsError:
    return RecordsError(f"the database has schema {found!r}, which this version of Rabbitry can't use")


def _named(error: SQLAlchemyError, where: str) -> RecordsError:
    # Only the driver's text: SQLAlchemy's holds the statement and its values, which may be a student's answers.
    cause = getattr(error, "orig", None)
    is_busy = isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    if is_busy or _is_of_row(error):
        seconds = _BUSY_SECONDS if is_busy else _LOCK_SECONDS
        return RecordsAway(
            f"database {where}: another program has kept it locked for {seconds:g} s: if one was stopped, let it go on "
            "or end it"
        )
    text = str(cause).strip().splitlines() if cause is not None else []
    # An error of psycopg without a code of the server's is one of the connection; SQLite's have no such attribute.
    is_unreachable = isinstance(error, OperationalError) and getattr(cause, "sqlstate", "") is None
    kind = RecordsAway if is_unreachable else RecordsError
    return kind(f"database {where}: {text[0] if text else type(error).__name__}")


def _is_of_row(error: Exception) -> bool:
    """Return whether a lock was not had on PostgreSQL, which locks rows and tables, and not the whole database."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE
