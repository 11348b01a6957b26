"""Calls: messages whose results come back to the publisher, over a channel of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.exceptions import ConnectionClosed, RabbitryError
from rabbitry.flow._replies import REPLY_TO, is_progress, value_of
from rabbitry.flow.exceptions import CallTimeout

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery
    from rabbitry.flow.message import Publication

_logger = logging.getLogger(__name__)


class _Call:
    """A call that waits for its reply."""

    def __init__(self, on_progress: Callable[[Any], None] | None) -> None:
        self.reply: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self.on_progress = on_progress


class Calls:
    """The calls of one publisher. Direct reply-to has a request and its reply on the same channel.

    The channel and its consumer are made for the first call, and anew after they failed. `close` ends them.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, _Call] = {}
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def call(
        self,
        identity: str,
        message: Publication,
        *,
        timeout: float,
        type: Any,
        on_progress: Callable[[Any], None] | None,
    ) -> Any:
        """Publish a message, and return the value of its reply; see `Publisher.call`."""
        properties = message.properties
        assert isinstance(properties, Properties)  # noqa: S101 # of `publication_of`; narrows the type
        call = self._waiting[identity] = _Call(on_progress)
        try:
            async with asyncio.timeout(timeout):
                channel = await self._ready()
                await channel.publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=properties._replace(reply_to=REPLY_TO),
                    mandatory=message.mandatory,
                )
                delivery = await call.reply
        except TimeoutError as error:
            if isinstance(error, RabbitryError):
                raise  # of the publish
            raise CallTimeout(
                f"no reply to message {identity} with key {message.routing_key!r} within {timeout:g} s: "
                "it may still be handled"
            ) from None
        finally:
            del self._waiting[identity]
            call.reply.cancel()
        return value_of(delivery, type)

    async def close(self) -> None:
        """Stop waiting for replies."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _ready(self) -> Channel:
        """Return the channel for requests, whose replies are being read."""
        async with self._lock:
            if self._channel is not None and self._task is not None and not self._task.done():
                return self._channel
            channel = await self._connection.channel()
            started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._read(channel, started), name="replies")
            await started
            self._channel = channel
            return channel

    async def _read(self, channel: Channel, started: asyncio.Future[None]) -> None:
        """Pass each reply to the call that waits for it, until `close` or an error, which all waiting calls raise."""
        try:
            async with channel.consume(REPLY_TO, no_ack=True) as replies:
                started.set_result(None)
                async for delivery in replies:
                    with contextlib.suppress(RabbitryError):  # malformed properties: nobody's
                        self._take(delivery)
        except RabbitryError as error:
            self._fail(started, error)
        finally:
            self._fail(started, ConnectionClosed(0, "the publisher was closed before the reply came"))

    def _take(self, delivery: Delivery) -> None:
        properties = delivery.properties
        call = self._waiting.get(properties.correlation_id or "")
        if call is None:
            return  # its time was over
        if not is_progress(properties.headers or {}):
            if not call.reply.done():
                call.reply.set_result(delivery)
        elif call.on_progress is not None:
            try:
                call.on_progress(value_of(delivery))
            except Exception:
                _logger.exception("on_progress of a call failed")

    def _fail(self, started: asyncio.Future[None], error: RabbitryError) -> None:
        futures: list[asyncio.Future[Any]] = [started, *(call.reply for call in self._waiting.values())]
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()  # the call may be over
