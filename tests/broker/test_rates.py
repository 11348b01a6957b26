"""Rates of the management API: counters never fall, also where a queue with many messages was deleted."""

import asyncio
from types import SimpleNamespace

import pytest

import rabbitry
from rabbitry.broker import Broker
from rabbitry.broker.management.rates import GAUGES, Rates, queue_counters


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the looks, in seconds. The event loop's goes on."""
    now = [100.0]
    monkeypatch.setattr("rabbitry.broker.management.rates.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_a_deleted_queue_makes_no_counters_rate_negative(clock: list[float]) -> None:
    async with Broker(port=0) as broker:
        rates = Rates(broker)
        rates.start()
        try:
            async with rabbitry.connect(broker.url) as connection:
                channel = await connection.channel()
                for name in ("gone", "stays"):
                    await channel.declare_queue(name)
                    for _ in range(10):
                        await channel.publish(b"x", routing_key=name)
                _look_again(rates, clock)
                await channel.delete_queue("gone")
                for _ in range(5):
                    await channel.publish(b"x", routing_key="stays")
                _look_again(rates, clock)
            shown = _of_all(rates, broker)
            assert shown["publish"] == 1.0  # 5 in 5 s
            assert shown["messages"] == -1.0  # 5 more, and 10 are gone, as RabbitMQ shows it
            assert [name for name, rate in shown.items() if rate < 0 and name not in GAUGES] == []
        finally:
            rates.stop()


def _look_again(rates: Rates, clock: list[float]) -> None:
    clock[0] += 5.0
    rates.stop()
    rates._look()


def _of_all(rates: Rates, broker: Broker) -> dict[str, float]:
    (queue,) = broker.vhosts["/"].queues.values()
    counters = queue_counters(queue)
    shown = rates.with_rates(None, counters)
    found: dict[str, float] = {}
    for name in counters:
        details = shown[f"{name}_details"]
        assert isinstance(details, dict)
        found[name] = details["rate"]
    return found


async def test_the_first_look_shows_no_rate(clock: list[float]) -> None:
    async with Broker(port=0) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("tasks")
            await channel.publish(b"x", routing_key="tasks")
        rates = Rates(broker)
        clock[0] += 1
        rates.start()
        await asyncio.sleep(0)
        assert set(_of_all(rates, broker).values()) == {0.0}
        rates.stop()
