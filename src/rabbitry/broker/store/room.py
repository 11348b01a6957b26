"""Room on the disk that a store takes before it needs it, so that acks and reads go on where there is none left.

The store commits nothing that its database file has no blocks for, so a checkpoint always comes to its end and the
write-ahead log begins anew; and the log keeps blocks for so much as acks need, over a restart as well. SQLite writes
into both as ever: it ignores what stands behind the pages and frames that it knows of.
"""

import errno
import logging
import os
from pathlib import Path
from typing import Final, Literal

from rabbitry.broker.store.batch import StoreFailed

_log = logging.getLogger(__name__)
RESERVE: Final = 4 << 20
"""Bytes that the log keeps in any case."""
_AHEAD: Final = 1 << 20
"""Bytes that the database's file takes at once, so that few batches have to ask for more."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS})
"""Errors of file systems that can't take blocks in advance."""
_LOG_HEADER_SIZE: Final = 32
_LOG_HEADER: Final = bytes(_LOG_HEADER_SIZE)
"""In place of a log's header it says that nothing is in the log."""
_LOG_MAGIC: Final = 0x377F0682


def is_no_room(error: OSError) -> bool:
    """Whether an error says that the disk, a quota or the largest size of a file is used up."""
    return error.errno in _NO_ROOM


class Room:
    """What a store's two files have on the disk. All of it is called on the store's thread."""

    def __init__(self, path: Path) -> None:
        """path: the database; its log has SQLite's name beside it."""
        self._database = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._reserve = path.with_name(f"{path.name}-reserve")
        self._file = -1
        self._database_id: tuple[int, int] | None = None
        self._wal_id: tuple[int, int] | None = None
        self.size = 0
        """Bytes of the database's file as of the last `hold`."""

    def has_log(self) -> bool:
        """Whether there is a log. Before SQLite opens the database, as the next three."""
        return self._wal.exists()

    def has_reserve(self) -> bool:
        """Whether room was kept by a broker that ended in order."""
        return self._reserve.exists()

    def is_log_empty(self) -> bool:
        """Whether nothing is in the log, as far as its header says."""
        return not self._log_header().strip(b"\0")

    def is_log_damaged(self) -> bool:
        """Whether SQLite would take the log for an empty one though it is not.

        Its format: https://www.sqlite.org/fileformat2.html#walformat
        """
        header = self._log_header()
        return len(header) == _LOG_HEADER_SIZE and header != _LOG_HEADER and not _is_log_header(header)

    def _log_header(self) -> bytes:
        if not self._wal.exists():
            return b""
        with open(self._wal, "rb") as file:
            return file.read(_LOG_HEADER_SIZE)

    def bring_back(self) -> None:
        """Make the log of what was kept for it over a restart. Before SQLite opens the database."""
        try:
            if self._wal.exists():
                self._reserve.unlink(missing_ok=True)
            elif self._reserve.exists():
                with open(self._reserve, "r+b", buffering=0) as file:
                    file.write(_LOG_HEADER)
                    os.fsync(file.fileno())
                self._reserve.rename(self._wal)
        except OSError as error:
            _log.warning("the room that was kept in %s can't be used: %s", self._reserve, error.strerror)

    def take(self) -> None:
        """Take what the log keeps in any case, where there is so much. While SQLite has the database open."""
        # Closing any descriptor of the database would end SQLite's locks of it, so this one is kept as long as those.
        self._file = os.open(self._database, os.O_RDWR | os.O_CLOEXEC)
        self._database_id = _identity(os.fstat(self._file))
        self._wal_id = _identity(self._wal.stat())
        try:
            self._grow_log(RESERVE)
        except OSError as error:
            if not is_no_room(error):
                raise
            _log.warning("no room in %s to keep %d MiB for acknowledgements", self._database.parent, RESERVE >> 20)

    def check_files(self) -> None:
        """Raise StoreFailed where the files that SQLite writes are not the ones in the folder any more."""
        for path, ours in ((self._database, self._database_id), (self._wal, self._wal_id)):
            if ours is None:
                continue
            try:
                there = path.stat()
            except OSError as error:
                raise StoreFailed(
                    f"{path} is gone ({error.strerror}): it was removed or moved while the broker ran, so nothing more "
                    "is confirmed; bring the data folder back, or start the broker anew"
                ) from error
            if (there.st_dev, there.st_ino) != ours:
                raise StoreFailed(
                    f"{path} is another file than the one the broker opened: it was replaced while the broker ran, so "
                    "nothing more is confirmed; stop the broker before you restore a data folder, then start it anew"
                )

    def hold(self, size: int, *, spare: bool = False) -> None:
        """Take blocks for so many bytes of the database, and for more. Raises OSError where there are none.

        spare: whether what it needs is only taken together with the half of what is taken ahead: so much is left
        for records, and for what grows where something is deleted.
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
        """Return how many bytes the log's file has."""
        return self._wal.stat().st_size if self._wal.exists() else 0

    def can_grow(self) -> bool:
        """Whether the log's file can become longer than it is."""
        try:
            self._grow_log(self.log_size() + _AHEAD)
        except OSError as error:
            if not is_no_room(error):
                raise
            return False
        return True

    def set_aside(self) -> None:
        """Keep the log's blocks for the next start. After a checkpoint, since the log is none from then on."""
        try:
            self._wal.replace(self._reserve)
        except OSError as error:
            _log.warning("no room can be kept in %s for the next start: %s", self._reserve, error.strerror)

    def close(self) -> None:
        """Let go of the files. After SQLite has closed the database."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._database_id = self._wal_id = None

    def _grow_log(self, size: int) -> None:
        file = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
        try:
            _grow(file, size)
        finally:
            os.close(file)


def _is_log_header(header: bytes) -> bool:
    """Whether a log's header has its magic number and checksum."""
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
    """Make a file so long, with blocks for all that is new. Raises OSError where there is no room."""
    there = os.fstat(file).st_size
    if there >= size:
        return
    try:
        os.posix_fallocate(file, there, size - there)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
