"""A load of numbered messages through one queue, and its account: confirmed, arrived and duplicated messages."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import rabbitry
from rabbitry.amqp.client import BrokerURL, Channel, RecoveryEvent
from rabbitry.amqp.client.consuming import Delivery
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import PublishError, PublishRefused
from tests.support.waiting import WITHIN, eventually

_TURN: Final = 0.02
"""Seconds between two batches."""


@dataclass
class Account:
    """What became of the messages.

    unconfirmed: by the name of the error that their publish ended with; nobody promised that these arrive. Those that
    a broker refused were not published again here.
    in_doubt: those without a confirm when the publisher's connection was lost. The client sends them again,
    since the broker may never have had them; where it had, they arrive twice.
    redelivered, sent_again: why messages arrived again. The broker marks what it delivers once more, because the
    consumer's connection was lost before the ack came through, as redelivered; what is not marked must have
    been in doubt. unexplained: arrived again for neither reason.
    losses: of connections, by `publisher` and `consumer`.
    """

    sent: int = 0
    confirmed: set[int] = field(default_factory=set)
    unconfirmed: Counter[str] = field(default_factory=Counter)
    arrived: set[int] = field(default_factory=set)
    in_doubt: set[int] = field(default_factory=set)
    redelivered: int = 0
    sent_again: int = 0
    unexplained: set[int] = field(default_factory=set)
    losses: Counter[str] = field(default_factory=Counter)
    settled: int = 0
    """Confirmed and arrived messages that `forget` took out of the sets."""

    def check(self) -> None:
        """See that every confirmed message arrived, and why some did more than once."""
        missing = self.confirmed - self.arrived
        assert not missing, f"{len(missing)} confirmed messages did not arrive, such as {sorted(missing)[:5]}; {self}"
        assert not self.unexplained, f"arrived again for no known reason: {sorted(self.unexplained)[:5]}; {self}"

    def forget(self) -> None:
        """Empty the sets, if all messages are settled."""
        self.settled += len(self.confirmed)
        for numbers in (self.confirmed, self.arrived, self.in_doubt):
            numbers.clear()

    def __str__(self) -> str:
        confirmed = self.settled + len(self.confirmed)
        errors = ", ".join(f"{count} {name}" for name, count in self.unconfirmed.items()) or "none"
        return (
            f"{self.sent} sent, {confirmed} confirmed and arrived, unconfirmed: {errors}; "
            f"{self.redelivered} arrived again because the consumer's connection was lost before its ack was through "
            f"(redelivered), {self.sent_again} because the publisher's was lost before the confirm was through "
            f"(sent again); connections lost: {self.losses['publisher']} of the publisher, "
            f"{self.losses['consumer']} of the consumer"
        )


class Load:
    """A publisher and a consumer on connections of their own. Made by `running_load`."""

    def __init__(self, account: Account, queue: str, batch: int) -> None:
        self.account = account
        self._queue = queue
        self._batch = batch
        self._pending: dict[int, asyncio.Future[None]] = {}
        self._goes_on = asyncio.Event()
        self._rests = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._consuming: Channel | None = None

    def note(self, who: str, event: RecoveryEvent) -> None:
        """Take a step of a recovery."""
        if event.kind == "lost":
            self.account.losses[who] += 1
            if who == "publisher":
                self.account.in_doubt |= self._pending.keys()

    async def start(self, publishing: Channel, consuming: Channel, arguments: Table | None) -> None:
        """Declare the queue, publish and consume."""
        await publishing.declare_queue(self._queue, durable=True, arguments=arguments)
        self._consuming = consuming
        self._goes_on.set()
        self._tasks = [
            asyncio.create_task(self._publish(publishing), name="load publishes"),
            asyncio.create_task(self._consume(consuming), name="load consumes"),
        ]

    async def stop(self) -> None:
        """End both tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self, within: float = WITHIN) -> None:
        """Publish no more, and wait until all that was confirmed has arrived and the queue is empty."""
        self._goes_on.clear()
        await self._until(self._rests.is_set, "the publisher rests", within)
        await self._until(lambda: not self._pending, "every confirm", within)
        await self._until(lambda: self.account.confirmed <= self.account.arrived, "every confirmed message", within)
        assert self._consuming is not None
        async with asyncio.timeout(within):
            # Queue and channel keep their order: when the queue is reported empty, all its messages are delivered.
            waiting = 1
            while waiting:
                waiting = (await self._consuming.declare_queue(self._queue, passive=True)).message_count
                await asyncio.sleep(_TURN)  # what is in the consumer's buffer is taken without waiting

    def go_on(self) -> None:
        """Publish again after `settle`."""
        self._rests.clear()
        self._goes_on.set()

    async def arrives(self, more: int, within: float = WITHIN) -> None:
        """Wait until `more` messages have arrived from now on."""
        wanted = len(self.account.arrived) + more
        await self._until(lambda: len(self.account.arrived) >= wanted, f"{more} more messages", within)

    async def _until(self, condition: Callable[[], bool], what: str, within: float) -> None:
        await eventually(lambda: self._failed() or condition(), what, within=within)
        if self._failed():
            await next(task for task in self._tasks if task.done())  # raises why

    def _failed(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def _publish(self, channel: Channel) -> None:
        refused = 0
        while True:
            if self.account.unconfirmed[PublishRefused.__name__] > refused:
                refused = await self._begin_anew(channel)
            if not self._goes_on.is_set():
                self._rests.set()
                await self._goes_on.wait()
            for _ in range(self._batch):
                number = self.account.sent
                self.account.sent += 1
                try:
                    future = await channel.send(b"%d" % number, routing_key=self._queue)
                except PublishError as error:
                    self.account.unconfirmed[type(error).__name__] += 1
                    continue
                self._pending[number] = future
                future.add_done_callback(partial(self._outcome, number))
            await asyncio.sleep(_TURN)

    async def _begin_anew(self, channel: Channel) -> int:
        """Publish over a new channel after a refusal; return the number of messages.

        RabbitMQ 3.10 asks the leader of a quorum queue at a channel's first publish to it (rabbit_fifo_client). Where
        that leader's node has just died, it refuses everything from this channel until the node is back.
        """
        with contextlib.suppress(ExceptionGroup):
            await channel.wait_for_confirms()
        await channel.close()
        await asyncio.sleep(0.2)
        await channel.open()
        return self.account.unconfirmed[PublishRefused.__name__]

    def _outcome(self, number: int, future: "asyncio.Future[None]") -> None:
        del self._pending[number]
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self.account.confirmed.add(number)
        else:
            self.account.unconfirmed[type(error).__name__] += 1

    async def _consume(self, channel: Channel) -> None:
        async with channel.consume(self._queue, restore=True) as deliveries:
            async for delivery in deliveries:
                self._arrived(delivery)
                delivery.ack()

    def _arrived(self, delivery: Delivery) -> None:
        account, number = self.account, int(delivery.body)
        if number not in account.arrived:
            account.arrived.add(number)
        elif delivery.redelivered:
            account.redelivered += 1
        elif number in account.in_doubt:
            account.sent_again += 1
        else:
            account.unexplained.add(number)


@asynccontextmanager
async def running_load(
    url: str | BrokerURL, *, queue: str = "load", arguments: Table | None = None, batch: int = 20
) -> AsyncIterator[Load]:
    """Run a load of about `batch` × 50 messages a second through a durable queue, until the block is left.

    It deletes nothing; the account is complete after `settle`.
    """
    load = Load(Account(), queue, batch)
    async with (
        rabbitry.connect(url, name="publisher", on_recovery=partial(load.note, "publisher")) as publishing,
        rabbitry.connect(url, name="consumer", on_recovery=partial(load.note, "consumer")) as consuming,
    ):
        await load.start(await publishing.channel(), await consuming.channel(), arguments)
        try:
            yield load
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await load.stop()
