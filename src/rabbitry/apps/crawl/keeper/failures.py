"""Failures of the database, by what helps: waiting, another database, or leaving out a message."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from rabbitry.apps.exceptions import RecordsError


class Failure(Enum):
    """The kind of a failure."""

    PASSING = auto()
    """The database can't be reached, is locked, or its disk is full: the same may go well later."""
    LASTING = auto()
    """It is damaged, read-only, gone, or has other tables: nothing goes well with it."""
    OF_A_MESSAGE = auto()
    """It refuses what a message says: others go well."""


_LASTING: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_FORMAT,
    }
)
_OF_A_MESSAGE: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
)
_WITHOUT_TABLES: Final = ("no such table", "no such column", "has no column", "values for")
"""SQLite's words for tables that another version of the program has changed; their code says nothing."""
_DAMAGED: Final = "XX"
_RULES: Final = "42"
"""Classes of PostgreSQL's SQLSTATE: damage, and what the user may not do or a table does not have."""


def failure_of(error: RecordsError) -> Failure:
    """Return of which kind an error of `Database.write` is."""
    cause = error.__cause__
    if not isinstance(cause, DBAPIError):
        return Failure.LASTING  # found by this program: the file is gone, or the version another
    driver = cause.orig
    if isinstance(driver, sqlite3.Error):
        return _of_sqlite(driver)
    state = getattr(driver, "sqlstate", None) or ""
    if state.startswith((_DAMAGED, _RULES)):
        return Failure.LASTING
    if isinstance(cause, DataError | IntegrityError | ProgrammingError):
        return Failure.OF_A_MESSAGE
    return Failure.PASSING


def _of_sqlite(error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", None)  # none if Python's own part refused it
    if code is None or code & 0xFF in _OF_A_MESSAGE:  # the upper bits say of which kind
        return Failure.OF_A_MESSAGE
    if code & 0xFF in _LASTING:
        return Failure.LASTING
    if code & 0xFF == sqlite3.SQLITE_ERROR:
        return Failure.LASTING if any(text in str(error) for text in _WITHOUT_TABLES) else Failure.OF_A_MESSAGE
    return Failure.PASSING
