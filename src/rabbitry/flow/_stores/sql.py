"""Stores by URL, in which workers keep what they must know of each other: SQLite or PostgreSQL, through SQLAlchemy.

SQLAlchemy comes with the extra `records`; this module is imported when a store is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from rabbitry.exceptions import UsageError
from rabbitry.flow.exceptions import StoreError

_BUSY_SECONDS: Final = 30
_PURGED: Final = 1000
"""Rows that `purge` deletes, at most."""


class Tables:
    """Tables in a database. Used from any thread; `close` ends its connections.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER@HOST/NAME`.
        what: What is kept there, for errors, such as "a join's store".
        tables: The tables, which are made if they are absent.

    Raises:
        UsageError: The URL is malformed, or names another kind of database.
        StoreError: It can't be opened.
    """

    def __init__(self, url: str, what: str, tables: sa.MetaData) -> None:
        self._what = what
        self._engine = _engine(url, what)
        self.insert: Any = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        """The function that makes an INSERT which can do nothing on a conflict."""
        with self._errors():
            try:
                tables.create_all(self._engine)
            except (IntegrityError, ProgrammingError):
                tables.create_all(self._engine)  # another worker made the tables at the same moment

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Enter a transaction, which is committed at the end of the block. Raises StoreError."""
        with self._errors(), self._engine.begin() as transaction:
            yield transaction

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # The driver's text alone: SQLAlchemy's holds the statement and its values.
            text = str(getattr(error, "orig", None) or type(error).__name__).strip().partition("\n")[0]
            shown = self._engine.url.render_as_string(hide_password=True)
            raise StoreError(f"{self._what} {shown} does not answer: {text}") from error


def purge(transaction: sa.Connection, table: sa.Table, now: float) -> None:
    """Delete rows of a table whose column `kept_until` is over, and not those that another program deletes."""
    key = table.primary_key.columns
    over = sa.select(*key).where(table.c.kept_until < now).limit(_PURGED)
    # Two programs that delete the same rows in different orders would wait for each other in PostgreSQL.
    over = over.with_for_update(skip_locked=True)
    transaction.execute(sa.delete(table).where(sa.tuple_(*key).in_(over)))


def _engine(url: str, what: str) -> sa.Engine:
    wrong = f"{what} is sqlite:///FILE or postgresql://user@host/name, or redis://host/number"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError(wrong) from error
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise UsageError(wrong)
    path = Path(parsed.database)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)  # bodies are nobody else's; SQLite's journal gets the same mode
    engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # otherwise sqlite3 begins transactions itself, too late
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and then writes would fail, instead of waiting, if another one writes.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
