"""The files beside a store's database, and the folders for what is set aside."""

import time
from pathlib import Path


def log_path(database: Path) -> Path:
    """Return where SQLite keeps the log of a database."""
    return database.with_name(f"{database.name}-wal")


def mark_path(database: Path) -> Path:
    """Return where the note is that says how far the log was committed."""
    return database.with_name(f"{database.name}-mark")


def new_folder_aside(folder: Path, why: str) -> Path:
    """Make a folder for files set aside, named after the reason and the time, and return it. Raises OSError."""
    aside = folder / f"{why}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09}"
    aside.mkdir(mode=0o700)
    return aside
