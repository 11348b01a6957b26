"""Expiry where the brokers can't be compared: after a restart, and where RabbitMQ delivers expired messages."""

from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from tests.support.waiting import eventually_awaited

DEAD: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


async def _declare(channel: Channel, arguments: Table) -> None:
    await channel.declare_queue("dead", durable=True)
    await channel.declare_queue("q", durable=True, arguments={**DEAD, **arguments})


async def _count(channel: Channel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).message_count


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}, {"x-max-priority": 3}])
async def test_a_message_expires_after_a_restart_of_the_broker_and_a_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Table
) -> None:
    monkeypatch.setattr("rabbitry.broker._queues.contents.WINDOW", 2)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, arguments)
        for number in range(6):
            properties = rabbitry.Properties(expiration="1000", priority=number % 2)
            await channel.publish(b"%d" % number, routing_key="q", properties=properties)
        await channel.get("q")  # comes back with the end of the broker, unless a slow machine let it expire
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        held = [delivery for _ in range(6) if (delivery := await channel.get("q")) is not None]
        for delivery in held:
            delivery.nack(requeue=True)

        async def all_dead() -> bool:
            return await _count(channel, "dead") == 6

        await eventually_awaited(all_dead, "all messages expire")
        assert await _count(channel, "q") == 0


async def test_an_expired_message_of_a_high_priority_is_not_delivered() -> None:
    """RabbitMQ delivers it: it does not check a message that comes before others of lower priorities."""
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, {"x-max-priority": 5})
        for body, expiration, priority in ((b"low", None, 1), (b"high", "1", 5)):
            properties = rabbitry.Properties(expiration=expiration, priority=priority)
            await channel.publish(body, routing_key="q", properties=properties)

        async def is_dead() -> bool:
            return await _count(channel, "dead") == 1

        await eventually_awaited(is_dead, "the message expires")
        delivery = await channel.get("q")
        assert delivery is not None
        assert delivery.body == b"low"
        delivery.ack()


async def test_rabbitmq_delivers_an_expired_message_of_a_high_priority(rabbitmq_url: str) -> None:
    """The table of differences in docs/broker.md has this entry."""
    async with rabbitry.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        await _declare(channel, {"x-max-priority": 5})
        await channel.declare_queue("later", durable=True, arguments=DEAD)
        for queue, expiration, priority in (("q", None, 1), ("q", "1", 5), ("later", "50", 0)):
            properties = rabbitry.Properties(expiration=expiration, priority=priority)
            await channel.publish(b"%d" % priority, routing_key=queue, properties=properties)

        async def is_dead() -> bool:
            return await _count(channel, "dead") > 0

        await eventually_awaited(is_dead, "a message of another queue expires later")
        letter, delivery = await channel.get("dead"), await channel.get("q")
        assert letter is not None
        assert delivery is not None
        assert (letter.body, delivery.body) == (b"0", b"5")
        letter.ack()
        delivery.ack()
