"""A broker that is short of memory blocks publishers: they wait up to their deadline, and nothing else stops."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.reading import Reason
from rabbitry.exceptions import PublishTimeout
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually, eventually_blocking


class _AlarmedBroker:
    """A broker whose memory alarm is set and lifted."""

    def __init__(self, url: str, alarm: Callable[[bool], Coroutine[Any, Any, None]]) -> None:
        self.url = url
        self.alarm = alarm


@pytest.fixture(params=["embedded", "rabbitmq"])
async def alarmed(request: pytest.FixtureRequest) -> AsyncIterator[_AlarmedBroker]:
    async with AsyncExitStack() as stack:
        if request.param == "rabbitmq":
            server: RabbitMQ = request.getfixturevalue("own_rabbitmq")

            async def alarm(is_on: bool) -> None:
                await asyncio.to_thread(_set_alarm, server, is_on)

            yield _AlarmedBroker(server.url, alarm)
        else:
            broker = await stack.enter_async_context(Broker(BrokerConfig(port=0)))
            await broker.alarms.stop()  # it would look at the memory that there is

            async def alarm(is_on: bool) -> None:
                broker.alarms.set(Reason.MEMORY, is_on=is_on)

            yield _AlarmedBroker(broker.url, alarm)


def _set_alarm(server: RabbitMQ, is_on: bool) -> None:
    """Do what `rabbitmqctl set_vm_memory_high_watermark` does (a second of CPU), and wait until each connection knows.

    A message that a connection publishes before that is accepted and does not block it.
    """
    server.eval(f"vm_memory_monitor:set_vm_memory_high_watermark({'0.0' if is_on else '0.4'}).")
    states = (
        "{rabbit_alarm:get_alarms() =/= [],"
        " [State || Pid <- rabbit_networking:connections(), [{state, State}] <- [rabbit_reader:info(Pid, [state])]]}."
    )

    def is_known() -> bool:
        told = server.eval(states)
        return ("{true" in told and "running" not in told) if is_on else ("{false" in told and "block" not in told)

    eventually_blocking(is_known, f"the alarm to be {'on' if is_on else 'off'} for each connection")


async def test_an_alarm_blocks_publishers_but_not_consumers(alarmed: _AlarmedBroker) -> None:
    async with rabbitry.connect(alarmed.url) as publishing, rabbitry.connect(alarmed.url) as consuming:
        publisher = await publishing.channel()
        consumer = await consuming.channel(prefetch=10)
        await publisher.declare_queue("q", durable=True)
        for number in range(100):
            await publisher.send(b"%d" % number, routing_key="q")
        await publisher.wait_for_confirms()

        await alarmed.alarm(True)
        on_the_wire = await publisher.send(b"100", routing_key="q")  # RabbitMQ says it to who publishes
        await eventually(lambda: publishing.blocked is not None, "the block is visible")
        assert "memory" in str(publishing.blocked)
        with pytest.raises(PublishTimeout, match="not sent"):
            await publisher.publish(b"too late", routing_key="q", timeout=0.2)
        waiting = [asyncio.create_task(publisher.publish(b"%d" % n, routing_key="q")) for n in range(101, 110)]

        # blocked while acking: with a prefetch of 10, a hundred come only as acks go through
        seen: list[int] = []
        async with consumer.consume("q") as deliveries:
            async with asyncio.timeout(90):
                while not set(range(100)) <= set(seen):
                    delivery = await anext(deliveries)
                    seen.append(int(delivery.body))
                    delivery.ack()
            assert consuming.blocked is None
            assert (await consumer.declare_queue("q", passive=True)).message_count == 0
            assert not any(task.done() for task in waiting)

            await alarmed.alarm(False)
            async with asyncio.timeout(90):
                await asyncio.gather(on_the_wire, *waiting)
                while len(seen) < 110:
                    delivery = await anext(deliveries)
                    seen.append(int(delivery.body))
                    delivery.ack()
        assert publishing.blocked is None
        assert sorted(seen) == list(range(110))  # what was not sent in its time never is
        assert await consumer.delete_queue("q") == 0


async def test_acks_on_a_blocked_connection_wait_and_are_not_lost(alarmed: _AlarmedBroker) -> None:
    """RabbitMQ stops reading a publishing connection, acks included, so the acks arrive late, but count."""
    async with rabbitry.connect(alarmed.url) as connection, rabbitry.connect(alarmed.url) as other:
        channel = await connection.channel(prefetch=5)
        looking = await other.channel()
        await channel.declare_queue("q", durable=True)
        for number in range(20):
            await channel.publish(b"%d" % number, routing_key="q")
        async with channel.consume("q") as deliveries:
            held = [await anext(deliveries) for _ in range(5)]
            await alarmed.alarm(True)
            last = await channel.send(b"last", routing_key="q")
            await eventually(lambda: connection.blocked is not None, "the block")
            for delivery in held:
                delivery.ack()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(deliveries), 0.3)
            assert (await looking.declare_queue("q", passive=True)).message_count >= 15
            await alarmed.alarm(False)
            async with asyncio.timeout(90):
                await last
                for _ in range(16):
                    delivery = await anext(deliveries)
                    assert not delivery.redelivered
                    delivery.ack()
        assert await looking.delete_queue("q") == 0


async def test_a_connection_made_while_the_alarm_is_on_is_blocked_at_its_first_message(
    alarmed: _AlarmedBroker,
) -> None:
    """The broker blocks only connections that publish; the first message is sent, and taken after the alarm."""
    await alarmed.alarm(True)
    async with rabbitry.connect(alarmed.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        first = await channel.send(b"first", routing_key="q")
        await eventually(lambda: connection.blocked is not None, "the block")
        async with rabbitry.connect(alarmed.url) as other:
            looking = await other.channel()
            assert (await looking.declare_queue("q", passive=True)).message_count == 0, "it is held"
        assert not first.done()
        second = asyncio.create_task(channel.publish(b"second", routing_key="q"))
        await asyncio.sleep(0.1)
        assert not second.done()
        await alarmed.alarm(False)
        async with asyncio.timeout(90):
            await first
            await second
        assert await channel.delete_queue("q") == 2


async def test_a_channel_is_left_while_the_broker_blocks_its_connection(alarmed: _AlarmedBroker) -> None:
    """The broker answers channel.close when the alarm ends; nobody waits for that, and the number is free then."""
    async with rabbitry.connect(alarmed.url, request_timeout=600) as connection:
        blocked = await connection.channel()
        async with await connection.channel() as left:
            await left.declare_queue("q", durable=True)
            await alarmed.alarm(True)
            first = await blocked.send(b"first", routing_key="q")
            await eventually(lambda: connection.blocked is not None, "the block")
        assert not left.is_open
        used = set(connection._session.link.channels)  # type: ignore[union-attr] # it is connected
        assert left.number in used
        await alarmed.alarm(False)
        await asyncio.wait_for(first, 90)
        await eventually(lambda: left.number not in connection._session.link.channels, "the late answer")  # type: ignore[union-attr] # it is connected
        assert await blocked.delete_queue("q") == 1


async def test_the_blocking_client_times_out_waiting_for_unsent_messages(
    alarmed: _AlarmedBroker,
) -> None:
    def use() -> None:
        with rabbitry.connect_blocking(alarmed.url) as connection:
            channel, other = connection.channel(), connection.channel()
            queue = channel.declare_queue(exclusive=True).name
            asyncio.run_coroutine_threadsafe(alarmed.alarm(True), loop).result(120)
            channel.send(b"tells the broker that this connection publishes", routing_key=queue)
            eventually_blocking(lambda: connection.blocked is not None, "the block")
            other.send(b"waits", routing_key=queue)
            with pytest.raises(PublishTimeout, match="not all messages were sent within"):
                other.wait_for_confirms(timeout=0.1)
            asyncio.run_coroutine_threadsafe(alarmed.alarm(False), loop).result(120)
            channel.wait_for_confirms(timeout=90)
            other.wait_for_confirms(timeout=90)
            assert channel.declare_queue(queue, passive=True).message_count == 2

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(use)
