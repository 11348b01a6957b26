"""The ready messages of one priority of a queue: the first ones in memory, the rest possibly only in the store."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

from rabbitry.broker.message import Entry


class Lane:
    """Entries in order of their positions.

    `returned` is a heap of requeued entries with their order: each was taken from the front, so all of them come before
    `ready`. Entries behind `ready` that are only in the store are counted: `tail` entries at positions above
    `loaded_to`. `size` is the number of bytes of the bodies in `ready`. `load` is the number of the last read requested
    from the store; the result of an older one dates from before a purge.
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
        """Return the first entry in memory without taking it."""
        if self.returned:
            return self.returned[0][1]
        return self.ready[0] if self.ready else None

    def take(self) -> Entry | None:
        """Take the first entry in memory."""
        if self.returned:
            return heapq.heappop(self.returned)[1]
        if not self.ready:
            return None
        entry = self.ready.popleft()
        self.size -= len(entry.message.body)
        return entry

    def in_order(self) -> Iterator[Entry]:
        """Yield the entries in memory in the order of delivery. The lane must not change meanwhile."""
        yield from _ascending(self.returned)
        yield from self.ready

    def first(self, most: int) -> Iterator[Entry]:
        """Return the first entries that are in memory now, in the order of delivery. The lane may change meanwhile."""
        ready = list(islice(self.ready, max(0, most - len(self.returned))))
        return islice(chain(_ascending(self.returned.copy()), ready), most)

    def put_back(self, entry: Entry, order: int) -> None:
        """Put an entry back, behind those of a lower `order`, which is unique in the lane."""
        heapq.heappush(self.returned, (order, entry))

    def clear(self) -> Iterator[Entry]:
        """Remove all entries. Yield those in memory; each is freed once the next one is taken."""
        entries = _emptied(self.returned, self.ready)
        self.returned, self.ready = [], deque()
        self.size = self.tail = 0
        self.is_loading = False
        self.load += 1
        return entries


def _ascending(heap: list[tuple[int, Entry]]) -> Iterator[Entry]:
    """Yield the entries of a heap in order.

    It is not sorted: the first entries of a million requeued ones cost no more than those of a few.
    """
    front = [(*heap[0], 0)] if heap else []
    while front:
        _, entry, place = heapq.heappop(front)
        yield entry
        for child in (2 * place + 1, 2 * place + 2):
            if child < len(heap):
                heapq.heappush(front, (*heap[child], child))


def _emptied(returned: list[tuple[int, Entry]], ready: deque[Entry]) -> Iterator[Entry]:
    while returned:
        yield returned.pop()[1]
    while ready:
        yield ready.popleft()
