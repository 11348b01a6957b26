"""Connections that are cut, reset or swallowed are recovered with everything on them, on both brokers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, RecoveryEvent
from rabbitry.exceptions import AlreadySettled, ConnectionClosed, PublishTimeout, RequestTimeout
from tests.support.embedded import BrokerProcess
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually


@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_every_confirmed_message_arrives_over_many_losses(url: BrokerURL, proxy: FaultProxy, fault: str) -> None:
    seen: set[int] = set()
    async with rabbitry.connect(url) as connection:
        publishing = await connection.channel()
        consuming = await connection.channel(prefetch=50)
        await publishing.declare_queue("q", durable=True)

        async def consume() -> None:
            async with consuming.consume("q") as deliveries:
                async for delivery in deliveries:
                    seen.add(int(delivery.body))
                    delivery.ack()

        consumer = asyncio.create_task(consume())
        for number in range(3000):
            await publishing.send(b"%d" % number, routing_key="q")
            if number % 600 == 300:
                await getattr(proxy, fault)()
        await publishing.wait_for_confirms()
        await eventually(lambda: len(seen) == 3000, "all messages")
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        await publishing.delete_queue("q")


async def test_a_server_named_queue_is_restored_with_binding_and_consumer(url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("e", "topic")
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.bind_queue(queue, "e", "a.*")
        async with channel.consume(queue) as deliveries:
            await channel.publish(b"before", exchange="e", routing_key="a.b")
            assert (await anext(deliveries)).body == b"before"
            await proxy.cut()
            await channel.publish(b"after", exchange="e", routing_key="a.b")
            bodies = [(await anext(deliveries)).body]
            while bodies[-1] != b"after":
                bodies.append((await anext(deliveries)).body)
            assert await channel.purge_queue(queue) == 0
        await channel.delete_exchange("e")


async def test_old_deliveries_cannot_be_settled_and_are_redelivered(url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"once", routing_key="q")
        async with channel.consume("q") as deliveries:
            first = await anext(deliveries)
            await proxy.reset()
            second = await anext(deliveries)
            assert second.redelivered
            assert second.body == first.body
            with pytest.raises(AlreadySettled, match="redelivered"):
                first.ack()
            second.ack()
        assert await channel.delete_queue("q") == 0


async def test_publishers_wait_and_their_deadline_counts(url: BrokerURL, proxy: FaultProxy) -> None:
    events: list[RecoveryEvent] = []
    async with rabbitry.connect(url, on_recovery=events.append) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        proxy.refuse()
        await proxy.reset()
        await eventually(lambda: len(events) > 2, "an attempt that failed")
        assert not connection.is_open
        with pytest.raises(PublishTimeout):
            await channel.publish(b"late", routing_key="q", timeout=0.1)
        with pytest.raises(RequestTimeout):
            await channel.declare_queue("q", durable=True, timeout=0.1)
        waiting = asyncio.create_task(channel.publish(b"in time", routing_key="q"))
        proxy.accept()
        await waiting
        assert await channel.delete_queue("q") == 1
    kinds = [event.kind for event in events]
    assert kinds[:2] == ["lost", "recovering"]
    assert kinds[-1] == "recovered"


async def test_unconfirmed_messages_are_resent(url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"first", routing_key="q")
        proxy.swallow()
        futures = [await channel.send(b"%d" % number, routing_key="q") for number in range(10)]
        await eventually(lambda: proxy.lost > 500, "the messages in the black hole")
        proxy.deliver()
        await proxy.cut()
        await asyncio.gather(*futures)
        await channel.wait_for_confirms()
        assert await channel.delete_queue("q") == 11


async def test_a_recovery_that_takes_too_long_ends_everything_with_both_causes(
    url: BrokerURL, proxy: FaultProxy, no_leaks: None
) -> None:
    async with rabbitry.connect(url, recovery_timeout=0.3) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        async with channel.consume(queue) as deliveries:
            proxy.refuse()
            await proxy.cut()
            with pytest.raises(ConnectionClosed, match=r"did not come back.*within 0\.3 s"):
                await anext(deliveries)
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed):
            await channel.publish(b"x", routing_key=queue)


async def test_closing_while_it_recovers_ends_it(url: BrokerURL, proxy: FaultProxy) -> None:
    connection = await rabbitry.connect(url)
    channel = await connection.channel()
    proxy.refuse()
    await proxy.cut()
    await eventually(lambda: not connection.is_open, "the loss")
    publishing = asyncio.create_task(channel.publish(b"x", routing_key="q"))
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(ConnectionClosed, match="closed by this program"):
        await publishing


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.faults)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ | BrokerProcess]:
    """A separate broker with a store. Each start of RabbitMQ takes five seconds of CPU."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_rabbitmq")
        return
    with BrokerProcess("--data", str(tmp_path)) as broker:
        yield broker


async def test_durable_objects_survive_a_broker_restart(server: RabbitMQ | BrokerProcess) -> None:
    async with rabbitry.connect(server.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"kept", routing_key="q")
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        delivery = await channel.get("q")
        assert delivery is not None
        assert delivery.body == b"kept"
        delivery.ack()


async def test_closing_a_channel_during_its_restore_stops_nothing(url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        closing, staying = await connection.channel(), await connection.channel()
        queue = (await staying.declare_queue(exclusive=True)).name
        proxy.delay(0.1)
        lost = connection._session.link
        await proxy.cut()
        await eventually(lambda: connection._session.link is not lost, "the new link")
        await closing.close()
        proxy.delay(0)
        await staying.publish(b"goes on", routing_key=queue)
        assert connection.is_open
        assert not closing.is_open


async def test_opening_a_channel_waits_over_a_loss(url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        proxy.swallow()
        opening = asyncio.create_task(connection.channel())
        await eventually(lambda: proxy.lost, "channel.open in the black hole")
        proxy.deliver()
        await proxy.cut()
        assert (await opening).is_open


async def test_a_channels_limit_holds_after_a_loss(url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel(prefetch=10)
        await channel.declare_queue("q", durable=True)
        await channel.limit(2)
        for number in range(6):
            await channel.publish(b"%d" % number, routing_key="q")
        async with channel.consume("q") as deliveries:
            assert (await anext(deliveries)).body == b"0"
            await proxy.cut()
            delivery = await anext(deliveries)
            while delivery.is_lost or not delivery.redelivered:
                delivery = await anext(deliveries)
            # The broker delivers before it answers later requests.
            assert (await channel.declare_queue("q", passive=True)).message_count == 4


async def test_the_log_names_the_connection(
    url: BrokerURL, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with rabbitry.connect(url, name="the shop"), rabbitry.connect(url):
        await proxy.cut()
        await eventually(lambda: caplog.text.count("connected again") == 2, "both to come back")
    for text in ("connecting again", "connected again"):
        labels = sorted(line.message.split(": ")[0] for line in caplog.records if text in line.message)
        assert labels == [str(url), f"{url} (the shop)"]
