"""Locks of files and syncing of folders, which each system does in its own way, and whether there is a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""The flag of `os.open` without which Windows translates the ends of lines; 0 elsewhere."""


def exists(path: Path) -> bool:
    """Return whether there is a file or folder, which need not be readable.

    From Python 3.14 on, `Path.exists` returns False too if the system does not tell.

    Raises:
        OSError: That can't be found out, such as for a folder that this user may not search.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


if sys.platform == "win32":
    import errno
    import msvcrt

    _LOCKED: Final = 1 << 30
    """Place of the byte that is locked, far behind the contents: nobody else can read what Windows has locked."""

    def lock_file(file: int, *, waits: bool) -> None:
        """Lock an open file until it is closed, against all other processes. Leaves its position somewhere.

        Args:
            file: The descriptor.
            waits: Whether to wait for the lock.

        Raises:
            OSError: It is locked already, or can't be locked.
        """
        while True:
            os.lseek(file, _LOCKED, os.SEEK_SET)
            try:
                msvcrt.locking(file, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if not waits or error.errno != errno.EDEADLK:  # Windows gives up after ten seconds
                    raise
            else:
                return

    def sync(path: Path) -> None:
        """Write a file's contents to the disk. Windows writes the names in a folder by itself."""
        if path.is_dir():
            return
        file = os.open(path, os.O_RDWR | BINARY)  # it syncs no file that is open for reading
        try:
            os.fsync(file)
        finally:
            os.close(file)

else:
    import fcntl

    def lock_file(file: int, *, waits: bool) -> None:
        """Lock an open file until it is closed, against all other processes. Leaves its position somewhere.

        Args:
            file: The descriptor.
            waits: Whether to wait for the lock.

        Raises:
            OSError: It is locked already, or can't be locked.
        """
        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def sync(path: Path) -> None:
        """Write a file's contents, or the names in a folder, to the disk.

        Raises:
            OSError: The disk or the system failed.
        """
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
