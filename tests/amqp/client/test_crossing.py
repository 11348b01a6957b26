"""Both sides close at the same time, and the broker's last method arrives in one chunk with its close."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol.methods import (
    BasicCancel,
    BasicConsume,
    BasicQos,
    ChannelClose,
    ChannelCloseOk,
    ChannelFlow,
    ChannelOpen,
    ConnectionClose,
    ConnectionCloseOk,
    Method,
    QueueDeclare,
)
from tests.support.scripted import ScriptedBroker, ScriptedLink
from tests.support.waiting import eventually

_CLOSES = (ChannelClose, ChannelCloseOk)
_MISSING = ChannelClose(404, "NOT_FOUND - no queue 'missing' in vhost '/'", 50, 10)


class _Crossing(ScriptedLink):
    """Refuses a request, but sends the refusal only with its answer to the close that the client sends meanwhile."""

    refused: type[Method] = QueueDeclare
    refusal: Method = _MISSING

    def __init__(self, frame_max: int) -> None:
        super().__init__(frame_max)
        self.told: list[Method] = []
        self.kept = b""

    def _on_method(self, channel: int, method: Method) -> None:
        self.told.append(method)
        if isinstance(method, self.refused) and not self.kept:
            number = 0 if isinstance(self.refusal, ConnectionClose) else channel
            self.kept = self.core.send_method(number, self.refusal)
        elif isinstance(method, ChannelClose) and self.kept:
            self.driver.write(self.kept + self.core.send_method(channel, ChannelCloseOk()))
        elif isinstance(method, ConnectionClose) and self.kept:
            self.driver.write(self.kept + self.core.send_method(0, ConnectionCloseOk()))
        else:
            super()._on_method(channel, method)


@asynccontextmanager
async def _errors_of_the_loop() -> AsyncIterator[list[dict[str, Any]]]:
    """The event loop's unhandled errors, of which there must be none."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(None)
    assert found == []


async def _declare(channel: Channel) -> None:
    await channel.declare_queue("missing", passive=True)


async def _consume(channel: Channel) -> None:
    await channel.consume("missing").start()


@pytest.mark.parametrize(("refused", "request_it"), [(QueueDeclare, _declare), (BasicConsume, _consume)])
async def test_a_channel_whose_request_is_refused_while_it_is_closed(
    no_leaks: None, refused: type[Method], request_it: Callable[[Channel], Any]
) -> None:
    class Link(_Crossing):
        pass

    Link.refused = refused
    async with _errors_of_the_loop(), ScriptedBroker(Link) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        asking = asyncio.create_task(request_it(channel))
        await eventually(lambda: broker.links[0].kept, "the refusal")  # type: ignore[attr-defined] # a Link
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await channel.close()
        again = await connection.channel()
        assert again.number == channel.number  # free, once the broker has answered
        await again.declare_queue("q")
        assert connection.is_open
        told = [type(method) for method in broker.links[0].told if type(method) in _CLOSES]  # type: ignore[attr-defined] # a Link
    assert told == [ChannelClose, ChannelCloseOk]


@pytest.mark.parametrize("refused", [ChannelOpen, BasicQos])
async def test_an_opening_that_is_given_up_while_it_is_refused(no_leaks: None, refused: type[Method]) -> None:
    class Link(_Crossing):
        pass

    Link.refused = refused
    async with _errors_of_the_loop(), ScriptedBroker(Link) as broker, rabbitry.connect(broker.url) as connection:
        opening = asyncio.create_task(connection.channel())
        await eventually(lambda: broker.links and broker.links[0].kept, "the refusal")  # type: ignore[attr-defined] # a Link
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await eventually(
            lambda: not connection._session.link or not connection._session.link.channels, "the number is free"
        )
        assert (await connection.channel()).number == 1


async def test_both_sides_close_the_connection(no_leaks: None) -> None:
    class Link(_Crossing):
        refusal = ConnectionClose(504, "CHANNEL_ERROR")

    async with _errors_of_the_loop(), ScriptedBroker(Link) as broker:
        connection = await rabbitry.connect(broker.url)
        channel = await connection.channel()
        asking = asyncio.create_task(_declare(channel))
        await eventually(lambda: broker.links[0].kept, "the refusal")  # type: ignore[attr-defined] # a Link
        await connection.close()
        with pytest.raises(rabbitry.ConnectionClosed):
            await asking
        await eventually(lambda: broker.links[0].lost, "the end of the socket")
        assert ConnectionCloseOk() in broker.links[0].told  # type: ignore[attr-defined] # a Link


@pytest.mark.parametrize("close", [_MISSING, ConnectionClose(320, "CONNECTION_FORCED")])
@pytest.mark.parametrize("before", [ChannelFlow(True), BasicCancel("tag", nowait=False)])
async def test_a_request_of_the_broker_may_come_with_its_close(
    no_leaks: None, before: Method, close: ChannelClose | ConnectionClose
) -> None:
    async with _errors_of_the_loop(), ScriptedBroker() as broker:
        connection = await rabbitry.connect(broker.url, recover=False)
        channel = await connection.channel()
        link = broker.links[0]
        link.send(channel.number, before)
        link.send(0 if isinstance(close, ConnectionClose) else channel.number, close)
        await eventually(lambda: channel.close_reason, "the close")
        assert str(close.reply_code) in str(channel.close_reason)
        await connection.close()
