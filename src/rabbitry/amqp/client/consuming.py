"""Consuming: deliveries, their settlement, and the iterator over them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rabbitry.amqp.client._loops import check_loop
from rabbitry.amqp.client._processing import Processing, Requeue
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.methods import BasicNack, BasicReject, Method
from rabbitry.amqp.protocol.properties import Properties, decode_header
from rabbitry.amqp.protocol.tables import Table, decode_text
from rabbitry.exceptions import AlreadySettled, Closed, ConsumerCancelled, RabbitryError, RequestTimeout, UsageError

if TYPE_CHECKING:
    from rabbitry.amqp.client.channel import Channel

_BUFFER_MESSAGES: Final = 10_000
_BUFFER_BYTES: Final = 64 << 20
LEAVE_TIMEOUT: Final = 5.0
"""Seconds that the broker has to answer where a block is left with an error."""
LOOK_EVERY: Final = 8 << 20
"""Bytes from the socket after which buffers are measured: counting them would be paid for each message."""


class Settlements:
    """The unsettled deliveries of one channel of one link.

    Acks of one turn of the event loop travel together, as one frame where no delivery before them is open.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: int,
        write: Callable[[bytes], None],
        send: Callable[[Method], None],
    ) -> None:
        self.open: dict[int, Consumer | None] = {}
        self.lost: Closed | None = None
        self._loop = loop
        self._channel = channel
        self._write = write
        self._send = send
        self._acks: list[int] = []

    def ack(self, tag: int, multiple: bool) -> None:
        """Settle a delivery (all up to it) as done."""
        self.check(tag)
        is_first = not self._acks
        if is_first:
            check_loop(self._loop)  # for the first of a turn alone, which starts what sends them all
        self._close(tag, multiple)
        if is_first:
            self._loop.call_soon(self.flush)
        self._acks.append(tag)

    def nack(self, tag: int, multiple: bool, requeue: bool) -> None:
        """Settle a delivery (all up to it) as not done."""
        self.check(tag)
        check_loop(self._loop)
        self.flush()  # while it counts as open, so that no ack of several reaches over it
        self._close(tag, multiple)
        self._send(BasicNack(tag, multiple, requeue))

    def reject(self, tag: int, requeue: bool) -> None:
        """Settle one delivery as not done."""
        self.check(tag)
        check_loop(self._loop)
        self.flush()
        self._close(tag, False)
        self._send(BasicReject(tag, requeue))

    def check(self, tag: int) -> None:
        """Raise AlreadySettled for a delivery that can't be settled."""
        if self.lost is not None:
            raise AlreadySettled(f"delivery {tag} came over a channel that is gone ({self.lost}); it will come again")
        if tag not in self.open:
            raise AlreadySettled(f"delivery {tag} was settled before, or was delivered with no_ack")

    def _close(self, tag: int, multiple: bool) -> None:
        if multiple:
            for known in [known for known in self.open if known <= tag]:
                del self.open[known]
        else:
            del self.open[tag]

    def flush(self) -> None:
        """Send the acks that were gathered."""
        acks = self._acks
        if not acks or self.lost is not None:
            return
        # Tags are put in as they rise, so the first that is open is the smallest. What is settled below it
        # can be acked as one: everything there was acked now or settled before. Later tags are larger.
        first = next(iter(self.open), None)
        below = [tag for tag in acks if first is None or tag < first]
        if below:
            self._write(hot.encode_ack(self._channel, max(below), True))
        if len(below) < len(acks):
            self._write(b"".join([hot.encode_ack(self._channel, tag, False) for tag in acks if tag > first]))  # type: ignore[operator] # some are open, so first is a number
        acks.clear()

    def give_back(self, consumer: "Consumer | None") -> None:
        """Return all that is open of one consumer to its queue."""
        for tag in [tag for tag, owner in self.open.items() if owner is consumer]:
            self.nack(tag, False, True)


class Delivery:
    """A message that was delivered, or got; to be settled once by `ack`, `nack` or `reject`."""

    __slots__ = ("_arguments", "_destination_at", "_header", "_properties", "_settlements", "body", "consumer_tag",
                 "delivery_tag", "redelivered")  # fmt: skip

    def __init__(
        self,
        settlements: Settlements,
        arguments: bytes,
        destination_at: int,
        delivery_tag: int,
        redelivered: bool,
        consumer_tag: str,
        header: bytes,
        body: bytes,
    ) -> None:
        self.body = body
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.consumer_tag = consumer_tag
        self._settlements = settlements
        self._arguments = arguments
        self._destination_at = destination_at
        self._header = header
        self._properties: Properties | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self.delivery_tag} from {self.exchange!r} key {self.routing_key!r}, {len(self.body)} bytes>"

    @property
    def properties(self) -> Properties:
        """The message's properties, decoded when first asked for. Raises ProtocolViolation where malformed."""
        if self._properties is None:
            self._properties = decode_header(self._header)
        return self._properties

    @property
    def header(self) -> bytes:
        """The content header's payload, as it came."""
        return self._header

    @property
    def exchange(self) -> str:
        """The exchange that the message was published to."""
        at = self._destination_at
        return decode_text(self._arguments[at + 1 : at + 1 + self._arguments[at]])

    @property
    def routing_key(self) -> str:
        """The routing key that the message was published with."""
        at = self._destination_at + 1 + self._arguments[self._destination_at]
        return decode_text(self._arguments[at + 1 : at + 1 + self._arguments[at]])

    def ack(self, *, multiple: bool = False) -> None:
        """Acknowledge this delivery; with `multiple`, all before it on its channel too.

        Sent at the end of this turn of the event loop. Raises AlreadySettled where it was settled, or came
        over a channel or connection that is gone (the broker then delivers it again).
        """
        self._settlements.ack(self.delivery_tag, multiple)

    @property
    def is_lost(self) -> bool:
        """Whether the channel that brought it is gone, so that the broker delivers it again."""
        return self._settlements.lost is not None

    @property
    def is_open(self) -> bool:
        """Whether this delivery can be settled: it needs an acknowledgement, has none yet, and its channel is open."""
        return self._settlements.lost is None and self.delivery_tag in self._settlements.open

    def check_open(self) -> None:
        """Raise AlreadySettled where it can't be settled any more; for `rabbitry.amqp.client.blocking`."""
        self._settlements.check(self.delivery_tag)

    def nack(self, *, requeue: bool = True, multiple: bool = False) -> None:
        """Requeue this delivery, or have it dropped or dead-lettered. Raises as `ack` does."""
        self._settlements.nack(self.delivery_tag, multiple, requeue)

    def reject(self, *, requeue: bool = True) -> None:
        """Requeue this one delivery, or have it dropped or dead-lettered. Raises as `ack` does."""
        self._settlements.reject(self.delivery_tag, requeue)

    def process(self, *, requeue: Requeue = False, requeue_once: bool = False) -> Processing:
        """Acknowledge this delivery at the end of an `async with` block, or reject it where the block raises.

        The exception is passed on. A delivery that the block has settled itself, or whose channel is closed, is left
        alone. Cancelling the block (CancelledError, KeyboardInterrupt) always requeues the message.

        Args:
            requeue: whether a rejected message returns to its queue; exception classes requeue it for these exceptions
                alone. A message that is not requeued is dropped, or dead-lettered where its queue says so.
            requeue_once: reject a redelivered message without requeuing it.
        """
        return Processing(self, requeue, requeue_once)


class Consumer:
    """One consumer: an async context manager, and an async iterator over its deliveries.

    Leaving the block cancels the consumer and gives back what was not settled. The iteration ends when the
    consumer is cancelled by us; it raises ConsumerCancelled when the broker cancelled it, and ChannelClosed
    or ConnectionClosed when its channel is gone.
    """

    def __init__(
        self,
        channel: "Channel",
        queue: str,
        tag: str,
        no_ack: bool,
        exclusive: bool,
        arguments: Table | None,
        restore: bool,
    ) -> None:
        self.queue = queue
        self.consumer_tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.arguments = arguments
        self.restore = restore
        self.gives_back = True
        self._channel = channel
        self._buffer: deque[Delivery] = deque()
        self._low = 0
        self._waiter: asyncio.Future[None] | None = None
        self._end: RabbitryError | None = None
        self._ended = False
        self._is_leaving = False
        """Whether it is cancelled, and may still get what the broker sends before it answers."""
        self._entered = False
        self._holding = False
        self.has_started = False
        """Whether the broker has agreed: from then on an auto-delete queue goes with its last consumer."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, *, timeout: float | None = None) -> None:
        """Start consuming; what entering the block does. timeout: seconds, as for the channel's methods."""
        if self._entered:
            raise UsageError("a consumer can be entered once; ask the channel for another one")
        self._entered = True
        await self._channel.start_consumer(self, timeout)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.cancel()
        else:
            with contextlib.suppress(RequestTimeout):  # the error is what counts
                await self.cancel(timeout=LEAVE_TIMEOUT)

    async def cancel(self, *, give_back: bool = True, timeout: float | None = None) -> None:
        """Stop consuming and give back what was not settled. Does nothing where it has ended already.

        give_back: False leaves what was not settled to the caller, who still may ack it over the open channel; the
        iteration ends after what the broker sent before it answered.
        timeout: seconds, as for the channel's methods; RequestTimeout past it. Cancelling leaves it to the
        broker: the request is sent.
        """
        if self.has_ended:
            return
        check_loop(self._channel.loop, self._channel.connection)
        self.gives_back = give_back
        if give_back:
            self.end(None)
        self._is_leaving = True
        try:
            with contextlib.suppress(Closed):  # then it is as gone as it can be
                await self._channel.stop_consumer(self, timeout)
        finally:
            self._ended = True
            self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while not self._buffer:
            check_loop(self._channel.loop, self._channel.connection)
            if self._ended:
                if self._end is not None:
                    raise self._end.fresh() if isinstance(self._end, Closed) else self._end
                raise StopAsyncIteration
            if not self._entered:
                raise UsageError("iterate within `async with channel.consume(…) as deliveries:`")
            if self._waiter is not None:
                raise UsageError("another task is iterating over this consumer; give each task a consumer of its own")
            self._waiter = self._channel.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        delivery = self._buffer.popleft()
        if self._holding and len(self._buffer) <= self._low:
            self._release()
        return delivery

    # -- for the channel -------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery from the link; one that comes after the end stays open and is given back at cancel-ok."""
        if self._ended:
            return
        self._buffer.append(delivery)
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
        elif len(self._buffer) >= _BUFFER_MESSAGES and not self._holding:
            self._hold()

    def measure(self) -> None:
        """Hold reading where the buffer has its bytes: a prefetch allows so much, or there is none."""
        if not self._holding:
            size = sum(len(delivery.body) + len(delivery.header) for delivery in self._buffer)
            if size >= _BUFFER_BYTES:
                self._hold()

    def _hold(self) -> None:
        self._low = len(self._buffer) // 2
        self._holding = True
        self._channel.hold_reading(self)

    def _release(self) -> None:
        if self._holding:
            self._holding = False
            self._channel.release_reading(self)

    @property
    def has_ended(self) -> bool:
        """Whether it was cancelled, or its channel is gone: it must not be started again."""
        return self._ended or self._is_leaving

    def drop_buffer(self) -> None:
        """Forget what was not taken: its link is gone, or it goes back to the queue."""
        self._buffer.clear()
        self._release()

    def end(self, error: RabbitryError | None) -> None:
        """End the iteration, with `error` after what is in the buffer."""
        if not self._ended:
            self._ended = True
            self._end = error
        self._release()  # nothing more comes
        if not isinstance(error, ConsumerCancelled):
            self.drop_buffer()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
