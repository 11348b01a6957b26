"""Limits of a queue with a stored backlog: excess messages are dropped, in memory and in the store."""

from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues import Queue
from tests.support.steps import take_all
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that a test fills quickly."""
    monkeypatch.setattr("rabbitry.broker._queues.contents.WINDOW", 32)


async def _fill(channel: Channel, queue: str, bodies: list[bytes], priority: int | None = None) -> None:
    properties = rabbitry.Properties(delivery_mode=2, priority=priority)
    for body in bodies:
        await channel.publish(body, routing_key=queue, properties=properties)


async def _drain(channel: Channel, queue: str) -> list[bytes]:
    got: list[bytes] = []
    while (delivery := await channel.get(queue, no_ack=True)) is not None:
        got.append(delivery.body)
    return got


def _limit(broker: Broker, definition: Table) -> Queue:
    take_all(broker.putting_policy(Policy("/", "limit", "^q$", definition)))
    return broker.vhosts["/"].queues["q"]


def _bodies(first: int, last: int) -> list[bytes]:
    return [b"%06d" % number for number in range(first, last)]


@pytest.mark.parametrize("definition", [{"max-length": 10}, {"max-length-bytes": 60}])
async def test_a_lower_limit_applies_to_stored_messages(tmp_path: Path, definition: Table) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True, arguments={"x-dead-letter-exchange": "amq.fanout"})
        await channel.declare_queue("dead", durable=True)
        await channel.bind_queue("dead", "amq.fanout")
        await _fill(channel, "q", _bodies(0, 300))
        queue = _limit(broker, definition)
        await eventually(lambda: len(queue) == 10, "what is too many goes")
        assert await _drain(channel, "q") == _bodies(290, 300)
        assert await _drain(channel, "dead") == _bodies(0, 290)


async def test_a_lower_limit_holds_after_a_restart(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await _fill(channel, "q", _bodies(0, 300))
        _limit(broker, {"max-length": 10})
        await connection.close()
        # It stops before it has read, and dropped, the stored messages.
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = broker.vhosts["/"].queues["q"]
        await eventually(lambda: len(queue) == 10, "what is too many goes")
        assert await _drain(channel, "q") == _bodies(290, 300)


async def test_stored_messages_are_dropped_before_lower_priorities(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True, arguments={"x-max-priority": 1})
        await _fill(channel, "q", _bodies(0, 5), 0)
        await _fill(channel, "q", _bodies(5, 300), 1)
        queue = _limit(broker, {"max-length": 10})
        await eventually(lambda: len(queue) == 10, "what is too many goes")
        assert await _drain(channel, "q") == [*_bodies(295, 300), *_bodies(0, 5)]


async def test_a_consumer_with_room_is_served_before_limits_apply(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel(prefetch=100)
        await channel.declare_queue("q", durable=True, arguments={"x-max-length": 200})
        await _fill(channel, "q", _bodies(0, 200))
        async with channel.consume("q") as deliveries:
            taken = [(await anext(deliveries)).body for _ in range(100)]
            assert taken == _bodies(0, 100)
            await _fill(channel, "q", _bodies(200, 350))
        assert len(broker.vhosts["/"].queues["q"]) == 200
        assert await _drain(channel, "q") == _bodies(150, 350)
