"""Consuming: iterators over the deliveries of one queue or several."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

from rabbitry.amqp.client._channel import LEAVE_TIMEOUT
from rabbitry.amqp.client._settlements import Delivery
from rabbitry.amqp.client._subscription import Subscription
from rabbitry.amqp.client._subscriptions import Subscriptions
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import Closed, RabbitryError, RequestTimeout, UsageError

__all__ = ["Consumer", "Consumers", "Delivery"]

_AHEAD: Final = 100
"""Deliveries queued for the iteration, of all consumers together; the others stay in each consumer's buffer."""


class Consumer:
    """One consumer: an async context manager, and an async iterator over its deliveries.

    Created by `Channel.consume`. Entering the block starts it. Leaving the block cancels it and requeues unsettled
    deliveries. The iteration ends when this program cancels the consumer; it raises ConsumerCancelled when the broker
    cancels it, and ChannelClosed or ConnectionClosed when its channel is closed.
    """

    def __init__(self, host: Subscriptions, subscription: Subscription) -> None:
        self._host = host
        self._subscription = subscription
        self._buffer = subscription.buffer

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self._subscription.queue

    @property
    def consumer_tag(self) -> str:
        """The consumer's tag on its channel."""
        return self._subscription.tag

    @property
    def no_ack(self) -> bool:
        """Whether the broker counts deliveries as acknowledged once they are sent."""
        return self._subscription.no_ack

    @property
    def exclusive(self) -> bool:
        """Whether it is the queue's only consumer (exclusive)."""
        return self._subscription.exclusive

    @property
    def arguments(self) -> Table | None:
        """The arguments of its basic.consume."""
        return self._subscription.arguments

    @property
    def restore(self) -> bool:
        """Whether it is restarted when the broker cancels it."""
        return self._subscription.restore

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, *, timeout: float | None = None) -> None:
        """Start consuming, as entering the block does.

        Args:
            timeout: Seconds for the broker's answer; None for the connection's `request_timeout`.

        Raises:
            UsageError: The consumer was started before.
            ChannelClosed: The broker refuses: the queue does not exist, or another consumer is exclusive.
            ConnectionClosed: The connection is closed.
            RequestTimeout: The answer did not come in time.
        """
        if self._subscription.is_entered:
            raise UsageError("a consumer can be entered once; ask the channel for another one")
        self._subscription.is_entered = True
        await self._host.start(self._subscription, timeout)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.cancel()
        else:
            with contextlib.suppress(RequestTimeout):  # the block's error is the one to raise
                await self.cancel(timeout=LEAVE_TIMEOUT)

    async def cancel(self, *, give_back: bool = True, timeout: float | None = None) -> None:
        """Stop consuming and requeue unsettled deliveries. Does nothing if the consumer has ended already.

        When cancelled, it leaves the rest to the broker: the request is sent.

        Args:
            give_back: False leaves unsettled deliveries to the caller, which may still acknowledge them over the open
                channel; the iteration ends after the deliveries that the broker sent before its answer.
            timeout: Seconds, as for the channel's methods; RequestTimeout past it.
        """
        subscription = self._subscription
        if subscription.has_ended:
            return
        self._host.check_loop()
        subscription.leave(give_back=give_back)
        try:
            with contextlib.suppress(Closed):  # then the consumer is gone too
                await self._host.stop(subscription, timeout)
        finally:
            subscription.left()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        subscription = self._subscription
        while not self._buffer:
            await subscription.wait()
        delivery = self._buffer.popleft()
        if subscription.is_holding:
            subscription.taken()
        return delivery


class Consumers:
    """The consumers of several queues: an async context manager, and an async iterator over the deliveries of all.

    Made by `Channel.consume_all`. Leaving the block cancels the consumers and returns unsettled deliveries to their
    queues. The iteration ends with the error of the first consumer that fails: ConsumerCancelled, ChannelClosed or
    ConnectionClosed.
    """

    def __init__(self, consumers: list[Consumer]) -> None:
        self._consumers = consumers
        self._arrived: asyncio.Queue[Delivery | RabbitryError | None] = asyncio.Queue(_AHEAD)
        """None: a consumer was cancelled."""
        self._left = len(consumers)
        """How many of them are not cancelled."""
        self._feeding: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self._error: RabbitryError | None = None

    @property
    def queue(self) -> str:
        """The names of the queues, separated by commas, for error messages."""
        return ", ".join(consumer.queue for consumer in self._consumers)

    @property
    def no_ack(self) -> bool:
        """Whether the broker counts deliveries as acknowledged once they are sent."""
        return any(consumer.no_ack for consumer in self._consumers)

    async def __aenter__(self) -> Self:
        if self._feeding:
            raise UsageError("consumers can be entered once; ask the channel for others")
        async with contextlib.AsyncExitStack() as stack:  # cancels the started consumers if a later one fails
            for consumer in self._consumers:
                await stack.enter_async_context(consumer)
            self._stack = stack.pop_all()
        self._feeding = [
            asyncio.create_task(self._feed(consumer), name=f"deliveries of {consumer.queue}")
            for consumer in self._consumers
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop_feeding()
        await self._stack.__aexit__(kind, error, traceback)

    async def cancel(self, *, give_back: bool = True, timeout: float | None = None) -> None:
        """Stop consuming from all queues and requeue unsettled deliveries. Does nothing if they have ended already.

        Arguments and errors are those of `Consumer.cancel`.
        """
        if give_back:
            await self._stop_feeding()  # first: what it has taken already is requeued as well
        try:
            cancelling = [consumer.cancel(give_back=give_back, timeout=timeout) for consumer in self._consumers]
            results = await asyncio.gather(*cancelling, return_exceptions=True)
        finally:
            if give_back:
                while not self._arrived.empty():
                    self._arrived.get_nowait()
                self._left = 1
                self._arrived.put_nowait(None)
        for failure in results:
            if failure is not None:
                raise failure

    async def _feed(self, consumer: Consumer) -> None:
        try:
            async for delivery in consumer:
                await self._arrived.put(delivery)
        except RabbitryError as error:
            await self._arrived.put(error)
        else:
            await self._arrived.put(None)

    async def _stop_feeding(self) -> None:
        for task in self._feeding:
            task.cancel()
        if self._feeding:
            await asyncio.wait(self._feeding)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        if not self._feeding:
            raise UsageError("iterate within `async with channel.consume_all(…) as deliveries:`")
        while self._error is None:
            if not self._left:
                raise StopAsyncIteration
            arrived = await self._arrived.get()
            if arrived is None:
                self._left -= 1
            elif isinstance(arrived, RabbitryError):
                self._error = arrived
            elif not arrived.is_lost or self.no_ack:  # the broker redelivers a lost one
                return arrived
        raise self._error
