"""Changes of queues for programs that watch a broker: each answer has the changes since the previous one.

An answer waits until there is a change. The queues are compared at most once a second, for all waiting requests
together, and not at all without requests. Comparing 10,000 of them is cut into slices, so that it delays no client.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.views import plain
from rabbitry.broker._queues.queue import Queue
from rabbitry.broker.broker import Broker

PERIOD: Final = 1.0
"""Seconds between two looks."""
LONGEST_WAIT: Final = 20.0
"""Seconds that an answer waits for a change."""
MOST_GONE: Final = 10_000
"""Most deleted queues that are remembered; a request for changes since before them is answered with all queues."""
COLUMNS: Final = (
    "vhost", "name", "type", "durable", "auto_delete", "exclusive", "arguments",
    "messages_ready", "messages_unacknowledged", "consumers", "message_bytes", "policy",
    "publish_rate", "deliver_get_rate", "ack_rate",
)  # fmt: skip
"""The members of a row."""
_DECLARED: Final = 7
"""Members that stay as they were declared."""
_WEIGHT: Final = 0.5
"""The weight of the last second in a rate, which is thus an average over a few seconds."""
_LEAST: Final = 0.2
"""Messages a second; a falling rate that is no larger counts as 0. Each step of its fall is a change of the queue."""
_PAUSE: Final = 10.0
"""Seconds between two looks after which rates begin anew."""
_NOTHING: Final = (0.0, 0.0, 0.0)

Row = tuple[Any, ...]
_State = tuple[object, ...]


class _Seen(NamedTuple):
    version: int
    row: Row
    counts: tuple[int, int, int]
    rates: tuple[float, float, float]
    state: _State


class News(NamedTuple):
    """An answer. is_whole: `rows` are all queues, and replace those of earlier answers.

    No queue is both in `rows` and in `gone`: one that was deleted and declared again is in `rows` alone.
    """

    version: int
    is_whole: bool
    rows: list[Row]
    gone: list[tuple[str, str]]


class Changes:
    """The queues as they were at the last look, in the order in which they changed."""

    def __init__(self, broker: Broker, pace: Pace) -> None:
        self._broker = broker
        self._pace = pace
        # From the clock, so that the versions of a broker that was restarted are later ones.
        self._first = self._version = time.time_ns() // 1000
        self._seen: dict[Queue, _Seen] = {}
        self._gone: deque[tuple[int, str, str]] = deque()
        self._looked_at = 0.0
        self._looking = asyncio.Lock()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Answer all waiting requests, and later ones at once, so that the server can stop."""
        self._ending.set()

    async def since(self, version: int, wait: float) -> News:
        """Return what changed since a version, 0 for everything; waits at most `wait` seconds for something."""
        until = time.monotonic() + min(wait, LONGEST_WAIT)
        while True:
            await self._look()
            if not self._first <= version <= self._version:
                return News(self._version, True, [seen.row for seen in self._seen.values()], [])
            if version < self._version or self._ending.is_set() or time.monotonic() >= until:
                rows = list(self._newer(version))
                gone = [(vhost, name) for at, vhost, name in self._gone if at > version]
                if gone:
                    present = {row[:2] for row in rows}
                    gone = [key for key in gone if key not in present]
                return News(self._version, False, rows, gone)

    def _newer(self, version: int) -> Iterator[Row]:
        for seen in reversed(self._seen.values()):
            if seen.version <= version:
                return
            yield seen.row

    async def _look(self) -> None:
        """Compare all queues, a second after the last time, unless another request did while this one waited."""
        asked = time.monotonic()
        async with self._looking:
            if self._looked_at >= asked or self._ending.is_set():
                return  # another request compared them while this one waited, or the server stops
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), max(0.0, self._looked_at + PERIOD - asked))
            now = time.monotonic()
            seconds = max(now - self._looked_at, 0.001)
            version = self._version + 1
            queues = [queue for vhost in self._broker.vhosts.values() for queue in vhost.queues.values()]
            seen = self._seen.get
            async with self._pace as pace:
                for number, queue in enumerate(queues):
                    # Most queues of a large broker are idle: that they are is seen without any call.
                    state = (
                        queue.ready, queue.delivered, queue.settlements, queue.given_back, queue.ready_bytes,
                        queue.policy, len(queue.turns.consumers), queue.next_position,
                    )  # fmt: skip
                    before = seen(queue)
                    if before is None or before.rates is not _NOTHING or state != before.state:
                        self._note(queue, before, state, version, seconds)
                    if number % 16 == 0 and pace.is_over:
                        await pace.rest()
            if len(self._seen) > len(queues):
                for queue in self._seen.keys() - set(queues):
                    del self._seen[queue]
                    self._forget(queue, version)
            self._looked_at = now

    def _note(self, queue: Queue, before: _Seen | None, state: _State, version: int, seconds: float) -> None:
        counts = (queue.published, queue.delivered, queue.settlements)
        # After a pause in which nobody asked, the rate is as unknown as that of a new queue.
        if before is None or seconds > _PAUSE or (before.rates is _NOTHING and counts == before.counts):
            rates = _NOTHING
        else:
            weight = 1.0 if before.rates is _NOTHING else _WEIGHT
            (one, two, three), (first, second, third), (a, b, c) = before.rates, counts, before.counts
            rates = (
                _smoothed(one, (first - a) / seconds, weight),
                _smoothed(two, (second - b) / seconds, weight),
                _smoothed(three, (third - c) / seconds, weight),
            )
            if rates == _NOTHING:
                rates = _NOTHING
        declared = _declared(queue) if before is None else before.row[:_DECLARED]
        row = (
            *declared,
            queue.ready,
            queue.unsettled,
            len(queue.turns),
            queue.ready_bytes,
            queue.policy.name if queue.policy is not None else "",
            *rates,
        )
        if before is not None and row == before.row:
            if counts != before.counts:
                self._seen[queue] = before._replace(counts=counts, rates=rates, state=state)  # keeps its place
            return
        if before is not None:
            del self._seen[queue]  # to the end
        self._seen[queue] = _Seen(version, row, counts, rates, state)
        self._version = version

    def _forget(self, queue: Queue, version: int) -> None:
        self._gone.append((version, queue.vhost.name, queue.name))
        self._version = version
        if len(self._gone) > MOST_GONE:
            self._first = self._gone.popleft()[0]


def _declared(queue: Queue) -> Row:
    flags = (queue.durable, queue.auto_delete, queue.owner is not None)
    return (queue.vhost.name, queue.name, queue.rules.kind, *flags, plain(queue.arguments))


def _smoothed(before: float, now: float, weight: float) -> float:
    if not before and not now:
        return 0.0
    rate = round(before + weight * (now - before), 1)
    return rate if rate > _LEAST or now else 0.0
