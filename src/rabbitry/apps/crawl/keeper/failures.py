"""Failures of the database by remedy: wait, use another database, or leave out a message."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from rabbitry.apps.exceptions import RecordsError


class Failure(Enum):
    """The kind of a failure."""

    PASSING = auto()
    """The database can't be reached, is locked, or its disk is full: a later attempt may succeed."""
    LASTING = auto()
    """It is damaged, read-only, removed, or has other tables: all work fails."""
    OF_A_MESSAGE = auto()
    """It refuses the data of one message: others succeed."""


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
"""SQLite's error texts for tables changed by another version of the program; the error code does not show it."""
_DAMAGED: Final = "XX"
_RULES: Final = "42"
_LIMITS: Final = "54"
"""Classes of PostgreSQL's SQLSTATE: damage; missing permissions, tables or columns; data over a limit of its types."""


def failure_of(error: RecordsError) -> Failure:
    """Return the kind of an error of `Database.write`."""
    cause = error.__cause__
    if not isinstance(cause, DBAPIError):
        return Failure.LASTING  # detected by this program: the file is gone, or has another version
    driver = cause.orig
    if isinstance(driver, sqlite3.Error):
        return _of_sqlite(driver)
    state = getattr(driver, "sqlstate", None) or ""
    if state.startswith((_DAMAGED, _RULES)):
        return Failure.LASTING
    if state.startswith(_LIMITS) or isinstance(cause, DataError | IntegrityError | ProgrammingError):
        return Failure.OF_A_MESSAGE
    return Failure.PASSING


def _of_sqlite(error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", None)  # missing if Python's sqlite3 module itself refused it
    if code is None or code & 0xFF in _OF_A_MESSAGE:  # the upper bits hold the kind
        return Failure.OF_A_MESSAGE
    if code & 0xFF in _LASTING:
        return Failure.LASTING
    if code & 0xFF == sqlite3.SQLITE_ERROR:
        return Failure.LASTING if any(text in str(error) for text in _WITHOUT_TABLES) else Failure.OF_A_MESSAGE
    return Failure.PASSING
