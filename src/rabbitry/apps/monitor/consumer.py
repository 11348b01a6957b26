"""The samples of contract `system_info` as they come, for programs that show them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

from rabbitry.amqp.client import BrokerURL, Connection, Delivery, RecoveryEvent
from rabbitry.apps._connected import run_connected
from rabbitry.apps.monitor.names import CONSUMER_QUEUE, SYSTEM_INFO
from rabbitry.flow.wiring.declarer import Declarer

PREFETCH = 200
"""Messages that may wait here for a slow reader; the others wait on the broker."""
LONGEST: Final = 10_000
"""Messages that wait on the broker, which drops the oldest beyond them: a slow reader gets what is now."""
LARGEST: Final = 32_000_000
"""Bytes that wait on the broker."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The feed is connected; messages come from now on."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is lost, and why; the feed tries again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came: hostile until parsed."""

    body: bytes
    routing_key: str


class SampleFeed:
    """Messages of an exchange and the state of the connection, in the order in which they came.

    `async with SampleFeed(url) as feed: async for event in feed: …`. The iteration ends only by an exception:
    LoginRefused or VirtualHostRefused, ConnectFailed past `connect_attempts`, PreconditionFailed with `strict`,
    AccessRefused if this user may not read there, or any other error that ends the feed. Cancelling a reader
    loses no event; leaving the block closes the connection, and with it the queue.
    """

    def __init__(
        self,
        url: str | BrokerURL,
        *,
        exchange: str = SYSTEM_INFO.name,
        queue: str = CONSUMER_QUEUE,
        strict: bool = False,
        connect_attempts: int | None = None,
    ) -> None:
        """Create a feed that connects when its block is entered.

        `strict`: raise PreconditionFailed if the exchange exists with other flags, instead of using it as it is.
        connect_attempts: how often to try to connect at the start; None for ever.
        """
        self._url = url
        self._exchange = exchange
        self._queue = queue
        self._declarer = Declarer(strict=strict)
        self._connect_attempts = connect_attempts
        self._own_queue = queue
        """The name of the queue that this connection has."""
        self._events = _Events()

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
            await run_connected(
                self._url,
                self._receive,
                name="rabbitry page",
                stop=asyncio.Event(),
                connect_attempts=self._connect_attempts,
                declare=self._declare,
                on_recovery=self._told,
            )
        except Exception as error:  # noqa: BLE001 - raised where the events are read: without it a reader waits for ever
            self._events.put(error)

    def _told(self, event: RecoveryEvent) -> None:
        self._events.put(Connected() if event.kind == "recovered" else Lost(str(event.error)))

    async def _declare(self, connection: Connection) -> None:
        # After a loss another program may have the queue's name, and then this one gets another queue.
        async with await connection.channel() as channel:
            await self._declarer.exchange(channel, self._exchange, SYSTEM_INFO.type, durable=SYSTEM_INFO.durable)
            bounds = {"x-max-length": LONGEST, "x-max-length-bytes": LARGEST}
            self._own_queue = await self._declarer.exclusive_queue(channel, self._queue, bounds)
            await channel.bind_queue(self._own_queue, self._exchange)

    async def _receive(self, connection: Connection) -> None:
        channel = await connection.channel(prefetch=PREFETCH)
        async with channel.consume(self._own_queue) as deliveries:
            self._events.put(Connected())
            async for delivery in deliveries:
                self._events.put(delivery)


class _Events:
    """The events that the reader has not taken yet, in order.

    Bounded: those of one connection by the channel's prefetch, since messages are acked when they are taken. If
    several connections were lost meanwhile, only those of the first and of the last one are kept.
    """

    def __init__(self) -> None:
        self._waiting: deque[Connected | Lost | Delivery | Exception] = deque()
        self._filled = asyncio.Event()

    def put(self, event: Connected | Lost | Delivery | Exception) -> None:
        """Add an event; a loss replaces the one before it that waits, with all that came between them."""
        waiting = self._waiting
        if isinstance(event, Lost) and any(isinstance(known, Lost) for known in waiting):
            while not isinstance(waiting.pop(), Lost):
                pass
        waiting.append(event)
        self._filled.set()

    async def get(self) -> Connected | Lost | Received | Exception:
        """Wait for the next event and take it. Cancelling loses none."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        event = self._waiting.popleft()
        if not isinstance(event, Delivery):
            return event
        if event.is_open:  # else its connection is gone, and with it the queue
            event.ack()
        return Received(event.body, event.routing_key)
