"""Overdue deliveries, at times that the test chooses; tests/differential/test_overdue.py compares with RabbitMQ."""

import asyncio
import math
from unittest.mock import patch

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker import _overdue as _overdue_module
from rabbitry.broker._channel import Channel as BrokerChannel
from rabbitry.broker._overdue import Overdue
from rabbitry.broker._policies import Policy
from rabbitry.exceptions import ChannelClosed
from tests.support.steps import take_all
from tests.support.waiting import eventually


def _overdue(broker: Broker, seconds: float | None) -> Overdue:
    return Overdue(broker.connections, broker.dispatcher, broker.shares, broker.config.release, seconds)


def _open_channels(broker: Broker) -> int:
    return sum(len(connection.channels) for connection in broker.connections)


async def _declare(channel: Channel, name: str = "q", arguments: Table | None = None) -> None:
    await channel.declare_queue(name, arguments=arguments)
    for number in range(3):
        await channel.publish(b"%d" % number, routing_key=name)


async def test_the_oldest_delivery_counts_from_when_it_was_sent() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        overdue = _overdue(broker, 10)
        take_all(overdue.looking(0))
        first = await channel.get("q")
        assert first is not None
        for now in (1, 5, 10.9):
            take_all(overdue.looking(now))
        second = await channel.get("q")
        assert second is not None
        take_all(overdue.looking(10.95))
        first.ack()
        await eventually(lambda: [len(one.unsettled) for one in _channels(broker)] == [1], "the ack")
        take_all(overdue.looking(11))  # the first one would be overdue; the second was seen at 10.95
        assert _open_channels(broker) == 1
        second.ack()
        await eventually(lambda: [len(one.unsettled) for one in _channels(broker)] == [0], "the ack")
        take_all(overdue.looking(100))
        third = await channel.get("q")
        assert third is not None
        take_all(overdue.looking(101))
        take_all(overdue.looking(110.9))
        assert _open_channels(broker) == 1
        take_all(overdue.looking(111))
        assert _open_channels(broker) == 0
        assert len(broker.vhosts["/"].queues["q"]) == 1
        with pytest.raises(ChannelClosed, match=r"channel 1 timed out\. Timeout value used: 10000 ms"):
            await channel.get("q")


def _channels(broker: Broker) -> list[BrokerChannel]:
    return [channel for connection in broker.connections for channel in connection.channels.values()]


@pytest.mark.parametrize(
    ("argument", "policy", "closed_at"), [(4000, None, 4), (4000, 3000, 3), (20_000, 15_000, 15), (None, 7000, 7)]
)
async def test_argument_and_policy_of_a_queue_come_before_the_setting(
    argument: int | None, policy: int | None, closed_at: float
) -> None:
    config = BrokerConfig(port=0, compat="4.0")
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        if policy is not None:
            for _ in broker.putting_policy(Policy("/", "p", "^q$", {"consumer-timeout": policy}), broker.policies):
                pass
        channel = await connection.channel()
        await _declare(channel, "q", {} if argument is None else {"x-consumer-timeout": argument})
        await channel.get("q")
        overdue = _overdue(broker, 10)
        take_all(overdue.looking(0))
        take_all(overdue.looking(closed_at - 0.01))
        assert _open_channels(broker) == 1
        take_all(overdue.looking(closed_at))
        assert _open_channels(broker) == 0


@pytest.mark.parametrize("unlimited", [None, math.inf])
async def test_without_a_limit_nothing_is_closed(unlimited: float | None) -> None:
    async with (
        Broker(BrokerConfig(port=0, consumer_timeout=unlimited)) as broker,
        rabbitry.connect(broker.url) as connection,
    ):
        channel = await connection.channel()
        await _declare(channel)
        await channel.get("q")
        overdue = _overdue(broker, unlimited)
        take_all(overdue.looking(0))
        take_all(overdue.looking(1e9))
        assert _open_channels(broker) == 1


async def test_the_shortest_limit_leaves_time_for_clients() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        overdue = _overdue(broker, 0)
        loop = asyncio.get_running_loop()
        with patch.object(loop, "call_later", wraps=loop.call_later) as called:
            overdue.start()
            overdue.stop()
        assert called.call_args.args[0] > 0


async def test_the_notes_of_a_channel_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_overdue_module, "_MOST_NOTES", 3)
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        overdue = _overdue(broker, 1000)
        oldest = await channel.get("q")
        assert oldest is not None
        for now in range(10):
            take_all(overdue.looking(now))
            await channel.publish(b"x", routing_key="q")
            assert await channel.get("q", no_ack=True) is not None
        (notes,) = overdue._notes.values()
        assert len(notes) == 3
        take_all(overdue.looking(999.9))
        assert _open_channels(broker) == 1
        take_all(overdue.looking(1000))
        assert _open_channels(broker) == 0
