"""The file of a SQLite database: whether it can be used, and whether it is still the one opened."""

from __future__ import annotations

import os
from pathlib import Path

from rabbitry._words import reason
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import UsageError


def make(file: Path) -> None:
    """Create a database's file and its folder if they do not exist.

    Only this user may read it, wherever it is; SQLite gives its further files the same permissions. Raises
    UsageError if the path can't be a file, RecordsError if it can't be written. SQLite itself would only report
    "unable to open database file".
    """
    folder = file.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder of the database {file} can't be made: {reason(error, is_named=False)}") from error
    if file.is_dir():
        raise UsageError(f"the database {file} is a folder: name a file in it")
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # An existing file keeps its permissions. Opening and closing it here would release the locks that this
        # process may hold on it (sqlite.org/howtocorrupt.html, section 2.2).
        if not os.access(file, os.R_OK | os.W_OK):
            raise RecordsError(
                f"the database {file} can't be written to by this user: change its permissions"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            text = f"the folder {folder} can't be written to by this user: the database keeps further files beside it"
            raise RecordsError(text) from None
    except OSError as error:
        raise RecordsError(f"the database {file} can't be made: {reason(error)}") from error


def is_at_rest(file: Path) -> bool:
    """Return whether a database is in a folder that can't be written, and no process is writing to it.

    SQLite creates files beside a database that it reads and fails if it can't, unless it is opened as immutable
    (sqlite.org/wal.html#readonly).
    """
    log = Path(f"{file}-wal")
    return file.is_file() and not os.access(file.parent, os.W_OK) and not (log.exists() and log.stat().st_size)


class OpenedFile:
    """The file that was opened as a database.

    SQLite keeps writing to a file that was removed or replaced, and those writes would be lost. `check` is called
    after each commit, so that data counts as written only if it is in the file of that name.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        # Computed once: joining paths costs more than the system call.
        self._name, self._log = str(file), f"{file}-wal"
        self._has_log = os.path.exists(self._log)
        self._identity = self._found()

    def check(self) -> None:
        """Raise RecordsError if the file, or the log of its last changes, was removed or replaced."""
        if self._identity is None or self._found() != self._identity:
            raise RecordsError(
                f"the database {self._file} (or its -wal) was removed or replaced while it was in use: "
                "nothing more is written; put it back, or start again with a new one"
            )

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._name)
            if self._has_log:
                os.stat(self._log)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordsError(f"the database {self._file} can't be used any more: {reason(error)}") from error
        return found.st_dev, found.st_ino
