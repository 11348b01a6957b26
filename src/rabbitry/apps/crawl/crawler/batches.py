"""Processing a batch: its addresses in order, with the host's delay between them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from rabbitry.apps.crawl.crawler.budgets import CPU, Bandwidth, Room
from rabbitry.apps.crawl.crawler.fetching import BatchHosts, Page
from rabbitry.apps.crawl.crawler.line import Line
from rabbitry.apps.crawl.messages import Address, Batch, Outcome, Report
from rabbitry.apps.crawl.node import Node

Item: TypeAlias = Page | Outcome | Report

MOST_CONNECTIONS: Final = 8
"""The most requests to one host at once, whatever a batch asks for."""
JUMP: Final = 3.0
"""Seconds that a crawler may wake too late. After more, its machine slept or it was stopped: it requests nothing."""
TAKEOVER: Final = 5.0
"""Seconds added to the delay of a host whose batch another crawler had: that crawler may still run, and may only now
learn that the broker has given its batch away."""
LONGEST: Final = 75.0
"""The most seconds for a batch, even if its deadline seems later: the keeper's clock may differ."""
STOP_WITHIN: Final = 4.0
"""Seconds that running requests have to end when the crawler stops."""
SILENT: Final = 3
"""Requests in a row without a connection before the rest of a batch is not tried."""
SILENT_WAIT: Final = 60.0
"""Seconds before a host that does not answer may be requested again."""
_HAS_BOOTTIME: Final = hasattr(time, "CLOCK_BOOTTIME")
_UNASKED: Final = frozenset({"private", "no-contact", "no-such-host", "bad-address", "bad-scheme", "too-long"})
"""Outcomes without a request, after which no delay is due."""


class Fetches(Protocol):
    """The methods of `Fetcher` that a crawler uses."""

    async def fetch(self, address: Address, batch: Batch, host: BatchHosts) -> Page | Outcome:
        """See Fetcher."""

    def host(self, batch: Batch) -> BatchHosts:
        """See Fetcher."""


@dataclass(frozen=True, slots=True)
class Means:
    """Resources shared by a crawler's batches. in_hand: the time limits of running requests."""

    fetcher: Fetches
    room: Room
    bandwidth: Bandwidth
    cpu: CPU
    line: Line = field(default_factory=Line)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    in_hand: set[asyncio.Timeout] = field(default_factory=set)


class Crawler:
    """Processes batches, any number at once, within its machine's budgets."""

    def __init__(self, node: Node, means: Means) -> None:
        self.node = node
        self._means = means

    def stop(self) -> None:
        """Stop all batches: no more requests begin, and running ones have STOP_WITHIN seconds."""
        self._means.stopping.set()
        until = asyncio.get_running_loop().time() + STOP_WITHIN
        for limit in self._means.in_hand:
            limit.reschedule(until)

    async def crawl(self, batch: Batch, *, is_repeated: bool = False) -> AsyncGenerator[Item, None]:
        """Fetch the addresses of a batch; yield each page and outcome at once, and a report at the end.

        is_repeated: whether another crawler had the batch. It is then returned whole, since that one may have fetched
        any of its addresses. A page counts as in memory until the next item is requested.
        """
        if is_repeated:
            wait = batch.delay + TAKEOVER if batch.delay > 0 else 0.0
            yield self._report(batch, [each.url for each in batch.addresses], "interrupted", wait)
            return
        run = _Run(self._means, batch)
        async with contextlib.aclosing(run.items()) as items:
            async for item in items:
                yield item
                del item  # a page may be large, and the next may take long
        yield self._report(batch, [each.url for each in run.waiting], run.why, run.wait())

    def _report(self, batch: Batch, left: list[str], why: str, wait: float) -> Report:
        return Report(
            batch=batch.id,
            origin=batch.origin,
            crawler=self.node.id,
            at=time.time(),
            wait=wait,
            left=left,
            why=why if left else "",
        )


class _Run:
    """One running batch. why: why the remaining addresses are not requested; empty while they are."""

    def __init__(self, means: Means, batch: Batch) -> None:
        self._means = means
        self._batch = batch
        self._host = means.fetcher.host(batch)
        self.waiting = deque(batch.addresses)
        self.why = ""
        self._next_at = 0.0
        self._silent = 0
        self._deadline = min(batch.deadline, time.time() + LONGEST)
        # With a delay, the next request waits for the end of the previous answer.
        self._lanes = 1 if batch.delay > 0 else max(1, min(batch.connections, MOST_CONNECTIONS, len(batch.addresses)))
        self._items: asyncio.Queue[Page | Outcome | None] = asyncio.Queue()
        """Bounded by `_places`; None marks the end."""
        # Nothing is requested while the worker has not taken earlier items; it takes at most 1 MiB unconfirmed.
        self._places = asyncio.Semaphore(self._lanes)

    def wait(self) -> float:
        """Return the seconds until the host may be requested again."""
        return max(0.0, self._next_at - _clock())

    async def items(self) -> AsyncGenerator[Page | Outcome, None]:
        """Yield pages and outcomes until all addresses are requested, or no more may be."""
        if self._lanes == 1:
            # Avoids a task and a queue, which took a tenth of a page's time.
            while (found := await self._next()) is not None:
                try:
                    yield found
                finally:  # also if this is closed early because the batch was lost
                    self._means.room.release(found)
                del found
            return
        lanes = asyncio.ensure_future(self._run_lanes())
        lanes.add_done_callback(lambda _: self._items.put_nowait(None))
        try:
            while (item := await self._items.get()) is not None:
                try:
                    yield item
                finally:
                    self._means.room.release(item)
                self._places.release()
                del item
            await lanes
        finally:
            lanes.cancel()
            await asyncio.wait((lanes,))
            while not self._items.empty():
                self._means.room.release(self._items.get_nowait())

    async def _run_lanes(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._lanes):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        """Fetch one address after the other."""
        try:
            while await self._places.acquire() and (item := await self._next()) is not None:
                self._items.put_nowait(item)
                del item  # a page may be large, and the next may take long
        finally:
            self._places.release()  # return the unused place; other lanes end with theirs

    async def _next(self) -> Page | Outcome | None:
        """Wait for the next turn, and return its page or outcome; None if no address is left."""
        means = self._means
        address: Address | None = None
        limit = asyncio.timeout(None)
        means.in_hand.add(limit)
        try:
            async with limit:
                if not await self._turn():
                    return None
                address = self.waiting.popleft()
                item = await means.fetcher.fetch(address, self._batch, self._host)
                self._heed(item)
                return item
        except TimeoutError:  # set by `stop`
            if address is not None:
                self.waiting.appendleft(address)
            self.why = "interrupted"
            return None
        finally:
            means.in_hand.discard(limit)

    def _heed(self, item: Page | Outcome) -> None:
        """Schedule the host's delay, or a longer pause if it asks for one or does not answer."""
        outcome = "page" if isinstance(item, Page) else item.outcome
        if outcome in _UNASKED:
            return
        now = _clock()
        self._next_at = max(self._next_at, now + self._batch.delay)
        self._silent = self._silent + 1 if outcome == "no-connection" else 0
        if isinstance(item, Outcome) and outcome == "slow-down":
            self.why = "blocked"
            self._next_at = max(self._next_at, now + (item.retry_after or 0.0))
        elif self._silent >= SILENT:
            self.why = "blocked"
            self._next_at = max(self._next_at, now + SILENT_WAIT)

    async def _turn(self) -> bool:
        """Wait until the next address may be requested; return whether there is one and the batch goes on."""
        means = self._means
        while self.waiting and not self.why:
            if means.stopping.is_set():
                self.why = "interrupted"
                break
            pause = max(0.0, self._next_at - _clock(), means.cpu.pause(), means.bandwidth.pause())
            if time.time() + pause >= self._deadline:
                self.why = "late"
                break
            is_answered = means.line.answers or self._batch.delay <= 0
            if not pause and not means.room.is_full and is_answered:
                return True
            wake_at = _clock() + pause if pause else math.inf
            waits: list[Coroutine[object, object, object]] = [means.stopping.wait()]
            if not pause:
                waits.append(means.line.answered() if not is_answered else means.room.changed())
            await _first(waits, pause or (None if is_answered else max(0.0, self._deadline - time.time())))
            if _clock() - wake_at > JUMP:
                self.why = "interrupted"
        return False


async def _first(waits: Sequence[Coroutine[object, object, object]], timeout: float | None) -> None:
    """Wait until one of these ends, or `timeout` seconds have passed."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _clock() -> float:
    """Return a clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _HAS_BOOTTIME else time.monotonic()
