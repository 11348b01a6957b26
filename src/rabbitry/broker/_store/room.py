"""Disk blocks reserved for a store in advance, so that acks and reads still work on a full disk.

The store commits nothing that its database file has no blocks for, so a checkpoint can always finish and the
write-ahead log starts again; the log keeps enough blocks for acks, across restarts too. SQLite writes to both files as
usual: it ignores everything behind the pages and frames that it knows.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from typing import Final, Literal

from rabbitry.broker._store.files import head_of, log_path
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.runtime.files import BINARY, exists

_logger = logging.getLogger(__name__)
RESERVE: Final = 4 << 20
"""Bytes of blocks that the log always keeps."""
_AHEAD: Final = 1 << 20
"""Step in bytes by which the database's file grows, so that few batches have to grow it."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS})
"""Errors of file systems that can't reserve blocks in advance."""
_LOG_HEADER_SIZE: Final = 32
_LOG_HEADER: Final = bytes(_LOG_HEADER_SIZE)
"""Bytes in place of a log's header that mark the log as empty."""
_UNREADABLE: Final = b"\xff" * _LOG_HEADER_SIZE
"""Stands for a header that the disk can't read: not a log's header."""
_LOG_MAGIC: Final = 0x377F0682


def is_no_room(error: OSError) -> bool:
    """Return whether an error means that the disk or quota is full, or a file has its maximum size."""
    return error.errno in _NO_ROOM


class Room:
    """The disk blocks of a store's two files. All methods are called on the store's thread."""

    def __init__(self, path: Path) -> None:
        """Start without a reserve.

        Args:
            path: The database; its log is beside it, under SQLite's name.
        """
        self._database = path
        self._wal = log_path(path)
        self._reserve = path.with_name(f"{path.name}-reserve")
        self._file = -1
        self._database_id: tuple[int, int] | None = None
        self._wal_id: tuple[int, int] | None = None
        self.size = 0
        """Size of the database's file at the last `hold`, in bytes."""

    def has_log(self) -> bool:
        """Return whether there is a log. Call it and the next three methods before SQLite opens the database."""
        return exists(self._wal)

    def has_reserve(self) -> bool:
        """Return whether the last broker, which ended in order, has kept blocks for this start."""
        return exists(self._reserve)

    def is_log_empty(self) -> bool:
        """Return whether the log is empty according to its header."""
        return not self._log_header().strip(b"\0")

    def is_log_damaged(self) -> bool:
        """Return whether the log's header is damaged, so that SQLite would ignore the whole log.

        Its format: https://www.sqlite.org/fileformat2.html#walformat
        """
        header = self._log_header()
        return len(header) == _LOG_HEADER_SIZE and header != _LOG_HEADER and not _is_log_header(header)

    def _log_header(self) -> bytes:
        if not exists(self._wal):
            return b""
        header = head_of(self._wal, _LOG_HEADER_SIZE)
        return _UNREADABLE if header is None else header

    def bring_back(self) -> None:
        """Turn the reserve of the last run into the log again. Call it before SQLite opens the database."""
        try:
            if exists(self._wal):
                self._reserve.unlink(missing_ok=True)
            elif exists(self._reserve):
                with open(self._reserve, "r+b", buffering=0) as file:
                    file.write(_LOG_HEADER)
                    os.fsync(file.fileno())
                self._reserve.rename(self._wal)
        except OSError as error:
            _logger.warning("the disk blocks reserved in %s can't be used: %s", self._reserve, error.strerror)

    def take(self) -> None:
        """Reserve the log's blocks, or log that the disk is too full. Call it while SQLite has the database open."""
        # Closing any descriptor of the database would release SQLite's POSIX locks on it, so this one stays open.
        self._file = os.open(self._database, os.O_RDWR | BINARY)
        self._database_id = _identity(self._database.stat())
        self._wal_id = _identity(self._wal.stat())
        try:
            self._grow_log(RESERVE)
        except OSError as error:
            if not is_no_room(error):
                raise
            _logger.warning("no room in %s to keep %d MiB for acknowledgements", self._database.parent, RESERVE >> 20)

    def check_files(self) -> None:
        """Raise StoreFailed if the files that SQLite writes are no longer those in the folder."""
        for path, ours in ((self._database, self._database_id), (self._wal, self._wal_id)):
            if ours is None:
                continue
            try:
                there = path.stat()
            except OSError as error:
                raise StoreFailed(
                    f"{path} is gone ({error.strerror}): it was removed or moved while the broker ran, so nothing more "
                    "is confirmed; bring the data folder back, or start the broker again"
                ) from error
            if (there.st_dev, there.st_ino) != ours:
                raise StoreFailed(
                    f"{path} is another file than the one the broker opened: it was replaced while the broker ran, so "
                    "nothing more is confirmed; stop the broker before you restore a data folder, then start it again"
                )

    def hold(self, size: int, *, spare: bool = False) -> None:
        """Reserve blocks for `size` bytes of the database, and some in advance.

        Args:
            size: Bytes.
            spare: Whether to fail unless half of the advance fits too: that leaves space for records, and for growth
                caused by deletions.

        Raises:
            OSError: The disk is full.
        """
        self.size = os.fstat(self._file).st_size
        if size + _AHEAD // 2 <= self.size:
            return
        try:
            _grow(self._file, size + _AHEAD)
        except OSError as error:
            if not is_no_room(error):
                raise
            _grow(self._file, size + _AHEAD // 2 if spare else size)
        self.size = os.fstat(self._file).st_size

    def log_size(self) -> int:
        """Return the size of the log's file in bytes."""
        return self._wal.stat().st_size if exists(self._wal) else 0

    def can_grow(self) -> bool:
        """Return whether the log's file can grow."""
        try:
            self._grow_log(self.log_size() + _AHEAD)
        except OSError as error:
            if not is_no_room(error):
                raise
            return False
        return True

    def set_aside(self) -> None:
        """Keep the log's blocks for the next start. Call it after a checkpoint: the file is then no log any more."""
        try:
            if sys.platform != "win32":  # where a file that SQLite has open can't be moved
                self._wal.replace(self._reserve)
        except OSError as error:
            _logger.warning(
                "no disk blocks can be reserved in %s for the next start: %s", self._reserve, error.strerror
            )

    def close(self) -> None:
        """Close the files. Call it after SQLite has closed the database."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._database_id = self._wal_id = None

    def _grow_log(self, size: int) -> None:
        file = os.open(self._wal, os.O_RDWR | BINARY)
        try:
            _grow(file, size)
        finally:
            os.close(file)


def _is_log_header(header: bytes) -> bool:
    """Return whether bytes are a log's header, by magic number and checksum."""
    order: Literal["little", "big"] = "big" if header[3] & 1 else "little"
    words = [int.from_bytes(header[at : at + 4], order) for at in range(0, 24, 4)]
    first = second = 0
    for at in range(0, len(words), 2):
        first = (first + words[at] + second) & 0xFFFFFFFF
        second = (second + words[at + 1] + first) & 0xFFFFFFFF
    is_magic = int.from_bytes(header[:4], "big") & ~1 == _LOG_MAGIC
    return is_magic and header[24:] == first.to_bytes(4, "big") + second.to_bytes(4, "big")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _grow(file: int, size: int) -> None:
    """Extend a file to `size` bytes with reserved blocks. Raises OSError if the disk is full.

    macOS does nothing: it writes to other blocks than those that were reserved.
    """
    there = os.fstat(file).st_size
    if there >= size:
        return
    if sys.platform == "linux":
        try:
            os.posix_fallocate(file, there, size - there)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    elif sys.platform == "win32":
        os.ftruncate(file, size)  # it writes zeros
