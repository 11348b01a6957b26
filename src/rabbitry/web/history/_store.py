"""The history's SQLite file. Used from one thread at a time.

Blocks are stored in the order of their times: numbers of one moment are written to one place, and expired ones are one
range. The number of a minute is the mean of its seconds, written in the same transaction.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rabbitry._words import remedy
from rabbitry.apps.exceptions import RecordsError
from rabbitry.web.history._blocks import (
    LENGTHS,
    NOTHING,
    POINTS,
    STEPS,
    Block,
    Chart,
    Series,
    Span,
    charted,
    mean,
    merged,
    packed,
    unpacked,
)

LEASE: Final = 30.0
"""Seconds after a dashboard's last write until another one may write in its place."""
MOST_BYTES: Final = 480 * 1024 * 1024
"""Bytes of numbers in the file; beyond that the oldest are removed before the week is over."""
MOST_KNOWN: Final = 24_000
"""Series in the file, three times as many as are recorded at a time; beyond that the longest silent are removed."""
_SWEPT_AT_ONCE: Final = 6 * 3600
"""Seconds of the oldest numbers that are removed at once if there are too many."""
_BUSY: Final = 20.0
_VERSION: Final = 1
_HOUR: Final = POINTS * STEPS["week"]
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS writers (broker TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY AUTOINCREMENT, broker TEXT NOT NULL, app TEXT NOT NULL, "
    "subject TEXT NOT NULL, name TEXT NOT NULL, seen INTEGER NOT NULL, UNIQUE (broker, app, subject, name))",
    *(
        f"CREATE TABLE IF NOT EXISTS {table} (start INTEGER, series INTEGER, numbers BLOB NOT NULL, "
        "PRIMARY KEY (start, series)) WITHOUT ROWID"
        for table in LENGTHS
    ),
)
# A lease that ends later than one of now is of a clock that was wrong.
_LEASE: Final = (
    "INSERT INTO writers (broker, owner, until) VALUES (:broker, :owner, :until) ON CONFLICT (broker) DO UPDATE "
    "SET owner = :owner, until = :until WHERE owner = :owner OR until NOT BETWEEN :now AND :until"
)


class Store:
    """The numbers of one broker in the file. Each public method raises RecordsError if the file can't be used.

    Args:
        file: The file, which is made when it is first used.
        broker: The broker.
    """

    def __init__(self, file: Path, broker: str) -> None:
        self._file = file
        self._broker = broker
        self._owner = secrets.token_hex(8)
        self._opened: sqlite3.Connection | None = None
        self._numbers: dict[Series, int] = {}
        self._swept = 0

    def write(self, blocks: Mapping[tuple[Series, int], Block], now: float) -> bool:
        """Add numbers to those that are known. Return False, and write nothing, if another dashboard writes.

        Args:
            blocks: Series and the Unix time of the begin of a minute → its numbers.
            now: The Unix time.
        """
        with self._transaction() as connection:
            lease = {"broker": self._broker, "owner": self._owner, "until": now + LEASE, "now": now}
            if connection.execute(_LEASE, lease).rowcount != 1:
                self._numbers.clear()  # the other one may remove series
                return False
            for (series, minute), block in blocks.items():
                self._add(connection, series, minute, block)
            if (minute := int(now) // 60) != self._swept:
                self._sweep(connection, int(now))
                self._swept = minute
        return True

    def chart(self, app: str, subject: str, span: Span, until: int) -> Chart:
        """Return the numbers of a thing up to a Unix time."""
        since = until - LENGTHS[span]
        length = STEPS[span] * POINTS
        starts = range(since - since % length, until + 1, length)
        found: dict[str, dict[int, Block]] = {}
        with self._transaction("BEGIN") as connection:
            known = connection.execute(
                "SELECT name, id FROM series WHERE broker = ? AND app = ? AND subject = ?", (self._broker, app, subject)
            ).fetchall()
            for name, number in known:
                blocks = found[name] = {}
                for start in starts:
                    if (block := _block(connection, span, start, number)) is not None:
                        blocks[start] = block
        return charted(found, span, until)

    def series(self) -> Sequence[Series]:
        """Return the series that have numbers."""
        with self._transaction("BEGIN") as connection:
            query = "SELECT app, subject, name FROM series WHERE broker = ? ORDER BY app, subject, name"
            return [Series(*row) for row in connection.execute(query, (self._broker,))]

    def close(self) -> None:
        """Release the lease, so that another dashboard may write, and close the file."""
        if self._opened is None:
            return
        with contextlib.suppress(RecordsError), self._transaction() as connection:
            connection.execute("DELETE FROM writers WHERE broker = ? AND owner = ?", (self._broker, self._owner))
        self._opened.close()
        self._opened = None

    def _add(self, connection: sqlite3.Connection, series: Series, minute: int, block: Block) -> None:
        hour = minute - minute % _HOUR
        number = self._number(connection, series, hour)
        if (known := _block(connection, "hour", minute, number)) is not None:
            block = merged(known, block)
        _put(connection, "hour", minute, number, block)
        minutes = _block(connection, "week", hour, number)
        if minutes is None:
            minutes = array("f", NOTHING)
            connection.execute("UPDATE series SET seen = ? WHERE id = ?", (hour, number))
        minutes[(minute - hour) // POINTS] = mean(block)
        _put(connection, "week", hour, number, minutes)

    def _number(self, connection: sqlite3.Connection, series: Series, hour: int) -> int:
        if (known := self._numbers.get(series)) is not None:
            return known
        values = (self._broker, *series)
        query = "SELECT id FROM series WHERE broker = ? AND app = ? AND subject = ? AND name = ?"
        found = connection.execute(query, values).fetchone()
        if found is None:
            insert = "INSERT INTO series (broker, app, subject, name, seen) VALUES (?, ?, ?, ?, ?) RETURNING id"
            found = connection.execute(insert, (*values, hour)).fetchone()
        number = self._numbers[series] = int(found[0])
        return number

    def _sweep(self, connection: sqlite3.Connection, now: int) -> None:
        """Remove expired numbers of all brokers, and the oldest numbers if there are too many."""
        for span, length in LENGTHS.items():
            horizon = now - length - STEPS[span] * POINTS
            connection.execute(f"DELETE FROM {span} WHERE start < ?", (horizon,))  # noqa: S608 # a name of ours
        gone = connection.execute("DELETE FROM series WHERE seen < ?", (now - LENGTHS["week"] - _HOUR,))
        (known,) = connection.execute("SELECT count(*) FROM series").fetchone()
        if known > MOST_KNOWN:
            # Anybody may publish samples under ever new names. Of equally silent series, those known for longest stay.
            forget = "DELETE FROM series WHERE id IN (SELECT id FROM series ORDER BY seen, id DESC LIMIT ?)"
            connection.execute(forget, (known - MOST_KNOWN,))
        if gone.rowcount or known > MOST_KNOWN:
            self._numbers.clear()
        connection.execute("DELETE FROM writers WHERE until < ?", (now - LENGTHS["week"],))
        if _used(connection) > MOST_BYTES:
            for span in LENGTHS:
                connection.execute(f"DELETE FROM {span} WHERE series NOT IN (SELECT id FROM series)")  # noqa: S608 # a name of ours
        if _used(connection) > MOST_BYTES:
            (oldest,) = connection.execute("SELECT min(start) FROM week").fetchone()
            connection.execute("DELETE FROM week WHERE start < ?", ((oldest or 0) + _SWEPT_AT_ONCE,))

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        try:
            connection = self._opened = self._opened or self._open()
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                self._numbers.clear()  # some may be of this transaction
                connection.rollback()
                raise
            connection.commit()
        except (OSError, sqlite3.Error) as error:
            raise RecordsError(f"the history {self._file} can't be used: {error}{remedy(error)}") from error

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # only this user may read it
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(self._file, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            # Without synchronous = FULL a power failure may cost the last transactions, and never the file.
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"journal_size_limit = {16 << 20}"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise RecordsError(f"the history {self._file} is of another version of Rabbitry: move it away")
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection


def _block(connection: sqlite3.Connection, table: Span, start: int, number: int) -> Block | None:
    query = f"SELECT numbers FROM {table} WHERE start = ? AND series = ?"  # noqa: S608 # a name of ours
    found = connection.execute(query, (start, number)).fetchone()
    return None if found is None else unpacked(found[0])  # a damaged one counts as none, and is replaced


def _put(connection: sqlite3.Connection, table: Span, start: int, number: int, block: Block) -> None:
    query = f"INSERT OR REPLACE INTO {table} (start, series, numbers) VALUES (?, ?, ?)"  # noqa: S608 # a name of ours
    connection.execute(query, (start, number, packed(block)))


def _used(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file that hold something."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
