"""The store in SQLite: write-ahead log, an fdatasync before each commit returns.

One row for a message's body, one for each queue that holds it. Bodies of one queue alone (all but those that a
fanout brought to several) go with their entry; the others count how many entries they have. Rows are written by
statements of many rows each: the interpreter's lock is given up once for a statement, not once for a row
(`benchmarks/store.py`).
"""

import fcntl
import logging
import shutil
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final
from zlib import crc32

from warren.amqp.protocol.properties import FLAG_PRIORITY, decode_header
from warren.amqp.protocol.tables import Table, decode_table, encode_table
from warren.broker.queues.message import Entry, Message
from warren.broker.store.batch import Backlog, Batch, Contents, Dropped, Found, StoreFailed, StoreFull, Wanted
from warren.exceptions import ProtocolViolation

_log = logging.getLogger(__name__)
VERSION: Final = 1
APPLICATION: Final = 0x57415252
"""What `file` and SQLite's application_id know Warren's store by."""
_REDELIVERED: Final = 1
_TRANSIENT: Final = 2
_SHARED: Final = 4
_DELIVERIES: Final = 3
"""Bits of an entry's flags; the number of deliveries is above them."""
_ROWS: Final = 128
_BODY_KEY: Final = struct.Struct(">Q")
_ENTRY_KEY: Final = struct.Struct(">QHQQdQ")
_SCHEMA: Final = """
CREATE TABLE records (kind TEXT, key TEXT, value BLOB, crc INTEGER, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE bodies (
    id INTEGER PRIMARY KEY, refs INTEGER, destination BLOB, header BLOB, body BLOB, crc INTEGER);
CREATE TABLE entries (
    queue INTEGER, priority INTEGER, position INTEGER, body INTEGER, flags INTEGER, expires REAL, size INTEGER,
    crc INTEGER, PRIMARY KEY (queue, priority, position)) WITHOUT ROWID;
CREATE TABLE state (clean INTEGER);
INSERT INTO state VALUES (1);
"""

_Row = tuple[int, int, int, int, int, float, int, int]


class SQLiteStore:
    """A store in a folder. A second broker on the same folder is refused."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "broker.sqlite"
        self._lock: IO[bytes] | None = None
        self._connection: sqlite3.Connection | None = None

    # -- opening and closing ---------------------------------------------------------------------------

    def open(self) -> Contents:
        """Open it, and mark it as in use until `close`. Raises StoreFailed, with the file untouched."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = open(folder / "lock", "wb")  # noqa: SIM115 # held until close
        except OSError as error:
            raise StoreFailed(f"the data folder {folder} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise StoreFailed(f"another broker uses the data folder {folder}; --data names another") from error
        try:
            self._check_version()
            self._connection = self._connect()
            return self._contents()
        except sqlite3.Error as error:
            self._abandon()
            raise StoreFailed(f"the store {self.path} can't be opened: {error}") from error
        except StoreFailed:
            self._abandon()
            raise

    def _check_version(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with open(self.path, "rb") as file:  # the file's own header, since SQLite would write beside it
            header = file.read(72)
        version, application = int.from_bytes(header[60:64], "big"), int.from_bytes(header[68:72], "big")
        if not header.startswith(b"SQLite format 3\0") or application not in (APPLICATION, 0):
            raise StoreFailed(f"{self.path} is not a store of Warren's broker; give another data folder")
        if version > VERSION:
            raise StoreFailed(
                f"{self.path} was written by a newer Warren (version {version} of the store, this one knows "
                f"{VERSION}); nothing was changed"
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA wal_autocheckpoint = 4096")
        connection.execute("PRAGMA cache_size = -16384")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION}; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            )
            connection.execute("PRAGMA wal_checkpoint")  # so that the version stands in the file itself
        return connection

    def _contents(self) -> Contents:
        connection = self._open_connection()
        (clean,) = connection.execute("SELECT clean FROM state").fetchone()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE state SET clean = 0")
        if connection.execute("SELECT EXISTS (SELECT 1 FROM entries WHERE flags & ?)", (_TRANSIENT,)).fetchone()[0]:
            self._delete_entries(f"flags & {_TRANSIENT}", ())
        connection.execute("COMMIT")
        records: dict[tuple[str, str], Table] = {}
        for kind, key, value, crc in connection.execute("SELECT kind, key, value, crc FROM records"):
            if crc32(value, crc32(f"{kind}/{key}".encode())) != crc:
                raise StoreFailed(f"the store {self.path} is damaged: record {kind} {key!r} does not have its checksum")
            records[kind, key] = decode_table(value)[0]
        backlogs = [
            Backlog(*row)
            for row in connection.execute(
                "SELECT queue, priority, COUNT(*), SUM(size), MAX(position) FROM entries GROUP BY queue, priority"
            )
        ]
        (last,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM bodies").fetchone()
        return Contents(records, backlogs, last, bool(clean))

    def close(self) -> None:
        """Mark it as closed in order, and let go of the folder. Raises StoreFailed."""
        if self._connection is not None:
            try:
                self._connection.execute("UPDATE state SET clean = 1")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise StoreFailed(f"the store {self.path} can't be closed: {error}") from error
            finally:
                self._abandon()

    def _abandon(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreFailed(f"the store {self.path} is closed")
        return self._connection

    # -- writing ---------------------------------------------------------------------------------------

    def apply(self, batch: Batch) -> list[Found]:
        """Write a batch in one transaction, then read what it wants."""
        connection = self._open_connection()
        try:
            if batch.records or batch.added or batch.changed or batch.removed or batch.dropped:
                connection.execute("BEGIN IMMEDIATE")
                self._write(batch)
                connection.execute("COMMIT")
            return [self._read(wanted) for wanted in batch.wanted]
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise StoreFull(f"no room in {self.path.parent}: {error}") from error
            raise StoreFailed(f"the store {self.path} failed: {error}") from error

    def _write(self, batch: Batch) -> None:
        for (kind, key), value in batch.records.items():
            self._put(kind, key, value)
        if batch.added:
            self._insert(batch.added)
        for entry, queue in batch.changed.items():
            self._open_connection().execute(
                "UPDATE entries SET flags = ? WHERE queue = ? AND priority = ? AND position = ?",
                (_flags(entry), queue, entry.priority, entry.position),
            )
        if batch.removed:
            self._remove(batch.removed)
        for dropped in batch.dropped:
            self._drop(dropped)

    def _put(self, kind: str, key: str, value: Table | None) -> None:
        connection = self._open_connection()
        if value is None:
            connection.execute("DELETE FROM records WHERE kind = ? AND key = ?", (kind, key))
            return
        packed = encode_table(value)
        crc = crc32(packed, crc32(f"{kind}/{key}".encode()))
        connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", (kind, key, packed, crc))

    def _insert(self, added: dict[Entry, int]) -> None:
        refs: dict[Message, int] = {}
        for entry in added:
            refs[entry.message] = refs.get(entry.message, 0) + 1
        bodies = (
            (message.id, count, message.destination, message.header, message.body, _body_crc(message))
            for message, count in refs.items()
        )
        self._insert_rows("bodies", 6, bodies)
        self._insert_rows("entries", 8, (_entry_row(entry, queue) for entry, queue in added.items()))

    def _insert_rows(self, table: str, columns: int, rows: Iterable[tuple[object, ...]]) -> None:
        connection = self._open_connection()
        one = "(" + ", ".join("?" * columns) + ")"
        many = f"INSERT INTO {table} VALUES " + ", ".join([one] * _ROWS)  # noqa: S608 # names from this file
        for chunk in _chunks(rows):
            values = [value for row in chunk for value in row]
            if len(chunk) == _ROWS:
                connection.execute(many, values)
            else:
                few = f"INSERT INTO {table} VALUES " + ", ".join([one] * len(chunk))  # noqa: S608 # names from this file
                connection.execute(few, values)

    def _remove(self, removed: dict[Entry, int]) -> None:
        connection = self._open_connection()
        keys = sorted((queue, entry.priority, entry.position) for entry, queue in removed.items())
        for queue, priority, first, last in _key_runs(keys):
            connection.execute(
                "DELETE FROM entries WHERE queue = ? AND priority = ? AND position BETWEEN ? AND ?",
                (queue, priority, first, last),
            )
        own = sorted(entry.message.id for entry in removed if entry.message.copies < 2)
        for first, last in _runs(own):
            connection.execute("DELETE FROM bodies WHERE id BETWEEN ? AND ?", (first, last))
        for entry in removed:
            if entry.message.copies >= 2:
                self._release_body(entry.message.id)

    def _release_body(self, body: int) -> None:
        connection = self._open_connection()
        connection.execute("UPDATE bodies SET refs = refs - 1 WHERE id = ?", (body,))
        connection.execute("DELETE FROM bodies WHERE id = ? AND refs <= 0", (body,))

    def _drop(self, dropped: Dropped) -> None:
        if dropped.priority is None:
            self._delete_entries("queue = ?", (dropped.queue,))
        else:
            self._delete_entries(
                "queue = ? AND priority = ? AND position > ? AND position < ?",
                (dropped.queue, dropped.priority, dropped.after, dropped.before),
            )

    def _delete_entries(self, condition: str, values: Sequence[int]) -> None:
        """Delete entries by a condition written in this file, and the bodies that nobody else has."""
        connection = self._open_connection()
        shared = f"SELECT body FROM entries WHERE {condition} AND flags & {_SHARED}"  # noqa: S608 # see above
        for (body,) in connection.execute(shared, values).fetchall():
            self._release_body(body)
        own = f"SELECT body FROM entries WHERE {condition} AND NOT flags & {_SHARED}"  # noqa: S608 # see above
        connection.execute(f"DELETE FROM bodies WHERE id IN ({own})", values)  # noqa: S608 # see above
        connection.execute(f"DELETE FROM entries WHERE {condition}", values)  # noqa: S608 # see above

    # -- reading ---------------------------------------------------------------------------------------

    def _read(self, wanted: Wanted) -> Found:
        rows = self._open_connection().execute(
            "SELECT e.position, e.body, e.flags, e.expires, e.size, e.crc, b.destination, b.header, b.body, b.crc "
            "FROM entries e LEFT JOIN bodies b ON b.id = e.body "
            "WHERE e.queue = ? AND e.priority = ? AND e.position > ? ORDER BY e.position LIMIT ?",
            (wanted.queue, wanted.priority, wanted.after, wanted.limit),
        )
        entries: list[Entry] = []
        damaged = damaged_bytes = total = 0
        last = wanted.after
        for position, body_id, flags, expires, size, crc, destination, header, body, body_crc in rows:
            last = position
            key = (wanted.queue, wanted.priority, position, body_id, expires, size)
            if body is None or crc32(_ENTRY_KEY.pack(*key)) != crc:
                entry = None
            else:
                entry = _entry(wanted.priority, position, flags, expires, Message(destination, header, body, False))
                entry.message.id = body_id
                if _body_crc(entry.message) != body_crc:
                    entry = None
            if entry is None:
                damaged += 1
                damaged_bytes += size
                _log.error(
                    "the store %s is damaged: message %d at position %d of queue number %d does not have its "
                    "checksum; it is left out",
                    self.path,
                    body_id,
                    position,
                    wanted.queue,
                )
            else:
                entries.append(entry)
                total += size
                if total >= wanted.most:
                    break
        return Found(entries, last, damaged, damaged_bytes)


def free_bytes(folder: Path) -> int:
    """How much room a folder's file system has."""
    return shutil.disk_usage(folder).free


def _entry(priority: int, position: int, flags: int, expires: float, message: Message) -> Entry:
    message.persistent = not flags & _TRANSIENT
    message.copies = 2 if flags & _SHARED else 1
    if int.from_bytes(message.header[12:14], "big") & FLAG_PRIORITY:
        try:
            message.priority = decode_header(message.header).priority or 0
        except ProtocolViolation:
            message.priority = priority
    entry = Entry(position, message)
    entry.priority = priority
    entry.expires = expires
    entry.redelivered = bool(flags & _REDELIVERED)
    entry.deliveries = flags >> _DELIVERIES
    entry.stored = True
    return entry


def _entry_row(entry: Entry, queue: int) -> _Row:
    message = entry.message
    size = len(message.body)
    crc = crc32(_ENTRY_KEY.pack(queue, entry.priority, entry.position, message.id, entry.expires, size))
    return queue, entry.priority, entry.position, message.id, _flags(entry), entry.expires, size, crc


def _flags(entry: Entry) -> int:
    flags = entry.deliveries << _DELIVERIES
    if entry.redelivered:
        flags |= _REDELIVERED
    if not entry.message.persistent:
        flags |= _TRANSIENT
    if entry.message.copies > 1:
        flags |= _SHARED
    return flags


def _body_crc(message: Message) -> int:
    crc = crc32(_BODY_KEY.pack(message.id))
    for part in (message.destination, message.header, message.body):
        crc = crc32(part, crc)
    return crc


def _chunks(rows: Iterable[tuple[object, ...]]) -> Iterator[list[tuple[object, ...]]]:
    chunk: list[tuple[object, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Join rising numbers into runs without gaps: (first, last)."""
    first = last = -1
    for number in numbers:
        if number == last + 1 and first >= 0:
            last = number
        else:
            if first >= 0:
                yield first, last
            first = last = number
    if first >= 0:
        yield first, last


def _key_runs(keys: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """Join rising keys of one queue and priority into runs of positions: (queue, priority, first, last)."""
    run: list[int] = []
    for queue, priority, position in keys:
        if run and (queue, priority) == (run[0], run[1]) and position == run[3] + 1:
            run[3] = position
        else:
            if run:
                yield run[0], run[1], run[2], run[3]
            run = [queue, priority, position, position]
    if run:
        yield run[0], run[1], run[2], run[3]
