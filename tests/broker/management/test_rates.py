"""Rates and samples of the management API: counters never fall, even when the counted object is gone."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.rates import PERIOD, RETENTION, Counted, Range, Rates, vhost_totals

_START = 1_000_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the reads, in seconds; the event loop's clock is not changed."""
    now = [_START]
    monkeypatch.setattr("rabbitry.broker._management.rates.time", SimpleNamespace(time=lambda: now[0]))
    return now


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0)) as broker:
        yield broker


async def _of_all(rates: Rates, broker: Broker) -> Counted:
    async with Pace() as pace:
        return rates.broker(await vhost_totals(broker, pace))


def _rate(counted: Counted, name: str) -> object:
    details = counted.shown([name])[f"{name}_details"]
    assert isinstance(details, dict)
    return details["rate"]


async def test_counters_do_not_fall_when_queue_and_channel_are_gone(clock: list[float], broker: Broker) -> None:
    rates = Rates(broker, Pace())
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for name in ("gone", "stays"):
            await channel.declare_queue(name)
            for _ in range(10):
                await channel.publish(b"x", routing_key=name)
        await rates.look()
        await channel.delete_queue("gone")
        for _ in range(5):
            await channel.publish(b"x", routing_key="stays")
        clock[0] += PERIOD
        await rates.look()
    clock[0] += PERIOD
    counted = await _of_all(rates, broker)
    assert _rate(counted, "publish") == 1.0  # 5 in 5 s
    assert _rate(counted, "messages") == -1.0  # 5 more, and 10 are gone, as RabbitMQ shows it
    assert counted.shown(["publish", "confirm", "messages"])["publish"] == 25  # the channel is closed by now
    await rates.look()
    assert _rate(await _of_all(rates, broker), "publish") == 0.0


async def test_the_first_reading_shows_no_rate(clock: list[float], broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("tasks")
        await channel.publish(b"x", routing_key="tasks")
    rates = Rates(broker, Pace())
    assert _rate(await _of_all(rates, broker), "publish") == 0.0
    await rates.look()
    assert _rate(await _of_all(rates, broker), "publish") == 0.0


async def test_samples_are_the_counters_at_their_times(clock: list[float], broker: Broker) -> None:
    rates = Rates(broker, Pace())
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for count in range(4):  # one more message is there at each look
            await channel.declare_queue("tasks")
            for _ in range(min(count, 1)):
                await channel.publish(b"x", routing_key="tasks")
            await rates.look()
            clock[0] += PERIOD
        clock[0] -= PERIOD
        counted = rates.queue(broker.vhosts["/"].queues["tasks"])
    details = counted.shown(["messages"], Range(age=20, incr=5))["messages_details"]
    assert isinstance(details, dict)
    newest = int(clock[0]) * 1000
    assert details["samples"] == [
        {"sample": value, "timestamp": newest - 5000 * back} for back, value in enumerate((3, 2, 1, 0, 0))
    ]
    assert (details["avg"], details["avg_rate"], details["rate"]) == (1.2, 3 / 20, 0.2)


async def test_only_objects_that_were_counted_up_are_remembered_and_only_for_a_while(
    clock: list[float], broker: Broker
) -> None:
    rates = Rates(broker, Pace())
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for name in ("busy", "idle"):
            await channel.declare_queue(name)
        for _ in range(RETENTION // PERIOD + 10):
            await channel.publish(b"x", routing_key="busy")
            await rates.look()
            clock[0] += PERIOD
        queues = broker.vhosts["/"].queues
        assert queues["idle"] not in rates._known
        assert len(rates._known[queues["busy"]].seen) == RETENTION // PERIOD + 2
        await channel.delete_queue("busy")
        await rates.look()
        assert queues.keys() == {"idle"}
        assert [item for item in rates._known if getattr(item, "name", "") == "busy"] == []
