"""Recovery does not redeclare deleted objects, unless a consumer of this connection has restore=True."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, Channel, Connection
from rabbitry.exceptions import ConsumerCancelled, NotFound
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually, eventually_awaited


@pytest.fixture
async def connection(url: BrokerURL) -> AsyncIterator[Connection]:
    async with rabbitry.connect(url) as connection:
        yield connection


@pytest.fixture
async def channel(connection: Connection) -> Channel:
    return await connection.channel()


@pytest.fixture
async def looking(broker_url: str) -> AsyncIterator[Connection]:
    """Another client's connection, which is not lost."""
    async with rabbitry.connect(broker_url) as connection:
        yield connection


async def _recover(connection: Connection, proxy: FaultProxy) -> None:
    lost = connection._session.link
    await proxy.cut()
    await eventually(lambda: connection.is_open and connection._session.link is not lost, "the recovery")


async def _has_queue(looking: Connection, name: str) -> bool:
    async with await looking.channel() as channel:
        try:
            await channel.declare_queue(name, passive=True)
        except NotFound:
            return False
        return True


async def _has_exchange(looking: Connection, name: str) -> bool:
    async with await looking.channel() as channel:
        try:
            await channel.declare_exchange(name, passive=True)
        except NotFound:
            return False
        return True


async def test_an_auto_delete_queue_ends_with_its_last_consumer(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    await channel.declare_queue("two", auto_delete=True)
    await channel.declare_queue("never consumed", auto_delete=True)
    await channel.declare_exchange("e", auto_delete=True)
    await channel.bind_queue("two", "e", "k")
    other = await connection.channel()
    async with channel.consume("two"):
        async with other.consume("two"):
            pass
        await _recover(connection, proxy)
        assert await _has_queue(looking, "two")
        assert await _has_exchange(looking, "e")
    assert not await _has_queue(looking, "two")
    assert not await _has_exchange(looking, "e")
    await _recover(connection, proxy)
    assert not await _has_queue(looking, "two")
    assert not await _has_exchange(looking, "e")
    assert await _has_queue(looking, "never consumed")
    await channel.delete_queue("never consumed")


@pytest.mark.parametrize("way", ["closed", "error"])
async def test_an_auto_delete_queue_ends_with_its_last_consumers_channel(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy, way: str
) -> None:
    await channel.declare_queue("q", auto_delete=True)
    consuming = await connection.channel()
    await consuming.consume("q").start()
    if way == "closed":
        await consuming.close()
    else:
        with pytest.raises(NotFound):
            await consuming.declare_queue("no such queue", passive=True)
    await _recover(connection, proxy)
    assert not await _has_queue(looking, "q")


async def test_an_auto_delete_queue_ends_with_a_consumer_cancelled_in_recovery(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    await channel.declare_queue("q", auto_delete=True)
    consumer = channel.consume("q")
    await consumer.start()
    proxy.refuse()
    await proxy.cut()
    await eventually(lambda: not connection.is_open, "the loss")
    await consumer.cancel()
    proxy.accept()
    await eventually(lambda: connection.is_open, "the recovery")

    async def is_gone() -> bool:
        return not await _has_queue(looking, "q")

    # RabbitMQ may not have noticed yet that its consumer's connection is gone.
    await eventually_awaited(is_gone, "the end of the queue")


async def test_a_refused_consumer_does_not_end_its_auto_delete_queue(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    await channel.declare_queue("q", auto_delete=True)
    async with await looking.channel() as owner, owner.consume("q", exclusive=True):
        other = await connection.channel()
        with pytest.raises(rabbitry.ChannelClosed):
            await other.consume("q").start()
        assert "q" in connection._session.topology.queues
    assert not await _has_queue(looking, "q")


async def test_a_queue_named_by_the_broker_is_forgotten_by_the_name_that_the_program_knows(
    connection: Connection, channel: Channel, proxy: FaultProxy
) -> None:
    queue = (await channel.declare_queue(auto_delete=True, exclusive=True)).name
    async with channel.consume(queue):
        await _recover(connection, proxy)
        assert (await channel.declare_queue(queue, passive=True)).name != queue
    assert not connection._session.topology.queues
    assert not connection._session.topology.names


async def test_an_auto_delete_exchange_ends_with_the_last_binding_from_it(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    for name in ("first", "second", "third", "unbound"):
        await channel.declare_exchange(name, "fanout", auto_delete=True)
    queue = (await channel.declare_queue("q", durable=True)).name
    await channel.bind_exchange("second", "first")
    await channel.bind_exchange("third", "second")
    await channel.bind_queue(queue, "third")
    await channel.bind_queue(queue, "third", "another")
    await channel.unbind_queue(queue, "third")
    await _recover(connection, proxy)
    assert await _has_exchange(looking, "first")
    await channel.unbind_queue(queue, "third", "another")
    assert not await _has_exchange(looking, "first"), "each takes the binding that leads to it along"
    await _recover(connection, proxy)
    present = [name for name in ("first", "second", "third", "unbound") if await _has_exchange(looking, name)]
    assert present == ["unbound"]
    await channel.delete_exchange("unbound")
    await channel.delete_queue(queue)


async def test_a_queue_deleted_by_another_client_is_forgotten_at_basic_cancel(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    await channel.declare_queue("q", durable=True)
    await channel.bind_queue("q", "amq.fanout")
    async with channel.consume("q") as deliveries:
        await (await looking.channel()).delete_queue("q")
        with pytest.raises(ConsumerCancelled):
            await anext(deliveries)
    await _recover(connection, proxy)
    assert not await _has_queue(looking, "q")


async def test_a_consumer_with_restore_redeclares_its_queue(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    await channel.declare_queue("q", auto_delete=True)
    async with channel.consume("q"), channel.consume("q", restore=True) as deliveries:
        await (await looking.channel()).delete_queue("q")
        publisher = await looking.channel()
        async with asyncio.timeout(90):
            while not await _has_queue(looking, "q"):  # noqa: ASYNC110 - no event tells that it is back
                await asyncio.sleep(0.05)
            await publisher.publish(b"x", routing_key="q")
            assert (await anext(deliveries)).body == b"x"
    assert not await _has_queue(looking, "q")


async def test_an_object_named_by_a_404_is_forgotten(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    for queue in ("q", "it's"):
        await channel.declare_queue(queue, durable=True)
    await channel.declare_exchange("e", durable=True)
    await channel.bind_queue("q", "e")
    deleting = await looking.channel()
    await deleting.delete_queue("q")
    await deleting.delete_queue("it's")
    await deleting.delete_exchange("e")
    for queue in ("q", "it's"):
        with pytest.raises(NotFound):
            await channel.get(queue)
        await channel.open()
    with pytest.raises(NotFound):
        await channel.publish(b"x", exchange="e", routing_key="q")
    await _recover(connection, proxy)
    assert [name for name in ("q", "it's") if await _has_queue(looking, name)] == []
    assert not await _has_exchange(looking, "e")


async def test_an_expired_queue_is_not_redeclared_unless_it_is_consumed(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    arguments = {"x-expires": 3000}
    await channel.declare_queue("consumed", arguments=arguments)
    await channel.declare_queue("left", arguments=arguments)
    await channel.declare_queue("unused", arguments=arguments)
    await channel.declare_queue("young", arguments={"x-expires": 60_000})
    async with channel.consume("left"):
        pass
    async with channel.consume("consumed"):
        for name in ("unused", "left"):
            async with asyncio.timeout(60):
                while await _has_queue_without_using_it(looking, name):  # noqa: ASYNC110 - the broker tells nobody
                    await asyncio.sleep(0.05)
        await _recover(connection, proxy)
        names = ("consumed", "left", "unused", "young")
        assert [name for name in names if await _has_queue(looking, name)] == ["consumed", "young"]
    await channel.delete_queue("young")


async def test_a_queue_that_is_not_to_be_restored_is_not_redeclared(
    connection: Connection, channel: Channel, looking: Connection, proxy: FaultProxy
) -> None:
    await channel.declare_queue("forgotten", restore=False)
    await channel.declare_queue("kept")
    async with await looking.channel() as other:
        for name in ("forgotten", "kept"):
            await other.delete_queue(name)
    await _recover(connection, proxy)
    assert [name for name in ("forgotten", "kept") if await _has_queue(looking, name)] == ["kept"]
    await channel.delete_queue("kept")


async def _has_queue_without_using_it(looking: Connection, name: str) -> bool:
    """A passive declare would put off its expiry; a binding does not."""
    async with await looking.channel() as channel:
        try:
            await channel.bind_queue(name, "amq.fanout")
        except NotFound:
            return False
        return True
