"""A publishing channel that reopens itself, and is replaced after the broker refused a message over it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from rabbitry.amqp.client import Channel, Connection, Receipt
from rabbitry.exceptions import ChannelClosed, PublishError, PublishRefused, PublishReturned
from rabbitry.flow.message import Publication
from rabbitry.flow.wiring import delays
from rabbitry.flow.wiring.declarer import Declarer

_LEAST_AGE: Final = 0.5
"""Seconds that a channel serves before another one takes its place."""

_logger = logging.getLogger(__name__)


class Outlet:
    """Publishes messages over a channel that it opens again or replaces. For any number of tasks.

    A channel that the broker closed is opened again after the topology was declared. A channel on which the broker
    refused a message is replaced before the next message. The reason: RabbitMQ up to 3.10 looks up the leader of a
    quorum queue once, at the channel's first publish; if the leader's node has just died, RabbitMQ refuses everything
    that this channel publishes until the node is back (rabbit_fifo_client). A new channel looks up the leader again.
    """

    def __init__(self, connection: Connection, channel: Channel, redeclare: Callable[[], Awaitable[object]]) -> None:
        """Publish over `channel`, a channel of `connection`, first; `redeclare` declares the topology."""
        self._connection = connection
        self._channel = channel
        self._redeclare = redeclare
        self._declarer = Declarer()
        self._loop = asyncio.get_running_loop()
        self._replaced: list[Channel] = []
        """Channels with messages that were not confirmed when another one took their place."""
        self._is_refused = False
        self._old_at = self._loop.time() + _LEAST_AGE
        self._lock = asyncio.Lock()
        self._single: Channel | None = None
        """The channel of messages that are sent alone; made for the first."""
        self._is_declared = False
        """Whether the topology is declared, as far as is known, so that such a message can be sent."""
        self._has_delays = False
        """Whether the queues of delays are declared, as far as is known."""
        self._targets: set[str] = set()
        """The queues that are bound for delayed messages, as far as is known."""

    @property
    def frame_limit(self) -> int:
        """Bytes that a message's properties may take."""
        return self._connection.frame_limit

    @property
    def is_alive(self) -> bool:
        """Whether the connection can be used, now or when it has recovered."""
        return self._connection.close_reason is None

    async def send(self, message: Publication) -> Receipt:
        """Publish; the receipt is done when the broker has confirmed. Raises and waits as `Channel.send` does.

        Copies of the message are published first, all at once, and confirmed within this call. A caller that gets
        PublishRefused from the receipt must call `refused`.
        """
        if message.also:
            return await self._send_all(message)
        if self._is_refused or not self._channel.is_open:
            await self._usable()
        if message.exchange in delays.EXCHANGES:
            await self._declare_delays(message.routing_key)
        return await self._channel.send(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=message.properties,
            mandatory=message.mandatory,
        )

    async def _send_all(self, message: Publication) -> Receipt:
        keys = (*message.also, message.routing_key)
        *copies, receipt = [await self.send(message._replace(routing_key=key, also=())) for key in keys]
        await asyncio.wait(copies)  # which does not count as having seen a failure
        if all(copy.failure is None for copy in copies):
            return receipt
        await asyncio.wait((receipt,))  # else its failure would be raised again when the connection's block ends
        failures = [error for each in (*copies, receipt) if (error := each.exception()) is not None]
        if any(isinstance(error, PublishRefused) for error in failures):
            self.refused()
        if any(isinstance(error, PublishReturned) for error in failures):
            self.declare_first()  # a queue of the delays was deleted
        raise failures[0]

    async def send_alone(self, message: Publication) -> None:
        """Publish over a channel that has no other unconfirmed message, and wait for the confirm.

        Raises as `Channel.publish` does. If the broker closes the channel, this message was therefore the cause. Only
        one task may call it.
        """
        for key in message.also:
            await self.send_alone(message._replace(routing_key=key, also=()))
        try:
            if not self._is_declared or self._single is None or not self._single.is_open:
                self._is_declared, self._has_delays = True, False
                await self._redeclare()  # an exchange may have been deleted
            if message.exchange in delays.EXCHANGES:
                await self._declare_delays(message.routing_key)
            if self._single is None:
                self._single = await self._connection.channel()
            await self._single.open()
        except ChannelClosed as error:
            raise PublishError(f"the topology can't be declared again: {error}") from error
        future = await self._single.send(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=message.properties,
            mandatory=message.mandatory,
        )
        await future

    def declare_first(self) -> None:
        """Declare the topology again before the next message is sent alone: a queue is missing."""
        self._is_declared = self._has_delays = False

    def refused(self) -> None:
        """Record that the broker refused a message."""
        self._is_refused = True

    async def wait_for_confirms(self) -> None:
        """Wait until everything sent before is confirmed. Raises what failed since the last call as one group."""
        await self._connection.wait_for_confirms()

    async def _usable(self) -> None:
        async with self._lock:
            channel = self._channel
            if not channel.is_open:
                _logger.warning("the publishing channel was closed (%s); opened again", channel.close_reason)
                self._has_delays = False
                await self._redeclare()
                await channel.open()
            elif self._is_refused and self._loop.time() >= self._old_at:
                _logger.warning("the broker refuses what is published; publishing over another channel from now on")
                self._channel = await self._connection.channel()
                self._replaced.append(channel)
                self._is_refused = False
                self._old_at = self._loop.time() + _LEAST_AGE
                await self._close_replaced()

    async def _declare_delays(self, target: str) -> None:
        """Declare the queues of delays and bind `target`, if that was not done yet."""
        if self._has_delays and target in self._targets:
            return
        async with self._lock:
            if not self._has_delays:  # another task may have declared them meanwhile
                await delays.declare(self._connection, self._declarer)
                self._has_delays = True
                self._targets.clear()
            if target not in self._targets:
                await delays.bind(self._connection, target)
                self._targets.add(target)

    async def _close_replaced(self) -> None:
        for channel in [channel for channel in self._replaced if not channel.has_unconfirmed]:
            self._replaced.remove(channel)
            await channel.close()
