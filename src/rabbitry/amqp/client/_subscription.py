"""The channel's side of one consumer: its options, its buffer of deliveries, and its end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from rabbitry.amqp.client._settlements import Delivery
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import Closed, ConsumerCancelled, RabbitryError, UsageError

_BUFFER_MESSAGES: Final = 10_000
_BUFFER_BYTES: Final = 64 << 20


if TYPE_CHECKING:

    class Host(Protocol):
        """The part of a channel that a subscription calls."""

        @property
        def loop(self) -> asyncio.AbstractEventLoop:
            """The event loop of the connection."""

        def check_loop(self) -> None:
            """Raise UsageError outside the connection's event loop, UsedAfterFork in a child process."""

        def hold_reading(self, holder: object) -> None:
            """Stop reading the socket on behalf of `holder`."""

        def release_reading(self, holder: object) -> None:
            """Undo `hold_reading`."""


class Subscription:
    """A consumer of a queue. The channel puts deliveries in, one task takes them out."""

    def __init__(
        self, host: Host, queue: str, tag: str, *, no_ack: bool, exclusive: bool, arguments: Table | None, restore: bool
    ) -> None:
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.arguments = arguments
        self.restore = restore
        self.gives_back: bool = True
        """Whether cancelling the consumer requeues unsettled deliveries."""
        self.has_started = False
        """Whether the broker has sent consume-ok: from then on an auto-delete queue ends with its last consumer."""
        self.is_entered = False
        self.is_holding: bool = False
        """Whether the buffer is full, so that reading the socket is on hold."""
        self.buffer: deque[Delivery] = deque()
        self._host = host
        self._low = 0
        self._waiter: asyncio.Future[None] | None = None
        self._end: RabbitryError | None = None
        self._ended = False
        self._is_leaving = False
        """Whether it is cancelled, though the broker may still send deliveries before cancel-ok."""

    # -- for the iterator --------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until the buffer changes. Raises StopAsyncIteration, or the consumer's error, if it has ended."""
        self._host.check_loop()
        if self._ended:
            if self._end is not None:
                raise self._end.fresh() if isinstance(self._end, Closed) else self._end
            raise StopAsyncIteration
        if not self.is_entered:
            raise UsageError("iterate within `async with channel.consume(…) as deliveries:`")
        if self._waiter is not None:
            raise UsageError("another task is iterating over this consumer; give each task a consumer of its own")
        self._waiter = self._host.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def taken(self) -> None:
        """Resume reading once half of a full buffer was taken."""
        if len(self.buffer) <= self._low:
            self._release()

    def leave(self, *, give_back: bool) -> None:
        """Start to cancel the consumer. If unsettled deliveries are not requeued, the buffer can still be taken."""
        self.gives_back = give_back
        if give_back:
            self.end(None)
        self._is_leaving = True

    def left(self) -> None:
        """End the iteration after the buffer: the consumer is cancelled."""
        self._ended = True
        self._wake()

    # -- for the channel -------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Buffer a delivery from the link; one that arrives after the end stays open and is requeued at cancel-ok."""
        if self._ended:
            return
        self.buffer.append(delivery)
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
        elif len(self.buffer) >= _BUFFER_MESSAGES and not self.is_holding:
            self._hold()

    def measure(self) -> None:
        """Hold reading if the buffer is full in bytes, as it can be with a large prefetch or none."""
        if not self.is_holding:
            size = sum(len(delivery.body) + len(delivery.header) for delivery in self.buffer)
            if size >= _BUFFER_BYTES:
                self._hold()

    def _hold(self) -> None:
        self._low = len(self.buffer) // 2
        self.is_holding = True
        self._host.hold_reading(self)

    def _release(self) -> None:
        if self.is_holding:
            self.is_holding = False
            self._host.release_reading(self)

    @property
    def has_ended(self) -> bool:
        """Whether it was cancelled or its channel is closed, so that it must not be restarted."""
        return self._ended or self._is_leaving

    def drop_buffer(self) -> None:
        """Drop deliveries that were not taken: their link is lost, or they are requeued."""
        self.buffer.clear()
        self._release()

    def end(self, error: RabbitryError | None) -> None:
        """End the iteration, with `error` after the buffer."""
        if not self._ended:
            self._ended = True
            self._end = error
        self._release()  # no more deliveries arrive
        if not isinstance(error, ConsumerCancelled):
            self.drop_buffer()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
