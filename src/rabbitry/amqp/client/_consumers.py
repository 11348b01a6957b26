"""The consumers of several queues as one iteration."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

from rabbitry.amqp.client.consuming import Consumer, Delivery
from rabbitry.exceptions import RabbitryError, UsageError

_AHEAD: Final = 100
"""Deliveries queued for the iteration, of all consumers together; the rest stay in each consumer's own buffer."""


class Consumers:
    """The consumers of several queues: an async context manager, and an async iterator over the deliveries of all.

    Made by `Channel.consume_all`. Leaving the block cancels the consumers and returns unsettled deliveries to their
    queues. The iteration ends with the error of the first consumer that fails: ConsumerCancelled, ChannelClosed or
    ConnectionClosed.
    """

    def __init__(self, consumers: list[Consumer]) -> None:
        self._consumers = consumers
        self._arrived: asyncio.Queue[Delivery | RabbitryError] = asyncio.Queue(_AHEAD)
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
        for task in self._feeding:
            task.cancel()
        if self._feeding:
            await asyncio.wait(self._feeding)
        await self._stack.__aexit__(kind, error, traceback)

    async def _feed(self, consumer: Consumer) -> None:
        try:
            async for delivery in consumer:
                await self._arrived.put(delivery)
        except RabbitryError as error:
            await self._arrived.put(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        if not self._feeding:
            raise UsageError("iterate within `async with channel.consume_all(…) as deliveries:`")
        while self._error is None:
            arrived = await self._arrived.get()
            if isinstance(arrived, RabbitryError):
                self._error = arrived
            elif not arrived.is_lost or self.no_ack:  # the broker delivers a lost one again
                return arrived
        raise self._error
