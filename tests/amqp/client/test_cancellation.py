"""Every awaitable can be cancelled at any point, and the channel stays usable."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, Channel, Connection, parse_url
from tests.support.proxy import FaultProxy, Way

_DELAY = 0.006
_STEP = 0.004


@pytest.fixture
async def slow_url(broker_url: str) -> AsyncIterator[BrokerURL]:
    """The broker behind a proxy that keeps each answer for a while."""
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        proxy.delay(_DELAY, Way.TO_CLIENT)
        yield parse_url(broker_url)._replace(hosts=(("127.0.0.1", proxy.port),))


async def _open(channel: Channel) -> None:
    await (await Connection(channel._core.session).channel()).close()


async def _consume(channel: Channel) -> None:
    async with channel.consume("q") as deliveries:
        delivery = await anext(deliveries)
        delivery.nack()


async def _confirm(channel: Channel) -> None:
    await channel.send(b"x", routing_key="other")
    await channel.wait_for_confirms()


async def _declare(channel: Channel) -> None:
    await channel.declare_queue("declared")
    await channel.delete_queue("declared")


async def _exchange(channel: Channel) -> None:
    await channel.declare_exchange("e")
    await channel.bind_exchange("e", "amq.topic", "k")
    await channel.unbind_exchange("e", "amq.topic", "k")
    await channel.delete_exchange("e")


async def _bind(channel: Channel) -> None:
    await channel.bind_queue("q", "amq.direct", "k")
    await channel.unbind_queue("q", "amq.direct", "k")


async def _get(channel: Channel) -> None:
    delivery = await channel.get("q")
    assert delivery is not None
    delivery.nack()


_OPERATIONS: dict[str, Callable[[Channel], Awaitable[object]]] = {
    "open": _open,
    "consume": _consume,
    "publish": lambda channel: channel.publish(b"x", routing_key="other"),
    "confirm": _confirm,
    "declare": _declare,
    "exchange": _exchange,
    "bind": _bind,
    "get": _get,
    "qos": lambda channel: channel.qos(7),
    "purge": lambda channel: channel.purge_queue("other"),
}


async def _is_in_order(channel: Channel) -> None:
    """Check that the channel works, and that the only message of `q` is in its place."""
    async with asyncio.timeout(90):
        await channel.publish(b"check", routing_key="check")
        got = await channel.get("check")
        assert got is not None
        assert got.body == b"check"
        got.ack()
        kept = await channel.get("q")
        while kept is None:  # a cancelled consumer's deliveries are requeued with cancel-ok, which is in flight
            kept = await channel.get("q")
        assert kept.body == b"kept"
        kept.nack()


@pytest.mark.parametrize("operation", _OPERATIONS)
async def test_the_channel_works_after_a_cancellation(no_leaks: None, slow_url: BrokerURL, operation: str) -> None:
    async with rabbitry.connect(slow_url) as connection:
        channel = await connection.channel()
        for queue in ("q", "other", "check"):
            await channel.declare_queue(queue)
        await channel.publish(b"kept", routing_key="q")
        for turns in itertools.count():
            task = asyncio.ensure_future(_OPERATIONS[operation](channel))
            for _ in range(turns):
                await asyncio.sleep(_STEP)
            if task.done():
                await task
                break
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await _is_in_order(channel)
        await _is_in_order(channel)
        for queue in ("q", "other", "check"):
            await channel.delete_queue(queue)


@pytest.mark.parametrize("what", ["connect", "channel.close", "connection.close"])
async def test_cancelled_opening_and_closing_leak_nothing(no_leaks: None, slow_url: BrokerURL, what: str) -> None:
    async def close(connection: Connection, channel: Channel) -> None:
        await (channel.close() if what == "channel.close" else connection.close())

    async def opened() -> None:
        async with rabbitry.connect(slow_url):
            pass

    for turns in itertools.count():
        if what == "connect":
            task = asyncio.create_task(opened())
        else:
            connection = await rabbitry.connect(slow_url)
            task = asyncio.create_task(close(connection, await connection.channel()))
        for _ in range(turns):
            await asyncio.sleep(_STEP)
        is_done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if what != "connect":
            async with asyncio.timeout(90):
                await connection.close()
                await connection.wait_closed()
        if is_done:
            break
