"""The seen set: by its key, the row of each address ever found, or the reason of its refusal.

The table `crawl_seen` is sorted by keys, which are hashes: inserted one by one, each new address would change a
different page of a large database. Therefore new ones are kept in memory, and in the table `crawl_seen_log`, to which
each transaction adds a row. When there are many, they are moved to `crawl_seen` in the order of their keys, a slice in
each transaction, so that several share a page (`make bench-crawl ARGS=seen`).

Most keys that are looked up are new, and each would read another page of the table in vain. A filter in memory excludes
nearly all of them. It is filled from the table, a slice in each transaction, and again with more room when it is full.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.crawl.keeper.bloom import Filter

MOST: Final = 1 << 18
"""Addresses in memory, about 100 bytes each, above which they are moved. Half as many more arrive meanwhile."""
_ENTRY: Final = 16
"""Bytes of an address in the log: its key and its entry."""
_SLICE: Final = 2_000
"""The fewest addresses moved in a transaction; otherwise it moves twice as many as it adds."""
_NONE: Final = -(1 << 63)
_ALL: Final = (1 << 63) - 1
_GROWTH: Final = 4
"""Keys of a new filter for each one of the full one before."""
_READ: Final = 4_000
"""Keys of the table read for the filter in a transaction: 4 ms."""


class Seen:
    """The keeper's view of the seen set. Its memory can be read again from the log."""

    def __init__(self) -> None:
        """Create it, without keys."""
        self._new: dict[int, int] = {}
        """The log's content that is not moved yet."""
        self._last = 0
        """The log's last row."""
        self._moving: list[int] = []
        """Keys to move now, the smallest last."""
        self._until = 0
        """The log's last row that is completely moved when these are."""
        self._added = 0
        self._filter = Filter()
        """Keys of the table: all of those up to `_covered`, and later ones that were moved."""
        self._covered = _NONE

    @property
    def is_covered(self) -> bool:
        """Return whether the filter has all keys of the table."""
        return self._covered == _ALL

    def load(self, connection: Connection) -> None:
        """Read the log."""
        most = sets.rows(connection, "SELECT coalesce(max(id), 0) FROM crawl_addresses")[0][0]
        self._filter = Filter(most)
        for row in sets.rows(connection, "SELECT id, entries FROM crawl_seen_log ORDER BY id"):
            numbers = _unpacked(row.entries)
            self._new.update(zip(numbers[::2], numbers[1::2], strict=True))
            self._last = row.id

    def look_up(self, connection: Connection, keys: Iterable[int]) -> dict[int, int]:
        """Return the entries of keys: ids of rows of crawl_addresses, below 0 for refusals, 0 for unknown keys."""
        new = self._new
        refs = {key: new.get(key, 0) for key in keys}
        others = [key for key, ref in refs.items() if not ref]
        stored = self._filter.may_have(others)
        if not self.is_covered:
            stored += [key for key in others if key > self._covered]
        for key, ref in sets.rows_among(connection, "SELECT key, ref FROM crawl_seen WHERE key IN {set}", stored):
            refs[key] = ref
        return refs

    def put(self, connection: Connection, refs: Mapping[int, int]) -> None:
        """Store the entries of keys, replacing earlier ones."""
        if not refs:
            return
        self._last += 1
        numbers = [number for entry in refs.items() for number in entry]
        sets.change(
            connection,
            "INSERT INTO crawl_seen_log (id, entries) VALUES (?, ?)",
            self._last,
            struct.pack(f"<{len(numbers)}q", *numbers),
        )
        self._new.update(refs)
        self._added += len(refs)

    def tend(self, connection: Connection) -> None:
        """Move a slice to the table if there are many in memory, and fill the filter; called once in a transaction."""
        self._move(connection)
        self._cover(connection)

    def moved(self, keys: Sequence[int]) -> None:
        """Record that keys are in the table."""
        self._filter.add(keys)
        if self._filter.is_full:
            self._filter = Filter(_GROWTH * len(self._filter))
            self._covered = _NONE

    def _cover(self, connection: Connection) -> None:
        """Add the next keys of the table to the filter."""
        if self.is_covered:
            return
        statement = "SELECT key FROM crawl_seen WHERE key > ? ORDER BY key LIMIT ?"
        keys = [row.key for row in sets.rows(connection, statement, self._covered, _READ)]
        self._covered = keys[-1] if len(keys) == _READ else _ALL
        self.moved(keys)  # it may begin anew

    def _move(self, connection: Connection) -> None:
        added, self._added = self._added, 0
        if not self._moving:
            if len(self._new) < MOST:
                return
            self._moving = sorted(self._new, reverse=True)
            self._until = self._last
        count = max(_SLICE, 2 * added)
        keys = self._moving[: -count - 1 : -1]
        del self._moving[-count:]
        sets.change_many(connection, _PUT, [(key, self._new.pop(key)) for key in keys])
        self.moved(keys)
        if not self._moving:
            sets.change(connection, "DELETE FROM crawl_seen_log WHERE id <= ?", self._until)


def ref_of(connection: Connection, key: int) -> int:
    """Return the database's entry for a key like `Seen.look_up`, for programs that only read the database."""
    # The log first: entries moved out of it meanwhile are then in the table.
    wanted = struct.pack("<q", key)
    for row in sets.rows(connection, "SELECT entries FROM crawl_seen_log ORDER BY id DESC"):
        # Searched as bytes: unpacking all of a full log takes a hundred times as long.
        place = row.entries.find(wanted)
        while place >= 0 and place % _ENTRY:
            place = row.entries.find(wanted, place + 1)
        if place >= 0:
            return int(struct.unpack_from("<q", row.entries, place + _ENTRY // 2)[0])
    found = sets.rows(connection, "SELECT ref FROM crawl_seen WHERE key = ?", key)
    return int(found[0].ref) if found else 0


def _unpacked(entries: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(entries) // 8}q", entries)


_PUT: Final = "INSERT INTO crawl_seen (key, ref) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET ref = excluded.ref"
