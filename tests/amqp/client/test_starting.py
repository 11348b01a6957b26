"""RabbitMQ's queue answers basic.consume and basic.cancel, not its channel: later requests may be answered first.

A basic.cancel that comes before the answer to basic.consume ends the connection with 541 INTERNAL_ERROR.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Consumer
from rabbitry.amqp.protocol.methods import BasicCancel, BasicConsume, BasicConsumeOk, Method
from rabbitry.exceptions import RequestTimeout
from tests.support.scripted import ScriptedBroker, ScriptedLink
from tests.support.waiting import eventually


class _Late(ScriptedLink):
    """Answers basic.consume on demand, and everything else at once."""

    def __init__(self, frame_max: int) -> None:
        super().__init__(frame_max)
        self.told: list[Method] = []
        self.late: Callable[[], None] | None = None

    def _on_method(self, channel: int, method: Method) -> None:
        self.told.append(method)
        if isinstance(method, BasicConsume):
            self.late = lambda: self.send(channel, BasicConsumeOk(method.consumer_tag))
        else:
            super()._on_method(channel, method)

    @property
    def is_cancelled(self) -> bool:
        return any(isinstance(method, BasicCancel) for method in self.told)


GiveUp = Callable[["asyncio.Task[None]", Consumer], Awaitable["asyncio.Task[None]"]]


async def _cancel_the_start(starting: "asyncio.Task[None]", consumer: Consumer) -> "asyncio.Task[None]":
    starting.cancel()
    return starting


async def _cancel_the_consumer(starting: "asyncio.Task[None]", consumer: Consumer) -> "asyncio.Task[None]":
    return asyncio.create_task(consumer.cancel())


async def _give_up_cancelling(starting: "asyncio.Task[None]", consumer: Consumer) -> "asyncio.Task[None]":
    with pytest.raises(RequestTimeout):
        await consumer.cancel(timeout=0.05)
    return starting


@pytest.mark.parametrize("give_up", [_cancel_the_start, _cancel_the_consumer, _give_up_cancelling])
async def test_a_consumer_is_cancelled_once_it_has_started(give_up: GiveUp) -> None:
    async with ScriptedBroker(_Late) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        link = await _link(broker)
        consumer = channel.consume("q")
        starting = asyncio.create_task(consumer.start())
        await eventually(lambda: link.late, "basic.consume")
        ending = await give_up(starting, consumer)
        await channel.declare_queue("meanwhile")  # and its answer comes before consume-ok
        assert not link.is_cancelled
        assert link.late is not None
        link.late()
        await eventually(lambda: link.is_cancelled, "basic.cancel")
        await asyncio.wait((starting, ending))
        assert connection.is_open


async def _link(broker: ScriptedBroker) -> _Late:
    link = await eventually(lambda: broker.links and broker.links[0], "the link")
    assert isinstance(link, _Late)
    return link


async def test_a_channel_that_ends_with_a_consumer_starting_ends_in_order(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        for _ in range(30):
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            starting = asyncio.create_task(channel.consume(queue.name).start())
            await asyncio.sleep(0)
            await channel.close()
            await asyncio.wait((starting,))
        assert connection.is_open


async def _start_and_declare(channel: Channel, consumer: Consumer) -> None:
    await asyncio.gather(consumer.start(), channel.declare_queue(exclusive=True))
    await consumer.cancel()


async def _cancel_and_get(channel: Channel, consumer: Consumer) -> None:
    await consumer.start()
    await asyncio.gather(consumer.cancel(), channel.get(consumer.queue))


async def _start_and_cancel(channel: Channel, consumer: Consumer) -> None:
    starting = asyncio.create_task(consumer.start())
    await asyncio.sleep(0)
    await consumer.cancel()
    await asyncio.wait((starting,))


async def _give_up_the_start(channel: Channel, consumer: Consumer) -> None:
    starting = asyncio.create_task(consumer.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait((starting,))


@pytest.mark.parametrize("work", [_start_and_declare, _cancel_and_get, _start_and_cancel, _give_up_the_start])
async def test_requests_during_a_consumer_start_do_no_harm(
    broker_url: str, work: Callable[[Channel, Consumer], Awaitable[None]]
) -> None:
    lost: list[object] = []
    async with rabbitry.connect(broker_url, on_recovery=lost.append) as connection:
        for _ in range(100):
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await work(channel, channel.consume(queue.name))
            await channel.declare_queue(queue.name, passive=True)
            await channel.close()
    assert lost == []
