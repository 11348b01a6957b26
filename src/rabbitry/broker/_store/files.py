"""The files beside a store's database, and the folders for files set aside."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import BinaryIO


def log_path(database: Path) -> Path:
    """Return the path of SQLite's log of a database."""
    return database.with_name(f"{database.name}-wal")


def mark_path(database: Path) -> Path:
    """Return the path of the note on how far the log was committed."""
    return database.with_name(f"{database.name}-mark")


def new_folder_aside(folder: Path, why: str) -> Path:
    """Create and return a folder for files set aside, named after the reason and the time.

    Raises:
        OSError: The disk or the system failed.
    """
    aside = folder / f"{why}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09}"
    aside.mkdir(mode=0o700)
    return aside


def read_at(file: BinaryIO, start: int, size: int) -> bytes | None:
    """Return bytes of a file, fewer if it ends; None if the disk can't read them (EIO).

    Raises:
        OSError: The disk or the system failed.
    """
    try:
        file.seek(start)
        return file.read(size)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def head_of(path: Path, size: int) -> bytes | None:
    """Return the first bytes of a file; None if the disk can't read them (EIO).

    Raises:
        OSError: The disk or the system failed.
    """
    with open(path, "rb") as file:
        return read_at(file, 0, size)
