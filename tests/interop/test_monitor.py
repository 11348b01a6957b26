"""The monitor beside programs that use aio-pika and kombu, on both brokers; tests/apps has pika's."""

import asyncio
import importlib
import json
import signal
from typing import Any

import aio_pika
import pytest

from tests.support import commands

kombu: Any = importlib.import_module("kombu")  # kombu has no types

_SAMPLE = {"cpu": 0.25, "net": {"eth0": {"rx": 10, "tx": 20}}}
_EXCHANGE = "pi_utilization"


async def _aio_pika_publish(url: str, key: str, count: int) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(_EXCHANGE, aio_pika.ExchangeType.DIRECT)
        for _ in range(count):
            await exchange.publish(aio_pika.Message(json.dumps(_SAMPLE).encode()), routing_key=key)


def _kombu_publish(url: str, key: str, count: int) -> None:
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        exchange = kombu.Exchange(_EXCHANGE, "direct", durable=False, auto_delete=False)
        with connection.Producer(serializer="json") as producer:
            for _ in range(count):
                producer.publish(_SAMPLE, exchange=exchange, routing_key=key, declare=[exchange])


@pytest.mark.parametrize("library", ["aio-pika", "kombu"])
async def test_our_statistics_client_reads_other_libraries_samples(broker_url: str, library: str) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    with commands.service("monitor", "stats", "-k", "theirs", "--json", more=more) as stats:
        await asyncio.to_thread(stats.wait_for, "connected to .*: counting")
        if library == "kombu":
            await asyncio.to_thread(_kombu_publish, broker_url, "theirs", 3)
        else:
            await _aio_pika_publish(broker_url, "theirs", 3)
        await asyncio.to_thread(stats.wait_for, r'(?s)("theirs".*){3}')
        stats.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(stats.process.wait, 90) == 0, stats.output
        assert "0.25" in stats.output


async def _aio_pika_read(url: str, key: str) -> Any:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(_EXCHANGE, aio_pika.ExchangeType.DIRECT)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, key)
        async with asyncio.timeout(90), queue.iterator() as messages:
            async for message in messages:
                await message.ack()
                return json.loads(message.body)


def _kombu_read(url: str, key: str) -> Any:
    with kombu.Connection(url) as connection:
        exchange = kombu.Exchange(_EXCHANGE, "direct", durable=False, auto_delete=False)
        queue = kombu.Queue("kombu-reads", exchange, routing_key=key, exclusive=True)
        bodies: list[bytes] = []

        def take(message: Any) -> None:
            bodies.append(message.body)
            message.ack()

        with connection.Consumer(queue, on_message=take):
            while not bodies:
                connection.drain_events(timeout=90)
        return json.loads(bodies[0])


@pytest.mark.parametrize("library", ["aio-pika", "kombu"])
async def test_other_libraries_read_our_agents_samples(broker_url: str, library: str) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    with commands.service("monitor", "publish", "-k", "ours", "--probe-interval", "0.2", more=more):
        if library == "kombu":
            sample = await asyncio.to_thread(_kombu_read, broker_url, "ours")
        else:
            sample = await _aio_pika_read(broker_url, "ours")
    assert 0 <= sample["cpu"] <= 1
    assert {"rx", "tx"} <= sample["net"]["lo"].keys()
