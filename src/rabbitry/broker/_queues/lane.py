"""The ready messages of one priority of a queue: the first ones in memory, the rest perhaps in the store."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from rabbitry.broker.message import Entry


class Lane:
    """Entries in order of their positions.

    `returned` is a heap of entries that came back, with what orders them: each was taken from the front, so all of
    them stand before `ready`. What stands behind `ready` and is in the store alone is only counted: `tail` entries
    at positions above `loaded_to`. `size` is how many bytes the bodies of `ready` have. `load` is the number of the
    last reading from the store that was asked for; an answer to an older one comes from before a purge.
    """

    __slots__ = ("is_loading", "load", "loaded_to", "priority", "ready", "returned", "size", "tail")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.ready: deque[Entry] = deque()
        self.returned: list[tuple[int, Entry]] = []
        self.size = 0
        self.tail = 0
        self.loaded_to = -1
        self.is_loading = False
        self.load = 0

    def head(self) -> Entry | None:
        """Look at the first entry that is in memory."""
        if self.returned:
            return self.returned[0][1]
        return self.ready[0] if self.ready else None

    def take(self) -> Entry | None:
        """Take the first entry that is in memory."""
        if self.returned:
            return heapq.heappop(self.returned)[1]
        if not self.ready:
            return None
        entry = self.ready.popleft()
        self.size -= len(entry.message.body)
        return entry

    def put_back(self, entry: Entry, order: int) -> None:
        """Put an entry back, behind those of a lower `order`; no two in the lane have the same."""
        heapq.heappush(self.returned, (order, entry))

    def clear(self) -> Iterator[Entry]:
        """Remove all entries. Return those that were in memory; each is freed once the next one is taken."""
        entries = _emptied(self.returned, self.ready)
        self.returned, self.ready = [], deque()
        self.size = self.tail = 0
        self.is_loading = False
        self.load += 1
        return entries


def _emptied(returned: list[tuple[int, Entry]], ready: deque[Entry]) -> Iterator[Entry]:
    while returned:
        yield returned.pop()[1]
    while ready:
        yield ready.popleft()
