"""Calls: messages whose results come back to the publisher, over a channel of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.exceptions import ConnectionClosed, RabbitryError, Undecodable, UsageError
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
    """The calls of one publisher. Direct reply-to requires the request and its reply to share a channel.

    The channel and its consumer are made for the first call, and made again after they failed. A cancelled call ends
    neither. `close` ends both.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, _Call] = {}
        self._channel: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        """The channel for requests, once its replies are being read."""
        self._task: asyncio.Task[None] | None = None

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
        if identity in self._waiting:
            raise UsageError(f"id={identity!r}: another call of this publisher with that id waits for its reply")
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
                    properties=properties._replace(reply_to=REPLY_TO, message_id=identity, correlation_id=identity),
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
        try:
            return value_of(delivery, type)
        except Undecodable as error:
            key = message.routing_key
            raise Undecodable(
                f"the reply to message {identity} with key {key!r} is not of its type: {error}"
            ) from error

    async def close(self) -> None:
        """Stop waiting for replies; calls that wait raise ConnectionClosed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._fail(None)  # a task that is cancelled before its first step does not do it

    async def _ready(self) -> Channel:
        """Return the channel for requests, whose replies are being read."""
        if self._task is None or self._task.done():
            self._channel = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._read(), name="replies")
        return await asyncio.shield(self._channel)  # other calls wait for it too

    async def _read(self) -> None:
        """Pass each reply to the call that waits for it, until `close` or an error, which all waiting calls raise."""
        try:
            channel = await self._connection.channel()
            async with channel.consume(REPLY_TO, no_ack=True) as replies:
                self._channel.set_result(channel)
                async for delivery in replies:
                    with contextlib.suppress(RabbitryError):  # its properties are malformed, so it has no call
                        self._take(delivery)
        except RabbitryError as error:
            self._fail(error)
        finally:
            self._fail(None)

    def _take(self, delivery: Delivery) -> None:
        properties = delivery.properties
        call = self._waiting.get(properties.correlation_id or "")
        if call is None:
            return  # the call has timed out or was cancelled
        if not is_progress(properties.headers or {}):
            if not call.reply.done():
                call.reply.set_result(delivery)
        elif call.on_progress is not None:
            try:
                call.on_progress(value_of(delivery))
            except Exception:
                _logger.exception("on_progress of a call failed")

    def _fail(self, error: RabbitryError | None) -> None:
        """Fail all waiting calls. error: None if the publisher is closed."""
        futures: list[asyncio.Future[Any]] = [self._channel, *(call.reply for call in self._waiting.values())]
        for future in futures:
            if not future.done():
                future.set_exception(error or ConnectionClosed(0, "the publisher was closed before the reply came"))
                future.exception()  # marks it as retrieved: the call may be over
