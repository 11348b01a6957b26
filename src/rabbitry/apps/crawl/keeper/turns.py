"""Turns: the next host, with the crawls in rotation, so that none waits for all hosts of an earlier one."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A host in the rotation. due: when it may be requested again. served_at: its last request.

    crawl: the crawl that found it last. is_listed: whether it is in the rotation.
    """

    id: int
    crawl: int
    due: float
    served_at: float
    is_listed: bool


H = TypeVar("H", bound=Waiting)


class Turns(Generic[H]):
    """Hosts with waiting addresses, by the crawl that found them; of each crawl, the host due for longest first."""

    def __init__(self, hosts: Mapping[int, H]) -> None:
        self._hosts = hosts
        self._heaps: dict[int, list[tuple[float, float, int]]] = {}
        self._order: deque[int] = deque()
        """Crawls with hosts here, in the order of their turns."""

    def put(self, host: H) -> None:
        """Add a host for its due time."""
        heap = self._heaps.get(host.crawl)
        if heap is None:
            heap = self._heaps[host.crawl] = []
            self._order.append(host.crawl)
        heapq.heappush(heap, (host.due, host.served_at, host.id))

    def take(self, now: float) -> Iterator[H]:
        """Take the due hosts, one of each crawl in turn."""
        idle = 0
        while idle < len(self._order):
            crawl = self._order[0]
            self._order.rotate(-1)
            host = self._next(crawl, now)
            if host is not None:
                idle = 0
                yield host
            elif self._heaps[crawl]:
                idle += 1
            else:
                del self._heaps[crawl]
                self._order.pop()  # it is the last one, because it just had its turn

    def _next(self, crawl: int, now: float) -> H | None:
        heap = self._heaps[crawl]
        while heap and heap[0][0] <= now:
            host = self._hosts[heapq.heappop(heap)[2]]
            if host.crawl != crawl or not host.is_listed:
                continue  # a later crawl found it too, and has it in its own turns
            if host.due <= now:
                host.is_listed = False
                return host
            heapq.heappush(heap, (host.due, host.served_at, host.id))
        return None

    def next_due(self) -> float | None:
        """Return when the next host is due."""
        return min((heap[0][0] for heap in self._heaps.values() if heap), default=None)
