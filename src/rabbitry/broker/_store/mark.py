"""A note of how far the log was committed, in a small file beside it, updated after each commit.

A log that was cut just behind a commit, or replaced by an older one, looks intact to SQLite; and a database from
another folder does not know its log. The note is not synced: after a power failure it may be older than the log, but
never newer, since the log is synced first.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import struct
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from rabbitry.broker._store.files import head_of, log_path, mark_path
from rabbitry.broker._store.room import is_no_room
from rabbitry.broker._store.rows import write_records
from rabbitry.broker._store.schema import record_checksum

_NOTE: Final = struct.Struct(">16sI8sI")
_CRC: Final = struct.Struct(">I")
_HEADER: Final = 32
"""Bytes of the log's header; those of a frame's are 24. See https://www.sqlite.org/fileformat2.html#walformat."""
_FRAME: Final = 24
_IDENTITY_SIZE: Final = 16
IDENTITY: Final = ("store", "id")
"""Kind and key of the record that holds a store's identity."""


class Note(NamedTuple):
    """A store's identity, the number and salts of its log, and how many frames of the log were committed."""

    identity: bytes
    number: int
    salts: bytes
    frames: int


def read_note(database: Path) -> Note | None:
    """Return the note; None if there is no valid one.

    Raises:
        OSError: The disk or the system failed.
    """
    try:
        data = head_of(mark_path(database), _NOTE.size + _CRC.size)
    except FileNotFoundError:
        return None
    if data is None or len(data) < _NOTE.size + _CRC.size:
        return None
    (crc,) = _CRC.unpack_from(data, _NOTE.size)
    return Note(*_NOTE.unpack_from(data)) if crc32(data[: _NOTE.size]) == crc else None


def read_log(database: Path) -> tuple[int, bytes]:
    """Return the number and the salts of a log; (-1, b"") for none, an empty or an unreadable one.

    Raises:
        OSError: The disk or the system failed.
    """
    try:
        header = head_of(log_path(database), _HEADER)
    except FileNotFoundError:
        return -1, b""
    if header is None or len(header) < _HEADER or not header.strip(b"\0"):
        return -1, b""
    return int.from_bytes(header[12:16], "big"), header[16:24]


def missing(note: Note, log: tuple[int, bytes], frames: int) -> str:
    """Return a description of commits missing from a log; "" if the note knows of none.

    Args:
        note: The note of the last broker.
        log: The log's number and salts.
        frames: How many frames the log has up to its last whole commit.
    """
    if not note.frames:
        return ""
    if log[1] == note.salts:
        if frames >= note.frames:
            return ""
        return f"its log ends at page {frames} of {note.frames} that were committed: it was cut or damaged"
    if log[0] < 0:
        return "its log is empty or gone, though the last broker did not end in order: it was removed"
    if log[0] < note.number:
        return "its log is older than the one that the last broker wrote: it was replaced"
    return ""


def read_identity(database: Path) -> bytes:
    """Return the identity in a database's file, ignoring its log; b"" if it can't be read."""
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error:
        return b""
    try:
        return stored_identity(connection)
    except sqlite3.Error:
        return b""
    finally:
        connection.close()


def stored_identity(connection: sqlite3.Connection) -> bytes:
    """Return a store's identity; b"" if it has none, or an invalid one. Raises sqlite3.Error."""
    row = connection.execute("SELECT value, crc FROM records WHERE kind = ? AND key = ?", IDENTITY).fetchone()
    if row is None or not isinstance(row[0], bytes) or row[1] != record_checksum(*IDENTITY, row[0]):
        return b""
    return row[0][-_IDENTITY_SIZE:]


def make_identity(connection: sqlite3.Connection) -> bytes:
    """Store a new identity, and return it. Raises sqlite3.Error."""
    identity = secrets.token_hex(_IDENTITY_SIZE // 2).encode()
    write_records(connection, {IDENTITY: {"id": identity.decode()}})
    return identity


def _own(path: str, flags: int) -> int:
    """Open a file, made if it is missing, that only its owner can read."""
    return os.open(path, flags | os.O_CREAT, 0o600)


class Mark:
    """The note of a running store. All methods are called on the store's thread, and raise OSError."""

    def __init__(self, database: Path, identity: bytes, page_size: int) -> None:
        """Start the note, while SQLite has the database and its log open."""
        self._identity = identity
        self._size = _FRAME + page_size
        self._log = open(log_path(database), "rb", buffering=0)  # noqa: SIM115 # closed by close()
        try:
            self._file = open(mark_path(database), "r+b", buffering=0, opener=_own)  # noqa: SIM115 # closed by close()
        except OSError:
            self._log.close()
            raise
        self._number = b""
        self._frames = 0

    def note(self) -> None:
        """Record how far the log is committed. Call it after each commit."""
        header = self._read(_HEADER, 0)
        number, salts = header[12:16], header[16:24]
        if number + salts != self._number:
            self._number, self._frames = number + salts, 0
        if salts.strip(b"\0"):
            end = self._end(salts)
            while end > self._frames and self._frame(end - 1)[4:8] == b"\0\0\0\0":
                end -= 1  # not the last frame of a commit: frames of a rolled-back transaction
            self._frames = end
        self._write(int.from_bytes(number, "big"), salts, self._frames)

    def _end(self, salts: bytes) -> int:
        """Return the number of frames with the log's salts, which come before all others.

        Search by doubling and halving, so that a commit of many pages costs few reads.
        """
        end, step = self._frames, 1
        while self._frame(end + step - 1)[8:16] == salts:
            end += step
            step *= 2
        while step > 1:
            step //= 2
            if self._frame(end + step - 1)[8:16] == salts:
                end += step
        return end

    def _frame(self, number: int) -> bytes:
        """Return the header of a frame, or what there is of it."""
        return self._read(_FRAME, _HEADER + number * self._size)

    def _read(self, size: int, at: int) -> bytes:
        self._log.seek(at)
        return self._log.read(size)

    def clear(self) -> None:
        """Record that the log is no longer needed, since all of it is in the database."""
        self._write(0, b"", 0)

    def _write(self, number: int, salts: bytes, frames: int) -> None:
        note = _NOTE.pack(self._identity, number, salts, frames)
        try:
            self._file.seek(0)
            self._file.write(note + _CRC.pack(crc32(note)))
        except OSError as error:
            if not is_no_room(error):
                raise
            # The file is new and has no block yet. It then holds nothing, or an older note, which is valid as well.

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        self._file.close()
