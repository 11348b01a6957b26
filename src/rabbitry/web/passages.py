"""The passages of messages that workers reported in the last hour, in a private SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from rabbitry.telemetry import Passage, Report

KEPT: Final = 3600.0
"""Seconds for which passages are kept."""
MOST_KEPT: Final = 200_000
"""Passages that are kept; the oldest are dropped. Each takes some 600 bytes on disk."""
MOST_WAITING: Final = 20_000
"""Passages that wait to be written; others are left out."""
MOST_SHOWN: Final = 1000
"""Passages of one chain."""
MOST_FOUND: Final = 20
_LONGEST: Final = 255
_LONGEST_TEXT: Final = 5_000
_MOST_LED: Final = 50
_FARTHEST: Final = 1e11
_TABLES: Final = """
CREATE TABLE passages (id INTEGER PRIMARY KEY AUTOINCREMENT, chain TEXT NOT NULL COLLATE NOCASE, message TEXT NOT NULL
    COLLATE NOCASE, queue TEXT NOT NULL, heard REAL NOT NULL, failed INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX chains ON passages (chain);
CREATE INDEX messages ON passages (message);
CREATE INDEX failures ON passages (failed, id);
CREATE INDEX queues ON passages (queue, id);
CREATE TABLE led (passage INTEGER NOT NULL, message TEXT NOT NULL COLLATE NOCASE, chain TEXT NOT NULL);
CREATE INDEX led_messages ON led (message);
CREATE INDEX led_passages ON led (passage);
"""
_INSERT: Final = "INSERT INTO passages (chain, message, queue, heard, failed, data) VALUES (?, ?, ?, ?, ?, ?)"
_CHAIN: Final = "SELECT data FROM passages WHERE chain = ? ORDER BY id LIMIT ?"
_OF_QUEUE: Final = "SELECT data FROM passages WHERE queue = ? ORDER BY id DESC LIMIT ?"
_RECENT: Final = (
    "SELECT data FROM passages WHERE id IN (SELECT max(id) FROM (SELECT id, chain FROM passages WHERE failed = ? "
    "ORDER BY id DESC LIMIT 500) GROUP BY chain) ORDER BY id DESC LIMIT ?"
)

T = TypeVar("T")


class Passages:
    """The passages of the last hour. SQLite is used in threads alone.

    Args:
        clock: Returns Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # An empty name makes a private file that is deleted with the connection; only its cache is in memory.
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.executescript(_TABLES)
        self._waiting: list[tuple[Report, float]] = []
        self._number = 0
        self.left_out: int = 0
        """The number of passages that came too fast to be written."""

    def take(self, report: Report) -> None:
        """Take the passages of a report; `write` keeps them."""
        if not report.passages:
            return
        if self._number + len(report.passages) > MOST_WAITING:
            self.left_out += len(report.passages)
            return
        self._number += len(report.passages)
        self._waiting.append((report, self._clock()))

    async def write(self) -> None:
        """Write the passages that were taken, and drop the old ones."""
        waiting, self._waiting, self._number = self._waiting, [], 0
        await self._do(lambda database: _write(database, waiting, self._clock() - KEPT))

    async def chain(self, identity: str) -> tuple[str, list[dict[str, Any]]]:
        """Return the correlation id and the passages of a chain.

        Args:
            identity: The correlation id, or the id of one of the chain's messages; also of one that no stage took.
        """

        def read(database: sqlite3.Connection) -> tuple[str, list[dict[str, Any]]]:
            for query in (
                "SELECT chain FROM passages WHERE chain = ? LIMIT 1",
                "SELECT chain FROM passages WHERE message = ? LIMIT 1",
                "SELECT chain FROM led WHERE message = ? LIMIT 1",
            ):
                found = database.execute(query, (identity[:_LONGEST],)).fetchone()
                if found is not None:
                    return found[0], _read(database.execute(_CHAIN, (found[0], MOST_SHOWN)))
            return identity, []

        return await self._do(read)

    async def beginning(self, text: str) -> list[str]:
        """Return some ids of chains and messages that begin with a text."""

        def read(database: sqlite3.Connection) -> list[str]:
            found: dict[str, None] = {}
            span = (text, text + "\U0010ffff", MOST_FOUND)
            for table, column in (("passages", "chain"), ("passages", "message"), ("led", "message")):
                query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} >= ? AND {column} < ? LIMIT ?"  # noqa: S608 # the names are of this module
                found |= dict.fromkeys(row[0] for row in database.execute(query, span))
            return list(found)[:MOST_FOUND]

        return await self._do(read)

    async def recent(self, *, failed: bool) -> list[dict[str, Any]]:
        """Return the last passage of each of the newest chains.

        Args:
            failed: Whether to return failed passages, or the others.
        """
        return await self._do(lambda database: _read(database.execute(_RECENT, (int(failed), MOST_FOUND))))

    async def of_queue(self, queue: str) -> list[dict[str, Any]]:
        """Return the newest passages through the stage of a queue."""
        return await self._do(lambda database: _read(database.execute(_OF_QUEUE, (queue[:_LONGEST], MOST_FOUND))))

    async def close(self) -> None:
        """Drop all passages."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._database.close()

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def locked() -> T:
            with self._lock, self._database:
                return work(self._database)

        return await asyncio.to_thread(locked)


def _read(rows: Iterable[tuple[bytes]]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(data, type=dict[str, Any]) for (data,) in rows]


def _write(database: sqlite3.Connection, waiting: list[tuple[Report, float]], oldest: float) -> None:
    for report, heard in waiting:
        for passage in report.passages:
            told = _told(report, passage, heard)
            failed = (
                passage.outcome not in ("done", "suspect", "given-back", "abandoned", "cancelled", "skipped")
                or passage.end == "dead"
            )
            row = (told["chain"], told["message"], told["queue"], heard, failed, msgspec.json.encode(told))
            number = database.execute(_INSERT, row).lastrowid
            led = {
                (number, identity, told["chain"]) for identity in told["ids"] if identity not in ("", told["message"])
            }
            database.executemany("INSERT INTO led (passage, message, chain) VALUES (?, ?, ?)", led)
    # They are in the order in which they were heard, so that the first ones are the oldest.
    first = database.execute("SELECT id FROM passages WHERE heard >= ? ORDER BY id LIMIT 1", (oldest,)).fetchone()
    last = database.execute("SELECT max(id) FROM passages").fetchone()[0] or 0
    gone = max(last - MOST_KEPT, last if first is None else first[0] - 1)
    if gone > 0:
        database.execute("DELETE FROM passages WHERE id <= ?", (gone,))
        database.execute("DELETE FROM led WHERE passage <= ?", (gone,))


def _told(report: Report, passage: Passage, heard: float) -> dict[str, Any]:
    """Return a passage as pages get it. Its texts are bounded, since reports may hold any."""
    began = passage.began if 0 < passage.began < _FARTHEST else heard - min(max(passage.seconds, 0.0), KEPT)
    return {
        "chain": passage.correlation_id[:_LONGEST],
        "message": passage.message_id[:_LONGEST],
        "app": report.app[:_LONGEST],
        "stage": report.role[:_LONGEST],
        "queue": report.wiring.queue[:_LONGEST] if report.wiring is not None else "",
        "host": report.host[:_LONGEST],
        "node": report.id[:_LONGEST],
        "began": began,
        "seconds": _sane(passage.seconds),
        "waited": _sane(passage.waited),
        "published": _sane(passage.published),
        "attempt": min(max(passage.attempt, 1), 1 << 31),
        "outcome": passage.outcome[:_LONGEST],
        "end": passage.end[:_LONGEST],
        "error": passage.error[:_LONGEST_TEXT],
        "trace": passage.trace[:_LONGEST_TEXT],
        "keys": [key[:_LONGEST] for key in passage.keys[:_MOST_LED]],
        "ids": [identity[:_LONGEST] for identity in passage.ids[:_MOST_LED]],
        "led": min(max(passage.led, len(passage.keys)), 1 << 31),
    }


def _sane(seconds: float) -> float:
    return seconds if 0 <= seconds < _FARTHEST else 0.0
