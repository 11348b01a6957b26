"""`rabbitry monitor publish` as users run it, with consumers of other libraries."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pika
import pytest

from rabbitry.amqp.client import parse_url
from rabbitry.apps.monitor.decode import decode, utilization
from tests.apps.monitor.program import Program
from tests.apps.monitor.wire import Tap, as_options, through
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually, eventually_blocking


class Consumer:
    """A consumer like the original programs: pika, an exclusive queue bound to the contract's exchange."""

    def __init__(self, url: str, exchange: str = "pi_utilization", type_: str = "direct", key: str = "pi-1") -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.exchange_declare(exchange, type_, durable=type_ == "fanout")
        self.queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(self.queue, exchange, key)

    def next(self) -> tuple[Any, Any, bytes]:
        """Wait for the next message: method, properties, body."""
        found: tuple[Any, Any, bytes] = eventually_blocking(self.get, "a sample arrives")
        return found

    def get(self) -> Any:
        """Return the next message, or None if the queue is empty."""
        method, properties, body = self._channel.basic_get(self.queue, auto_ack=True)
        return (method, properties, body) if method else None

    def close(self) -> None:
        """Close the connection, which deletes the queue."""
        self._connection.close()


@contextmanager
def consuming(
    url: str, exchange: str = "pi_utilization", type_: str = "direct", key: str = "pi-1"
) -> Iterator[Consumer]:
    consumer = Consumer(url, exchange, type_, key)
    try:
        yield consumer
    finally:
        consumer.close()


def test_a_pika_consumer_reads_both_exchanges(broker_url: str, tmp_path: Path) -> None:
    with (
        consuming(broker_url) as utilization_consumer,
        consuming(broker_url, "system_info", "fanout", "") as info_consumer,
        Program(tmp_path, "monitor", "publish", *as_options(broker_url), "-k", "pi-1") as agent,
    ):
        method, properties, body = utilization_consumer.next()
        assert method.routing_key == "pi-1"
        assert (properties.content_type, properties.delivery_mode) == ("application/json", 1)
        assert utilization(decode(body)).problems == []
        method, properties, body = info_consumer.next()
        assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
        sample = json.loads(body)
        assert datetime.fromisoformat(sample["timestamp"]).tzinfo is not None
        assert {"total", "available", "used", "percent"} <= set(sample["memory"])
        assert {"total", "used", "free", "percent"} <= set(sample["disk"])
        first = utilization_consumer.next()[1].message_id
        assert first != utilization_consumer.next()[1].message_id
        assert agent.end() == 0
        [line] = agent.err.splitlines()
        assert "routing key 'pi-1', exchanges 'pi_utilization', 'system_info'" in line


def test_one_exchange_alone_and_the_machine_s_name_as_key(broker_url: str, tmp_path: Path) -> None:
    with (
        consuming(broker_url, "system_info", "fanout", "") as consumer,
        Program(tmp_path, "monitor", "publish", "--to", "system-info", url=broker_url) as agent,
    ):
        method, _, body = consumer.next()
        assert method.routing_key == json.loads(body)["hostname"]
        connection = pika.BlockingConnection(pika.URLParameters(broker_url))
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            connection.channel().exchange_declare("pi_utilization", passive=True)
        connection.close()
        assert agent.end(signal.SIGTERM) == 0


async def test_without_a_consumer_the_agent_pauses_probes_and_resumes(broker_url: str, tmp_path: Path) -> None:
    tap = Tap()
    probe = 0.5
    async with FaultProxy(parse_url(broker_url).hosts[0][1], tap=tap) as proxy:
        options = [*as_options(through(proxy, broker_url)), "--interval", "0.1", "--probe-interval", str(probe)]
        with Program(tmp_path, "monitor", "publish", "--to", "utilization", "-k", "pi-1", *options) as agent:
            since = time.monotonic()

            def is_said() -> bool:
                nonlocal since
                looked = time.monotonic()
                if "nobody listens" in agent.err:
                    return True
                since = looked  # it printed that afterwards, and had published one sample at most
                return False

            await eventually(is_said, "it says so")
            await eventually(lambda: tap.methods.count("basic.publish") >= 5, "it probes")
            assert time.monotonic() - since >= 3 * (probe - 0.1)
            assert agent.err.count("nobody listens") == 1
            with consuming(broker_url) as consumer:
                await asyncio.to_thread(consumer.next)
                await eventually(lambda: "arrive on exchange 'pi_utilization' again" in agent.err, "it goes on")
                for _ in range(3):
                    await asyncio.to_thread(consumer.next)
            await eventually(lambda: agent.err.count("nobody listens") == 2, "it pauses again")
            agent.send()
            await eventually(lambda: "connection.close" in tap.methods, "it closes")
            assert await asyncio.to_thread(agent.wait) == 0
            assert tap.methods[-2:] == ["channel.close", "connection.close"]


async def test_it_waits_for_a_broker_and_comes_back_after_a_loss(broker_url: str, tmp_path: Path) -> None:
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        proxy.refuse()
        options = as_options(through(proxy, broker_url))
        with (
            Program(tmp_path, "monitor", "publish", "-k", "pi-1", *options) as agent,
            consuming(broker_url) as consumer,
        ):
            await eventually(lambda: "trying again in 2 s" in agent.err, "it says that it waits")
            proxy.accept()
            await eventually(lambda: proxy.open_links, "it connects")
            await eventually(consumer.get, "a sample")
            await proxy.reset()
            await eventually(lambda: agent.err.count("connected to") == 2, "it comes back")
            await eventually(consumer.get, "a sample")
            agent.send()
            assert await asyncio.to_thread(agent.wait) == 0


def test_an_exchange_that_was_deleted_is_declared_again(broker_url: str, tmp_path: Path) -> None:
    options = ["--to", "utilization", "-k", "pi-1", "--interval", "0.1"]
    with Program(tmp_path, "monitor", "publish", *options, url=broker_url) as agent:
        with consuming(broker_url) as consumer:
            consumer.next()
            consumer._channel.exchange_delete("pi_utilization")
            agent.wait_for("does not take samples.*NOT_FOUND")
        with consuming(broker_url) as consumer:
            agent.wait_for("arrive on exchange 'pi_utilization' again")
            consumer.next()
        assert agent.end() == 0


def test_exchanges_with_other_flags_are_used_as_they_are_unless_strict(broker_url: str, tmp_path: Path) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    connection.channel().exchange_declare("system_info", "fanout")
    connection.close()
    with Program(tmp_path, "monitor", "publish", url=broker_url) as agent:
        agent.wait_for("'system_info' exists with other flags and is used as it is")
        agent.wait_for("nobody listens on exchange 'system_info'")
        assert agent.end() == 0
    with Program(tmp_path, "monitor", "publish", "--strict", url=broker_url) as agent:
        assert agent.wait() == 1
        assert "PRECONDITION_FAILED" in agent.err
        assert len(agent.err.splitlines()) == 1
