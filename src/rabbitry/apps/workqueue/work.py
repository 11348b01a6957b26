"""The producer and the consumer of the work queue."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rabbitry.amqp.client import Channel, Connection, connect
from rabbitry.apps._connected import run_connected
from rabbitry.exceptions import ChannelClosed, RequestTimeout
from rabbitry.flow.message import node_name
from rabbitry.flow.wiring.declarer import Declarer
from rabbitry.runtime.tasks import background, until
from rabbitry.telemetry import Collector, Report, Reporter, ReportKind

QUEUE: Final = "worker_queue"
COUNT: Final = 100_001
PREFETCH: Final = 10
APP: Final = "workqueue"
LOOK: Final = 0.5
"""Seconds between two reports of progress."""
_LOOK_TIMEOUT: Final = 5.0
"""Seconds that the broker has to answer with the queue's length."""
_UNCONFIRMED: Final = 5_000


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress. done: messages by this program. rate: recent messages a second. left: None if unknown.

    shares: messages done by each live consumer, by its id; empty for the producer.
    """

    done: int
    rate: float
    left: int | None
    shares: dict[str, int]


class _Rate:
    """Messages a second over the last few reports."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=8)

    def at(self, done: int) -> float:
        now = time.monotonic()
        self._marks.append((now, done))
        then, before = self._marks[0]
        return (done - before) / max(now - then, 1e-9)


async def produce(
    url: str,
    tell: Callable[[Progress], None],
    *,
    count: int = COUNT,
    queue: str = QUEUE,
    plain: bool = False,
    strict: bool = False,
) -> None:
    """Publish the numbers from 0, and return when all are confirmed.

    Args:
        url: The broker.
        tell: Called with the progress.
        count: How many numbers.
        queue: The queue's name.
        plain: Declare the queue with the original programs' flags, not durable.
        strict: Raise PreconditionFailed if the queue exists with other flags, instead of using it as it is.

    Raises:
        ConnectFailed: No broker can be reached.
        PublishError: The broker did not take the message.
        PreconditionFailed: A queue or exchange exists with other flags.
    """
    rate, told = _Rate(), time.monotonic()
    pending: deque[asyncio.Future[None]] = deque()
    async with connect(url, name="rabbitry workqueue produce") as connection:
        channel = await connection.channel()
        await Declarer(strict=strict).queue(channel, queue, durable=not plain)
        done = 0
        for number in range(count):
            pending.append(await channel.send(b"%d" % number, routing_key=queue))
            while pending and (len(pending) > _UNCONFIRMED or pending[0].done()):
                await pending.popleft()
                done += 1
            if time.monotonic() - told > LOOK:
                told = time.monotonic()
                tell(Progress(done, rate.at(done), count - done, {}))
        for future in pending:
            await future
    tell(Progress(count, rate.at(count), 0, {}))


class Worker:
    """One consumer: takes and acks numbers, and reports its progress so that all see each other's shares."""

    def __init__(
        self,
        tell: Callable[[Progress], None],
        *,
        queue: str = QUEUE,
        prefetch: int = PREFETCH,
        plain: bool = False,
        strict: bool = False,
    ) -> None:
        """Create a consumer. plain, strict: see `produce`. prefetch: the most unsettled messages."""
        self.id: str = secrets.token_hex(4)
        self.done: int = 0
        self._tell = tell
        self._queue = queue
        self._prefetch = prefetch
        self._plain = plain
        self._declarer = Declarer(strict=strict)
        self._started = time.time()
        self._rate = _Rate()
        self._collector = Collector()
        self._left: int | None = None

    async def run(self, url: str, stop: asyncio.Event, *, connect_attempts: int | None = None) -> None:
        """Consume until `stop` is set.

        Raises ConnectFailed past `connect_attempts` at the start (None: no limit), LoginRefused, VirtualHostRefused,
        and PreconditionFailed if this worker is strict.
        """
        await run_connected(
            url,
            lambda connection: self._work(connection, stop),
            name=f"rabbitry workqueue consume {self.id}",
            stop=stop,
            connect_attempts=connect_attempts,
            declare=self._declare,
        )
        self._picture()

    async def _declare(self, connection: Connection) -> None:
        async with await connection.channel() as channel:
            await self._declarer.queue(channel, self._queue, durable=not self._plain)

    async def _work(self, connection: Connection, stop: asyncio.Event) -> None:
        channel = await connection.channel(prefetch=self._prefetch)
        async with background(Reporter(connection, self._reports).run()), background(self._collector.run(connection)):
            async with background(self._look(connection)):
                await until(stop, self._consume(channel))
        await channel.close()

    async def _consume(self, channel: Channel) -> None:
        async with channel.consume(self._queue) as deliveries:
            async for delivery in deliveries:
                self.done += 1
                delivery.ack()

    async def _look(self, connection: Connection) -> None:
        """Query the queue's length repeatedly; while the connection is lost, it is unknown."""
        async with await connection.channel() as channel:
            while True:
                try:
                    await channel.open(timeout=_LOOK_TIMEOUT)
                    info = await channel.declare_queue(self._queue, passive=True, timeout=_LOOK_TIMEOUT)
                    self._left = info.message_count
                except (ChannelClosed, RequestTimeout):  # deleted, or the broker is away
                    self._left = None
                self._picture()
                await asyncio.sleep(LOOK)

    def _picture(self) -> None:
        reports = [report for report in self._collector.nodes() if report.app == APP and report.role == self._queue]
        shares = {report.id: report.counters.get("done", 0) for report in reports} | {self.id: self.done}
        self._tell(Progress(self.done, self._rate.at(self.done), self._left, shares))

    def _reports(self, kind: ReportKind) -> list[Report]:
        return [
            Report(
                kind=kind,
                app=APP,
                role=self._queue,
                id=self.id,
                host=node_name(),
                pid=os.getpid(),
                at=time.time(),
                started=self._started,
                counters={"done": self.done},
            )
        ]
