"""Consuming the messages of one stage on the I/O thread: each delivery becomes a job, counted before it is handled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from rabbitry.amqp.client import Channel, Connection, Consumer, Delivery
from rabbitry.exceptions import AccessRefused, ChannelClosed, ConnectionClosed, ConsumerCancelled, RequestTimeout
from rabbitry.flow.message import properties_of
from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._job import Job
from rabbitry.flow.worker._window import Window
from rabbitry.runtime.backoff import Backoff

_PAUSES: Final = Backoff(0.5, 30.0)

_logger = logging.getLogger(__name__)


class Intake:
    """A consumer of one stage. `run` keeps it consuming until `stop`, except between `pause` and `resume`."""

    def __init__(
        self,
        stage: Stage,
        queue: str,
        connection: Connection,
        prefetch: int,
        take: Callable[[Job], None],
        redeclare: Callable[[], Awaitable[None]],
        window: Window | None = None,
    ) -> None:
        """Create an intake; `run` starts it.

        Args:
            stage: The stage whose handler gets the messages.
            queue: The stage's queue, or the queue of its suspects.
            connection: The worker's connection for consuming.
            prefetch: How many deliveries may be unacknowledged.
            take: Called with each job.
            redeclare: Declares the app's topology again when the queue was deleted.
            window: Limits what is in hand further than the prefetch.
        """
        self.stage = stage
        self.queue = queue
        self.prefetch = prefetch
        self.generation = 0
        self.taken = 0
        self._connection = connection
        self._take = take
        self._redeclare = redeclare
        self._window = window
        self._resizing: asyncio.Task[None] | None = None
        self._latest: Delivery | None = None
        self._is_backlog = False
        """Whether the connection was lost, and every delivery since then came redelivered."""
        self._in_hand: bytes | str | None = None
        """The identity of the latest message when the connection was lost."""
        self.on_settled: Callable[[Job], None] | None = None
        """Called with each job that is in hand no more, if the stage has limits that need it."""
        self._consumer: Consumer | None = None
        self._channel: Channel | None = None
        self._is_stopped = False
        self._allowed = asyncio.Event()
        """Set unless the consumer is paused."""
        self._allowed.set()
        self.consuming = asyncio.Event()
        self._taken_all = asyncio.Event()
        """Set while no delivery may come out of the consumer."""
        self._taken_all.set()

    async def run(self) -> None:
        """Consume until `stop`, again whenever the broker ends the consumer or its channel.

        Raises ConnectionClosed if the connection is closed for good, and AccessRefused if this user may not
        consume the queue, or declare what is missing.
        """
        failures = 0
        while self._goes_on():
            await self._allowed.wait()
            taken = self.taken
            try:
                if failures:
                    await self._redeclare()
                await self._consume()
            except (ConsumerCancelled, ChannelClosed, ConnectionClosed, RequestTimeout) as error:
                # A connection that is lost in the middle of a request comes back; one that is closed does not.
                if self._connection.close_reason is not None or _is_refused(error):
                    raise
                if not self._goes_on():
                    return
                if self.is_paused:  # `pause` may have closed the channel; see ActiveIntake
                    continue
                if self.taken > taken:
                    failures = 0
                pause = _PAUSES.pause(failures + 1)
                _logger.warning(
                    "stage '%s', queue '%s': %s; consuming again in %.1f s", self.stage.name, self.queue, error, pause
                )
            else:
                pause = _PAUSES.pause(failures + 1)
            failures += 1
            await asyncio.sleep(pause)

    def _goes_on(self) -> bool:
        return not self._is_stopped

    async def _consume(self) -> None:
        channel = self._channel = await self._connection.channel(prefetch=self.prefetch)
        try:
            if self._window is not None:
                if limit := self._window.limit:
                    await channel.limit(limit)
                self._resizing = asyncio.create_task(self._window.run(channel, limit))
            while self._goes_on():
                await self._consume_over(channel)
                # If it is paused, what is in hand is still acked over this channel.
                await self._allowed.wait()
        finally:
            await self._keep_size()
            if not self._is_stopped:  # while stopping, what is in hand is still acked over it
                self.lose()
                await channel.close()

    async def _consume_over(self, channel: Channel) -> None:
        """Consume until the consumer is cancelled, by `pause` or `stop`."""
        consumer = self._consumer = channel.consume(self.queue)
        self._taken_all.clear()
        try:
            async with consumer as deliveries:
                self.consuming.set()
                # `pause` cancels only what has begun, and may have come before the broker's answer.
                if self.is_paused:
                    await consumer.cancel(give_back=False)
                async for delivery in deliveries:
                    self._on_delivery(delivery)
        finally:
            self._taken_all.set()
            self.consuming.clear()

    async def _keep_size(self) -> None:
        """Leave the window as it is from now on."""
        resizing, self._resizing = self._resizing, None
        if resizing is not None:
            resizing.cancel()
            await asyncio.wait((resizing,))

    @property
    def most(self) -> int:
        """How many messages it may have in hand now."""
        return self.prefetch if self._window is None else self._window.size

    @property
    def is_ready(self) -> bool:
        """Whether it consumes, or is not to consume now."""
        return self.consuming.is_set() or self.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether the consumer is paused: it takes nothing until `resume`."""
        return not self._allowed.is_set()

    @property
    def is_served(self) -> bool:
        """Whether the broker delivers to it what waits in its queue."""
        return self.consuming.is_set()

    async def wait_ready(self) -> None:
        """Wait until `is_ready`."""
        if not self.is_paused:
            await self.consuming.wait()

    def _on_delivery(self, delivery: Delivery) -> None:
        self.taken += 1
        self._latest = delivery
        if not delivery.redelivered:
            self._is_backlog = False
        if self._window is not None:
            self._window.take(len(delivery.body))
        self._take(Job(self, delivery))

    def settled(self, job: Job) -> None:
        """Note that a job of this consumer is in hand no more."""
        if self._window is not None and not job.is_stale:
            self._window.settle(len(job.body))
        if self.on_settled is not None:
            self.on_settled(job)

    def excuses(self, delivery: Delivery) -> bool:
        """Return whether a redelivered suspect only waited in the queue and was not handled by a worker.

        A broker that crashed marks all messages of a durable queue as redelivered (RabbitMQ's classic queues). These
        messages come before any that is not marked. This worker survived the crash and takes one suspect at a time, so
        only the one in hand counts an attempt: a handler that keeps its process from answering heartbeats loses the
        connection each time. A worker that was killed starts without this knowledge, so a message that kills workers
        is excused at most once by each worker.
        """
        return self._is_backlog and _identity(delivery) != self._in_hand

    def lose_connection(self) -> None:
        """Note that the connection was lost; see `lose` and `excuses`."""
        self.lose()
        self._is_backlog = True
        self._in_hand = None if self._latest is None else _identity(self._latest)

    def lose(self) -> None:
        """Note that the deliveries so far can't be settled any more and will be redelivered."""
        self.generation += 1
        if self._window is not None:
            self._window.clear()

    async def pause(self) -> None:
        """Stop consuming until `resume`. Deliveries on their way are taken, and jobs in hand can still be settled."""
        self._allowed.clear()
        if self._consumer is not None and self.consuming.is_set():
            try:
                await self._consumer.cancel(give_back=False)
            except RequestTimeout as error:
                # The broker may still deliver to the consumer: closing the channel returns such deliveries.
                _logger.warning("stage '%s', queue '%s': %s; closing its channel", self.stage.name, self.queue, error)
                with contextlib.suppress(RequestTimeout):
                    await self.restart()
        await self._taken_all.wait()

    def resume(self) -> None:
        """Consume again."""
        self._allowed.set()

    async def restart(self) -> None:
        """Return every delivery to the broker and consume anew."""
        if self._channel is not None:
            await self._channel.close()

    async def stop(self) -> None:
        """Stop consuming. Deliveries already on their way are taken, and jobs in hand can still be settled."""
        self._is_stopped = True
        if self._consumer is not None:
            await self._consumer.cancel(give_back=False)
            await self._taken_all.wait()


def _identity(delivery: Delivery) -> bytes | str:
    """Return a value that identifies a message when it is delivered again: its id, or its body if it has no id."""
    return properties_of(delivery).message_id or delivery.body


def _is_refused(error: Exception) -> bool:
    """Distinguish a missing permission, where no retry helps, from a queue with an exclusive consumer: both are 403."""
    return isinstance(error, AccessRefused) and "exclusive" not in error.reply_text
