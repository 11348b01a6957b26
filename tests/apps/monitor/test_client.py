"""`rabbitry monitor stats` as users run it, with publishers of other libraries."""

import asyncio
import fcntl
import json
import logging
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest

import rabbitry
from rabbitry.amqp.client import Channel, parse_url
from rabbitry.apps.monitor.client import StatisticsClient
from rabbitry.apps.monitor.statistics import Counts, HostSeries
from rabbitry.exceptions import PublishReturned
from tests.apps.monitor.program import Program
from tests.apps.monitor.wire import Tap, as_options, through
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually, eventually_awaited, eventually_blocking

EXCHANGE = "pi_utilization"


def sample(cpu: float, rx: float = 100, tx: float = 200) -> bytes:
    return json.dumps({"cpu": cpu, "net": {"eth0": {"rx": rx, "tx": tx}}}).encode()


# pika would log each returned message.
logging.getLogger("pika").setLevel(logging.ERROR)


class Publisher:
    """A publisher like the original programs: pika, the contract's exchange, mandatory messages."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.exchange_declare(EXCHANGE, "direct")
        self._channel.confirm_delivery()

    def publish(self, key: str, body: bytes) -> bool:
        """Publish a sample; return whether it was routed."""
        try:
            self._channel.basic_publish(EXCHANGE, key, body, mandatory=True)
        except pika.exceptions.UnroutableError:
            return False
        return True

    def wait_for_listener(self, key: str, body: bytes) -> None:
        """Publish until a sample is routed to a queue."""
        eventually_blocking(lambda: self.publish(key, body), f"somebody listens to {key}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def publishing(url: str) -> Iterator[Publisher]:
    publisher = Publisher(url)
    try:
        yield publisher
    finally:
        publisher.close()


def test_statistics_are_computed_from_pika_samples(broker_url: str, tmp_path: Path) -> None:
    with (
        publishing(broker_url) as publisher,
        Program(tmp_path, "monitor", "stats", *as_options(broker_url), "-k", "pi-1", "pi-2", "--json") as client,
    ):
        publisher.wait_for_listener("pi-1", sample(0.5, 10))
        publisher.publish("pi-1", sample(0.1, 30))
        publisher.publish("pi-1", sample(0.3, 20))
        publisher.wait_for_listener("pi-2", sample(1))
        assert not publisher.publish("pi-3", sample(1))
        client.wait_for('"pi-2"')
        assert client.end() == 0
        *samples, summary = map(json.loads, client.out.splitlines())
    assert [line["routing_key"] for line in samples] == ["pi-1", "pi-1", "pi-1", "pi-2"]
    third = samples[2]
    assert third["type"] == "sample"
    assert {name: third["cpu"][name] for name in ("current", "low", "high", "count")} == {
        "current": 0.3,
        "low": 0.1,
        "high": 0.5,
        "count": 3,
    }
    assert third["cpu"]["mean"] == pytest.approx(0.3)
    assert third["net"]["eth0"]["rx"]["stddev"] == pytest.approx(8.1649658)
    assert third["net"]["eth0"]["rx"]["p50"] == pytest.approx(20, rel=0.01)
    assert third["net"]["eth0"]["rx"]["p95"] == pytest.approx(30, rel=0.01)
    assert (summary["type"], summary["messages"], summary["skipped"]) == ("summary", 4, 0)
    assert summary["hosts"]["pi-1"]["cpu"] == third["cpu"]
    [line] = client.err.splitlines()
    assert "counting 'pi-1', 'pi-2'" in line


def test_plain_lines_show_current_highest_and_lowest(broker_url: str, tmp_path: Path) -> None:
    with (
        publishing(broker_url) as publisher,
        Program(tmp_path, "monitor", "stats", "-k", "pi-1", url=broker_url) as client,
    ):
        publisher.wait_for_listener("pi-1", sample(0.5, 10, 1))
        publisher.publish("pi-1", sample(0.25, 30, 2))
        client.wait_for(r"cpu 0\.25 ")
        assert client.end(signal.SIGTERM) == 0
    assert client.out.splitlines()[3:6] == [
        "pi-1 cpu 0.25 high 0.5 low 0.25",
        "pi-1 eth0 rx 30 B/s high 30 B/s low 10 B/s",
        "pi-1 eth0 tx 2 B/s high 2 B/s low 1 B/s",
    ]
    assert "summary: samples 2," in client.out
    assert "pi-1 cpu count 2 current 0.25 low 0.25 high 0.5 mean 0.375 stddev 0.125" in client.out


def test_malformed_samples_are_warned_of_once_and_counting_continues(broker_url: str, tmp_path: Path) -> None:
    bad = [b"nonsense", b"[]", b'{"net": {}}', b'{"cpu": 0.5}', b"[" * 100_000]
    with (
        publishing(broker_url) as publisher,
        Program(tmp_path, "monitor", "stats", "-k", "pi-1", "--json", url=broker_url) as client,
    ):
        publisher.wait_for_listener("pi-1", sample(0.5))
        for body in (*bad, *bad, b'{"cpu": 0.4, "net": {"bad\\u001b[2J": {"rx": 1}, "eth0": {"rx": 1, "tx": 1}}}'):
            publisher.publish("pi-1", body)
        client.wait_for(r'"current":0\.4')
        assert client.end() == 0
    summary = json.loads(client.out.splitlines()[-1])
    assert (summary["messages"], summary["skipped"]) == (2, 10)
    assert list(summary["hosts"]["pi-1"]["net"]) == ["eth0"]
    warnings = [line for line in client.err.splitlines() if "WARNING" in line]
    assert len(warnings) == len(bad) + 1
    assert all("'pi-1'" in line for line in warnings)
    assert "\x1b" not in client.err + client.out


def test_two_machines_with_one_routing_key_are_warned_of(broker_url: str, tmp_path: Path) -> None:
    def of(machine: str, cpu: float) -> bytes:
        return json.dumps({"cpu": cpu, "net": {}, "machine": machine}).encode()

    with (
        publishing(broker_url) as publisher,
        Program(tmp_path, "monitor", "stats", "-k", "pi-1", "--json", url=broker_url) as client,
    ):
        publisher.wait_for_listener("pi-1", of("old", 0.5))
        for machine in ("new", "new"):
            publisher.publish("pi-1", of(machine, 0.4))
        client.wait_for(r'"current":0\.4')
        assert "another machine" not in client.err  # it is the active consumer now
        for machine in ("old", "new", "old"):
            publisher.publish("pi-1", of(machine, 0.3))
        client.wait_for(r'"current":0\.3')
        client.wait_for("message of 'pi-1' comes from another machine than the one before")
        assert client.end() == 0
    assert client.err.count("another machine") == 1


async def publish_routed(channel: Channel, key: str, body: bytes) -> bool:
    try:
        await channel.publish(body, exchange=EXCHANGE, routing_key=key)
    except PublishReturned:
        return False
    return True


async def publish_when_heard(channel: Channel, key: str, body: bytes) -> None:
    """Publish one sample as soon as a queue is bound."""
    await eventually_awaited(lambda: publish_routed(channel, key, body), f"somebody listens to {key}", within=60)


async def test_the_client_ends_in_the_contracts_order_and_counts_the_rest(broker_url: str, tmp_path: Path) -> None:
    left = 250  # more than the consumer prefetches
    tap = Tap()
    async with (
        rabbitry.connect(broker_url) as connection,
        FaultProxy(parse_url(broker_url).hosts[0][1], tap=tap) as proxy,
    ):
        channel = await connection.channel()
        await channel.declare_exchange(EXCHANGE)
        options = as_options(through(proxy, broker_url))
        with Program(tmp_path, "monitor", "stats", *options, "-k", "pi-1", "--json") as client:
            await eventually(lambda: "basic.consume" in tap.methods, "it consumes")
            await publish_when_heard(channel, "pi-1", sample(0.5))
            await eventually(lambda: '"sample"' in client.out, "the first sample")
            client.send(signal.SIGSTOP)
            for _ in range(left):
                await channel.send(sample(0.5), exchange=EXCHANGE, routing_key="pi-1")
            await channel.wait_for_confirms()
            client.send(signal.SIGINT)
            client.send(signal.SIGCONT)
            await eventually(lambda: "connection.close" in tap.methods, "it closes")
            assert await asyncio.to_thread(client.wait) == 0  # its last answers pass the proxy, which runs on this loop
            summary = json.loads(client.out.splitlines()[-1])
        assert summary["messages"] == left + 1
        said = tap.methods[tap.methods.index("basic.cancel") :]
        gets = said.count("basic.get")
        assert gets > 1
        assert said == ["basic.cancel", *["basic.get"] * gets, "channel.close", "connection.close"]
        # Its queue is deleted, so the broker returns a mandatory message.
        assert not await publish_routed(channel, "pi-1", sample(0.5))


async def test_a_sample_that_comes_before_its_consumer_has_started_is_counted(broker_url: str) -> None:
    tap, asked, stop, counts = Tap(), asyncio.Event(), asyncio.Event(), Counts()

    def hold_the_answer(way: Way, data: bytes) -> None:
        tap(way, data)
        if not asked.is_set() and "basic.consume" in tap.methods:
            asked.set()
            proxy.pause(Way.TO_CLIENT)

    async def show(key: str, host: HostSeries) -> None: ...

    async with (
        rabbitry.connect(broker_url) as connection,
        FaultProxy(parse_url(broker_url).hosts[0][1], tap=hold_the_answer) as proxy,
    ):
        channel = await connection.channel()
        await channel.declare_exchange(EXCHANGE)
        client = asyncio.create_task(StatisticsClient(["pi-1"], counts, show).run(through(proxy, broker_url), stop))
        await asked.wait()
        await publish_when_heard(channel, "pi-1", sample(0.5))
        stop.set()
        for _ in range(10):  # turns of the loop in which it could cancel its consumer
            await asyncio.sleep(0)
        proxy.resume(Way.TO_CLIENT)
        await client
    assert counts.counted == 1


async def test_a_second_signal_ends_it_at_once(broker_url: str, tmp_path: Path) -> None:
    tap = Tap()
    async with FaultProxy(parse_url(broker_url).hosts[0][1], tap=tap) as proxy:
        options = as_options(through(proxy, broker_url))
        with Program(tmp_path, "monitor", "stats", *options, "-k", "pi-1") as client:
            # A program that is stopped while its consumer starts waits for that first.
            await eventually(lambda: "connected to" in client.err, "it consumes")
            proxy.pause(Way.TO_CLIENT)
            client.send()
            await eventually(lambda: "basic.cancel" in tap.methods, "it waits for the broker's answer")
            client.send()
            assert await asyncio.to_thread(client.wait) == 130


async def test_the_client_continues_after_a_lost_connection(broker_url: str, tmp_path: Path) -> None:
    async with rabbitry.connect(broker_url) as connection, FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        channel = await connection.channel()
        await channel.declare_exchange(EXCHANGE)
        options = as_options(through(proxy, broker_url))
        with Program(tmp_path, "monitor", "stats", *options, "-k", "pi-1", "--json") as client:
            await eventually(lambda: proxy.open_links, "it is connected")
            await publish_when_heard(channel, "pi-1", sample(0.5))
            await eventually(lambda: '"sample"' in client.out, "the first sample")
            proxy.refuse()
            await proxy.reset()
            await eventually(lambda: "trying again in" in client.err, "it says that the connection is lost")
            proxy.accept()
            await eventually(lambda: client.err.count("connected to") == 2, "it is connected again")
            await publish_when_heard(channel, "pi-1", sample(0.5))
            client.send()
            await eventually(lambda: '"summary"' in client.out, "the summary")
            assert await asyncio.to_thread(client.wait) == 0
        summary: dict[str, Any] = json.loads(client.out.splitlines()[-1])
        assert summary["messages"] == 2


def test_a_silent_broker_is_reported_with_advice(broker_url: str, tmp_path: Path) -> None:
    with (
        publishing(broker_url) as publisher,
        Program(tmp_path, "monitor", "stats", "-k", "pi-1", "-k", "pi-2", url=broker_url) as client,
    ):
        client.wait_for("nothing came from 'pi-1', 'pi-2' for 5 s.*rabbitry doctor")
        publisher.publish("pi-2", sample(0.5))
        client.wait_for("samples of 'pi-2' come")
        assert client.end() == 0


def test_an_exchange_with_other_flags_is_used_as_it_is_unless_strict(broker_url: str, tmp_path: Path) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    connection.channel().exchange_declare(EXCHANGE, "topic", durable=True)
    connection.close()
    with Program(tmp_path, "monitor", "stats", "-k", "pi-1", url=broker_url) as client:
        client.wait_for("WARNING.*'pi_utilization' exists with other flags and is used as it is")
        assert client.end() == 0
    with Program(tmp_path, "monitor", "stats", "-k", "pi-1", "--strict", url=broker_url) as client:
        assert client.wait() == 1
        assert "PRECONDITION_FAILED" in client.err
        assert len(client.err.splitlines()) == 1


def test_on_a_terminal_a_table_updates_in_place_and_the_log_stands_above_it(broker_url: str, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    client = subprocess.Popen(
        [sys.executable, "-m", "rabbitry", "monitor", "stats", *as_options(broker_url), "-k", "pi-1"],
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=tmp_path, env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)
    shown = bytearray()

    def appears(text: str) -> bool:
        if select.select([screen], [], [], 0.05)[0]:
            shown.extend(os.read(screen, 65536))
        return text.encode() in shown

    try:
        with publishing(broker_url) as publisher:
            publisher.wait_for_listener("pi-1", sample(0.5, 1234, 0))
            eventually_blocking(lambda: appears("1.23 kB/s"), "the first sample is drawn")
            publisher.publish("pi-1", sample(0.25))
            eventually_blocking(lambda: appears("25.0 %"), "the second sample is drawn")
            assert b"\x1b[1A" in shown  # the cursor moved up, over the previous table
            publisher.publish("pi-1", b"nonsense")
            eventually_blocking(lambda: appears("no JSON"), "the warning")
        del shown[:]
        client.send_signal(signal.SIGINT)
        eventually_blocking(lambda: appears("\x1b[?25h"), "the cursor is shown again")
        assert b"messages skipped 1" in shown
        assert client.wait(60) == 0
    finally:
        client.kill()
        client.wait()
        os.close(screen)
