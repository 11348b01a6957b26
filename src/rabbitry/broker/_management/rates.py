"""Rates and samples from counters that are read every few seconds, so that counting costs little per message."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from rabbitry.broker._channel import Channel
from rabbitry.broker._connection import ClientConnection
from rabbitry.broker._counts import CHANNEL, CHURN, DELIVERED, DELIVERIES, OCTETS
from rabbitry.broker._exchanges import Exchange
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._queues.queue import Queue
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.broker import Broker

_logger = logging.getLogger(__name__)
PERIOD: Final = 5
"""Seconds between two reads of the counters: RabbitMQ's collect_statistics_interval."""
RETENTION: Final = 600
"""Seconds for which samples are kept."""
_MOST_SAMPLES: Final = 200_000
"""Most samples kept of all objects together: the more objects, the fewer samples of each."""
DEPTHS: Final = ("messages", "messages_ready", "messages_unacknowledged")
_QUEUE: Final = ("publish", *DELIVERED, "deliver_get", *DEPTHS)
_CHANNEL: Final = (*CHANNEL, "deliver_get")
_EXCHANGE: Final = ("publish_in", "publish_out")
_DISK: Final = ("disk_reads", "disk_writes")
_VHOST: Final = (*_CHANNEL, *DEPTHS, *OCTETS)
_BROKER: Final = (*_CHANNEL, *DEPTHS, *_DISK, *CHURN)
Counts = tuple[int, ...]


class Range(NamedTuple):
    """The samples that a query's `…_age` and `…_incr` request: the seconds covered, and the seconds between two."""

    age: int
    incr: int


class Counted(NamedTuple):
    """An object's counters by name: now, at the last two reads, and earlier."""

    names: tuple[str, ...]
    now: Counts
    seconds: float
    last: Counts
    before: Counts
    history: _History | None

    def shown(self, names: Sequence[str], wanted: Range | None = None) -> dict[str, object]:
        """Return counters, each with its rate per second, and with samples if a range is requested."""
        rows: list[tuple[int, Counts]] = []
        if wanted is not None:
            rows = _rows(self.history, wanted, len(self.names))
        result: dict[str, object] = {}
        for name in names:
            place = self.names.index(name)
            result[name] = self.now[place]
            rate = (self.last[place] - self.before[place]) / self.seconds if self.seconds else 0.0
            details: dict[str, object] = {"rate": rate}
            if wanted is not None:
                samples = [{"sample": counts[place], "timestamp": at} for at, counts in rows]
                details["samples"] = samples
                if len(rows) > 1:
                    values = [counts[place] for _, counts in rows]
                    details["avg_rate"] = (values[0] - values[-1]) * 1000 / (rows[0][0] - rows[-1][0])
                    details["avg"] = sum(values) / len(values)
            result[f"{name}_details"] = details
        return result

    def any(self, names: Sequence[str]) -> bool:
        """Return whether any of the named counters was ever above 0."""
        return any(self.now[self.names.index(name)] for name in names)


class _History:
    """The counters of one object, with the times (POSIX milliseconds) at which changes were seen."""

    __slots__ = ("is_cut", "seen")

    def __init__(self) -> None:
        self.seen: deque[tuple[int, Counts]] = deque()
        self.is_cut = False

    def add(self, now: int, counts: Counts, most: int) -> None:
        if not self.seen or self.seen[-1][1] != counts:
            self.seen.append((now, counts))
        oldest = now - (RETENTION + PERIOD) * 1000
        while len(self.seen) > most or (len(self.seen) > 1 and self.seen[1][0] <= oldest):
            self.seen.popleft()
            self.is_cut = True

    def at(self, when: int) -> Counts | None:
        """Return the counters at a time; None for a time before the first read."""
        for seen_at, counts in reversed(self.seen):
            if seen_at <= when:
                return counts
        return self.seen[0][1] if self.is_cut else None


def _rows(history: _History | None, wanted: Range, width: int) -> list[tuple[int, Counts]]:
    """Return samples of all counters with their times (POSIX milliseconds), newest first."""
    nothing = (0,) * width
    seen = list(history.seen) if history is not None else []
    last = int(time.time()) // PERIOD * PERIOD
    rows: list[tuple[int, Counts]] = []
    for back in range(wanted.age // wanted.incr, -1, -1):  # from the oldest: times count from there
        at = (last - wanted.age + (wanted.age // wanted.incr - back) * wanted.incr) * 1000
        while len(seen) > 1 and seen[1][0] <= at:
            del seen[0]
        known = seen and (seen[0][0] <= at or (history is not None and history.is_cut))
        rows.append((at, seen[0][1] if known else nothing))
    rows.reverse()
    return rows


class Rates:
    """The recent counters of queues, exchanges, channels, connections, virtual hosts, and of the broker."""

    def __init__(self, broker: Broker, pace: Pace) -> None:
        self._broker = broker
        self._pace = pace
        self._known: dict[object, _History] = {}
        self._looks: deque[int] = deque(maxlen=2)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the counters now and every few seconds from now on."""
        self._task = asyncio.create_task(self._run(), name="rates")
        self._task.add_done_callback(_log_failure)

    async def stop(self) -> None:
        """Stop reading the counters."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Read all counters, in slices. Objects whose counters are all 0 take no memory."""
        now = int(time.time() * 1000)
        known: dict[object, _History] = {}
        most = max(2, min(RETENTION // PERIOD + 2, _MOST_SAMPLES // max(len(self._known), 1)))
        vhosts, connections = list(self._broker.vhosts.values()), list(self._broker.connections)

        def note(of: object, counts: Counts) -> None:
            history = self._known.get(of)
            if history is None:
                if not any(counts):
                    return
                history = _History()
            history.add(now, counts, most)
            known[of] = history

        async with self._pace as pace:
            for vhost in vhosts:
                for queue in list(vhost.queues.values()):
                    note(queue, _queue(queue))
                    await pace.rest()
                for exchange in list(vhost.exchanges.values()):
                    note(exchange, (exchange.published_in, exchange.published_out))
                    await pace.rest()
            for connection in connections:
                note(connection, _octets(connection))
                for channel in list(connection.channels.values()):
                    note(channel, _channel(channel))
                    if pace.is_over:
                        await pace.rest()
                await pace.rest()
            totals = await vhost_totals(self._broker, pace)
        for vhost, counts in totals.items():
            note(vhost, counts)
        note(self._broker, _broker(self._broker, totals))
        self._known = known
        self._looks.append(now)

    def _counted(self, of: object, names: tuple[str, ...], now: Counts) -> Counted:
        history = self._known.get(of)
        last = before = now
        seconds = 0.0
        if len(self._looks) > 1:
            nothing = (0,) * len(names)
            earlier, later = self._looks
            seconds = (later - earlier) / 1000
            last = (history.at(later) if history is not None else None) or nothing
            before = (history.at(earlier) if history is not None else None) or nothing
        return Counted(names, now, seconds, last, before, history)

    def queue(self, of: Queue) -> Counted:
        """Return the counters of a queue."""
        return self._counted(of, _QUEUE, _queue(of))

    def exchange(self, of: Exchange) -> Counted:
        """Return the counters of an exchange."""
        return self._counted(of, _EXCHANGE, (of.published_in, of.published_out))

    def channel(self, of: Channel) -> Counted:
        """Return the counters of a channel."""
        return self._counted(of, _CHANNEL, _channel(of))

    def connection(self, of: ClientConnection) -> Counted:
        """Return the counters of a connection."""
        return self._counted(of, OCTETS, _octets(of))

    def vhost(self, of: VirtualHost, totals: Counts) -> Counted:
        """Return the counters of a virtual host; `totals` are from `vhost_totals`."""
        return self._counted(of, _VHOST, totals)

    def broker(self, totals: dict[VirtualHost, Counts]) -> Counted:
        """Return the counters of the broker; `totals` are from `vhost_totals`."""
        return self._counted(self._broker, _BROKER, _broker(self._broker, totals))


def _log_failure(task: asyncio.Task[None]) -> None:
    """Log an error if the task that reads the counters has failed."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _logger.error(
            "the management API's rates are no longer updated: reading the counters failed: %r; restart the broker",
            error,
            exc_info=error,
        )


def _queue(queue: Queue) -> Counts:
    counts = queue.counts()
    ready, unsettled = queue.ready, queue.unsettled
    return (*counts, sum(counts[1 : 1 + DELIVERIES]), ready + unsettled, ready, unsettled)


def _channel(channel: Channel) -> Counts:
    return _with_sum(channel.counts())


def _with_sum(counts: Sequence[int]) -> Counts:
    """Return counts in the order of CHANNEL with their sum deliver_get added."""
    first = len(CHANNEL) - len(DELIVERED)
    return (*counts, sum(counts[first : first + DELIVERIES]))


def _octets(connection: ClientConnection) -> Counts:
    return connection.driver.bytes_received, connection.driver.bytes_sent


def _broker(broker: Broker, totals: dict[VirtualHost, Counts]) -> Counts:
    width = len(_CHANNEL) + len(DEPTHS)
    sums = [sum(column) for column in zip(*(counts[:width] for counts in totals.values()), strict=True)]
    journal = broker.journal
    return (*(sums or [0] * width), journal.loaded, journal.kept, *(getattr(broker.churn, name) for name in CHURN))


async def vhost_totals(broker: Broker, pace: Pace) -> dict[VirtualHost, Counts]:
    """Return the summed counters of each virtual host, closed channels and connections included."""
    totals: dict[VirtualHost, Counts] = {}
    channels = {vhost: list(vhost.totals.channels) for vhost in broker.vhosts.values()}
    octets = {vhost: list(vhost.totals.octets) for vhost in broker.vhosts.values()}
    for connection in list(broker.connections):
        if connection.vhost not in channels:
            continue
        for channel in list(connection.channels.values()):
            sums = channels[connection.vhost]
            channels[connection.vhost] = [one + two for one, two in zip(sums, channel.counts(), strict=True)]
            if pace.is_over:
                await pace.rest()
        for place, count in enumerate(_octets(connection)):
            octets[connection.vhost][place] += count
        await pace.rest()
    for vhost, counts in channels.items():
        ready = unsettled = 0
        for queue in list(vhost.queues.values()):
            ready += queue.ready
            unsettled += queue.unsettled
            if pace.is_over:
                await pace.rest()
        totals[vhost] = (*_with_sum(counts), ready + unsettled, ready, unsettled, *octets[vhost])
    return totals
