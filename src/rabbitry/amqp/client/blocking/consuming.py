"""Consuming in scripts: deliveries that any thread may settle, and an iterator over them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rabbitry.amqp.client._settlements import Delivery, Requeue, Settling, check_open
from rabbitry.amqp.client.consuming import Consumer, Consumers
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import AlreadySettled, ChannelClosed, Closed, RabbitryError, RequestTimeout, UsageError
from rabbitry.runtime.io_thread import IOThread

_INBOX_MESSAGES: Final = 10_000
_INBOX_BYTES: Final = 64 << 20
_logger = logging.getLogger(__name__)


class BlockingProcessing(Settling):
    """The block of one delivery, for `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(error)


class BlockingDelivery:
    """A message from a consumer or from `get`, to be settled once with `ack`, `nack` or `reject`, from any thread."""

    __slots__ = ("_delivery", "_io", "_is_settled")

    def __init__(self, delivery: Delivery, io: IOThread) -> None:
        self._delivery = delivery
        self._io = io
        self._is_settled = False

    def __repr__(self) -> str:
        return repr(self._delivery)

    @property
    def consumer_tag(self) -> str:
        """The tag of the consumer that received the message; empty for `get`."""
        return self._delivery.consumer_tag

    @property
    def header(self) -> bytes:
        """The undecoded payload of the content header."""
        return self._delivery.header

    @property
    def body(self) -> bytes:
        """The message's body."""
        return self._delivery.body

    @property
    def properties(self) -> Properties:
        """The message's properties. Raises ProtocolViolation if they are malformed."""
        return self._delivery.properties

    @property
    def exchange(self) -> str:
        """The exchange that the message was published to."""
        return self._delivery.exchange

    @property
    def routing_key(self) -> str:
        """The routing key that the message was published with."""
        return self._delivery.routing_key

    @property
    def delivery_tag(self) -> int:
        """The delivery's number on its channel."""
        return self._delivery.delivery_tag

    @property
    def redelivered(self) -> bool:
        """Whether the message was delivered before."""
        return self._delivery.redelivered

    @property
    def is_lost(self) -> bool:
        """Whether its channel is closed, so that the broker redelivers it."""
        return self._delivery.is_lost

    @property
    def is_open(self) -> bool:
        """Whether this delivery can be settled: it needs an acknowledgement, has none yet, and its channel is open."""
        return not self._is_settled and self._delivery.is_open

    def ack(self, *, multiple: bool = False) -> None:
        """Acknowledge this delivery; with `multiple`, also all before it on its channel.

        Raises:
            AlreadySettled: It is settled, or its channel or connection is closed.
        """
        self._settle(functools.partial(self._delivery.ack, multiple=multiple))

    def nack(self, *, requeue: bool = True, multiple: bool = False) -> None:
        """Return this delivery to the broker, which requeues it and delivers it again. Raises as `ack` does.

        Args:
            requeue: False has the broker drop or dead-letter it.
            multiple: Whether all unsettled deliveries before it on its channel are returned too.
        """
        self._settle(functools.partial(self._delivery.nack, requeue=requeue, multiple=multiple))

    def reject(self, *, requeue: bool = True) -> None:
        """Return this one delivery to the broker, which requeues it and delivers it again. Raises as `ack` does.

        Args:
            requeue: False has the broker drop or dead-letter it.
        """
        self._settle(functools.partial(self._delivery.reject, requeue=requeue))

    def process(self, *, requeue: Requeue = False, requeue_once: bool = False) -> BlockingProcessing:
        """Acknowledge this delivery at the end of a `with` block, or reject it if the block raises.

        The exception is passed on; KeyboardInterrupt always requeues the message. Arguments as for `Delivery.process`.
        """
        return BlockingProcessing(self, requeue, requeue_once=requeue_once)

    def _settle(self, settle: Callable[[], None]) -> None:
        if self._is_settled:
            raise AlreadySettled(f"delivery {self.delivery_tag} is settled already")
        check_open(self._delivery)
        self._is_settled = True
        self._io.post(functools.partial(_quietly, settle))


def _quietly(settle: Callable[[], None]) -> None:
    """Settle in the I/O thread. If the channel was closed since the caller's check, the broker redelivers."""
    try:
        settle()
    except AlreadySettled as error:
        _logger.info("%s", error)


class _Deliveries:
    """A block that consumes, and an iterator over its deliveries."""

    def __init__(self, consumer: Consumer | Consumers, io: IOThread, channel: object) -> None:
        """channel: the consumers' channel, kept alive as long as they are."""
        self._inner = consumer
        self._io = io
        self._channel = channel
        self._inbox: queue.SimpleQueue[BlockingDelivery | None] = queue.SimpleQueue()
        self._error: RabbitryError | None = None
        self._pump: asyncio.Task[None] | None = None
        self._may_go_on = asyncio.Event()
        self._is_held = False
        self._low = 0

    def __enter__(self) -> Self:
        self._io.run(self._enter())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._io.run_at_end(self._leave(error))

    @property
    def queue(self) -> str:
        """The name of the queue; of several, separated by commas."""
        return self._inner.queue

    @property
    def no_ack(self) -> bool:
        """Whether the broker counts deliveries as acknowledged once they are sent."""
        return self._inner.no_ack

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BlockingDelivery:
        return self.next()

    def next(self, timeout: float | None = None) -> BlockingDelivery:
        """Wait for the next delivery, for `timeout` seconds (None: no limit).

        Deliveries buffered here when the connection was lost are skipped: the broker redelivers them. Raises
        RequestTimeout after `timeout`, StopIteration when the consumer was cancelled here.
        """
        if self._pump is None:
            raise UsageError("iterate within `with channel.consume(…) as deliveries:`, or consume_all(…)")
        deadline = None if timeout is None else time.monotonic() + timeout
        delivery = self._take(timeout)
        while delivery.is_lost and not self._inner.no_ack:
            delivery = self._take(None if deadline is None else max(deadline - time.monotonic(), 0))
        return delivery

    def _take(self, timeout: float | None) -> BlockingDelivery:
        try:
            delivery = self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise RequestTimeout(f"no delivery within {timeout} s") from None
        if self._is_held and self._inbox.qsize() <= self._low:
            self._is_held = False
            self._io.post(self._may_go_on.set)
        if delivery is None:
            self._inbox.put(None)  # for other threads, and later calls
            if self._error is None:
                raise StopIteration
            raise self._error.fresh() if isinstance(self._error, Closed) else self._error
        return delivery

    def cancel(self, *, give_back: bool = True, timeout: float | None = None) -> None:
        """Stop consuming and requeue unsettled deliveries. Does nothing if it has ended already.

        Another thread may call it to end the iteration: with `give_back=False` after what the broker has sent.
        Arguments and errors are those of `Consumer.cancel`.
        """
        self._io.run(self._cancel(give_back=give_back, timeout=timeout))

    async def _cancel(self, *, give_back: bool, timeout: float | None) -> None:
        if give_back:
            await self._end()
        await self._inner.cancel(give_back=give_back, timeout=timeout)

    async def _enter(self) -> None:
        await self._inner.__aenter__()
        self._begin()

    def _begin(self) -> None:
        self._pump = asyncio.create_task(self._hand_over(), name=f"deliveries of {self._inner.queue}")

    async def _leave(self, error: BaseException | None) -> None:
        await self._end()
        await self._inner.__aexit__(None if error is None else type(error), error, None)

    async def _end(self) -> None:
        """End the iteration without what is in the inbox, which the consumer requeues."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait((self._pump,))
            with contextlib.suppress(queue.Empty):
                while True:
                    self._inbox.get_nowait()
            self._inbox.put(None)

    async def _hand_over(self) -> None:
        inbox, io = self._inbox, self._io
        sizes: deque[int] = deque()  # of the deliveries in the inbox, and of those taken since the last check
        total = 0
        try:
            async for delivery in self._inner:
                inbox.put(BlockingDelivery(delivery, io))
                size = len(delivery.body) + len(delivery.header)
                sizes.append(size)
                total += size
                if total < _INBOX_BYTES and len(sizes) < _INBOX_MESSAGES:
                    continue
                waiting = inbox.qsize()
                while len(sizes) > waiting:
                    total -= sizes.popleft()
                if total >= _INBOX_BYTES or waiting >= _INBOX_MESSAGES:
                    self._may_go_on.clear()
                    self._low = waiting // 2
                    self._is_held = True
                    # A thread that takes a delivery after this line sees the hold; one that took it before is counted
                    # here.
                    if inbox.qsize() > self._low:
                        await self._may_go_on.wait()
        except RabbitryError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - the iterator raises it: nobody awaits this task
            self._error = ChannelClosed(0, f"the consumer of {self._inner.queue!r} failed: {error!r}")
            self._error.__cause__ = error
        finally:
            inbox.put(None)


class BlockingConsumer(_Deliveries):
    """One consumer: a context manager, and an iterator over its deliveries.

    Leaving the block cancels the consumer and requeues unsettled deliveries. The iteration raises ConsumerCancelled
    when the broker cancels it, ChannelClosed or ConnectionClosed when its channel is closed.
    """

    def __init__(self, consumer: Consumer, io: IOThread, channel: object) -> None:
        """channel: the consumer's channel, kept alive as long as it is."""
        super().__init__(consumer, io, channel)
        self._consumer = consumer

    @property
    def consumer_tag(self) -> str:
        """The consumer's tag on its channel."""
        return self._consumer.consumer_tag

    @property
    def exclusive(self) -> bool:
        """Whether it is the queue's only consumer (exclusive)."""
        return self._consumer.exclusive

    @property
    def arguments(self) -> Table | None:
        """The arguments of its basic.consume."""
        return self._consumer.arguments

    @property
    def restore(self) -> bool:
        """Whether it is restarted when the broker cancels it."""
        return self._consumer.restore

    def start(self, *, timeout: float | None = None) -> None:
        """Start consuming, as entering the block does.

        Args:
            timeout: Seconds, as for the channel's methods.
        """
        self._io.run(self._start(timeout))

    async def _start(self, timeout: float | None) -> None:
        await self._consumer.start(timeout=timeout)
        self._begin()


class BlockingConsumers(_Deliveries):
    """The consumers of several queues: a context manager, and an iterator over the deliveries of all.

    Created by `BlockingChannel.consume_all`. Leaving the block cancels the consumers and requeues unsettled deliveries.
    The iteration raises the error of the first consumer that fails.
    """
