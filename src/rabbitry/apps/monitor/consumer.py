"""The samples of contract `system_info` as they come, for whoever shows them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from rabbitry.amqp.client import BrokerURL, Connection
from rabbitry.apps._session import FOR_EVER, Patience, stay_connected
from rabbitry.apps.monitor.names import CONSUMER_QUEUE, SYSTEM_INFO
from rabbitry.flow.declarer import Declarer

PREFETCH = 200
"""Messages that may wait here for a slow reader; the others wait on the broker."""


@dataclass(frozen=True, slots=True)
class Connected:
    """Messages come from now on."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection, and why; the feed goes on trying."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came: hostile until parsed."""

    body: bytes
    routing_key: str


class SampleFeed:
    """Messages of an exchange and the state of the connection, in the order in which they came.

    `async with SampleFeed(url) as feed: async for event in feed: …`. The iteration ends only by an exception:
    LoginRefused or VirtualHostRefused, ConnectFailed when `patience` ends, PreconditionFailed with `strict`,
    AccessRefused where this user may not read there, or any other error that ends the feed. Cancelling a reader
    loses no event; leaving the block closes the connection, and with it the queue.
    """

    def __init__(
        self,
        url: str | BrokerURL,
        *,
        exchange: str = SYSTEM_INFO.name,
        queue: str = CONSUMER_QUEUE,
        strict: bool = False,
        patience: Patience = FOR_EVER,
    ) -> None:
        """`strict`: an exchange that exists with other flags is an error, and not used as it is."""
        self._url = url
        self._exchange = exchange
        self._queue = queue
        self._declarer = Declarer(strict=strict)
        self._patience = patience
        self._events: asyncio.Queue[Connected | Lost | Received | Exception] = asyncio.Queue(PREFETCH)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="sample feed")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Connected | Lost | Received:
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def _run(self) -> None:
        try:
            await stay_connected(
                self._url,
                self._receive,
                name="rabbitry page",
                stop=asyncio.Event(),
                patience=self._patience,
                lost=lambda reason: self._events.put(Lost(reason)),
            )
        except Exception as error:  # noqa: BLE001 - raised where the events are read: without it a reader waits for ever
            await self._events.put(error)

    async def _receive(self, connection: Connection) -> None:
        channel = await connection.channel(prefetch=PREFETCH)
        await self._declarer.exchange(channel, self._exchange, SYSTEM_INFO.type, durable=SYSTEM_INFO.durable)
        queue = await self._declarer.exclusive_queue(channel, self._queue)
        await channel.bind_queue(queue, self._exchange)
        async with channel.consume(queue) as deliveries:
            await self._events.put(Connected())
            async for delivery in deliveries:
                delivery.ack()
                await self._events.put(Received(delivery.body, delivery.routing_key))
