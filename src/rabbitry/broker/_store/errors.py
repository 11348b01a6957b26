"""The meaning of SQLite's errors for the store: damage, a full disk, or a failing disk."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Final

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
"""SQLite's codes for a damaged file."""


def code(error: Exception) -> int:
    """Return the extended code of an error; 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that a file is damaged."""
    return code(error) & 0xFF in _DAMAGE


def is_full(error: Exception) -> bool:
    """Return whether an error means that the disk is full."""
    return code(error) == sqlite3.SQLITE_FULL


def failure(error: Exception, path: Path) -> str:
    """Return the log line for a disk error that stops the broker: what happened to the store, and what to do."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if is_read_only(path.parent):
        todo = "its file system is read-only now, as after an error of the disk; see dmesg, have it checked and mounted"
    elif name in ("SQLITE_IOERR_READ", "SQLITE_IOERR_CORRUPTFS"):
        todo = f"a part of it can't be read; see dmesg, and if that stays so run rabbitry broker repair {path.parent}"
    else:
        todo = "see dmesg, have the disk and the file system checked"
    return (
        f"the store {path} failed ({error}, {name}); nothing is confirmed that is not written: {todo}, then start the "
        "broker again"
    )


def is_read_only(folder: Path) -> bool:
    """Return whether a folder's file system is mounted read-only. Windows does not tell."""
    if sys.platform == "win32":
        return False
    else:
        try:
            return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
        except OSError:
            return False
