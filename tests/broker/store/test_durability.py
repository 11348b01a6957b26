"""Confirmed messages survive the broker's death, as counted by an outside client."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol.tables import MAX_DEPTH, FieldValue, Table
from rabbitry.broker import Broker, BrokerConfig, StoreFailed
from rabbitry.broker._management import messages
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._queues import contents as queue_module
from rabbitry.broker._store.batch import Batch, Found
from rabbitry.broker._store.sqlite import SQLiteStore
from tests.differential.peer import Peer
from tests.support import programs
from tests.support.embedded import BrokerProcess
from tests.support.waiting import at_once, eventually


async def _drain(channel: Channel, queue: str) -> list[tuple[bytes, bool]]:
    got: list[tuple[bytes, bool]] = []
    while (delivery := await channel.get(queue)) is not None:
        got.append((delivery.body, delivery.redelivered))
        delivery.ack()
    return got


async def test_durable_state_survives_a_restart(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("logs", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
        await channel.declare_exchange("gone", "direct")
        await channel.declare_queue("kept", durable=True, arguments={"x-max-priority": 3, "x-message-ttl": 10**7})
        await channel.declare_queue("other", durable=True)
        await channel.declare_queue("transient")
        await channel.bind_queue("kept", "logs", "a.#", arguments={"why": ["because", 1]})
        await channel.bind_queue("other", "logs", "#")
        await channel.bind_exchange("amq.topic", "logs", "x")
        for priority in (1, 3, 2):
            await channel.publish(
                b"%d" % priority, exchange="logs", routing_key="a.b", properties=rabbitry.Properties(priority=priority)
            )
        await channel.publish(b"transient", routing_key="kept", properties=rabbitry.Properties(delivery_mode=1))
        delivery = await channel.get("other")
        assert delivery is not None
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert await _drain(channel, "kept") == [(b"3", False), (b"2", False), (b"1", False)]
        assert await _drain(channel, "other") == [(b"1", True), (b"3", False), (b"2", False)]
        await channel.declare_exchange("logs", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
        await channel.publish(b"still bound", exchange="logs", routing_key="a.c")
        assert [body for body, _ in await _drain(channel, "kept")] == [b"still bound"]
        for queue in ("transient", "gone"):
            with pytest.raises(rabbitry.ChannelClosed):
                await channel.declare_queue(queue, passive=True)
            await channel.open()
        await channel.delete_queue("kept")
        await channel.delete_queue("other")
        await channel.delete_exchange("logs")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert not broker.vhosts["/"].queues
        assert "logs" not in broker.vhosts["/"].exchanges


async def test_after_a_stop_that_was_cut_short_all_messages_count_as_redelivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rabbitry.broker._shares._SECONDS", 0.0)
    monkeypatch.setattr("rabbitry.broker._channel._STEP", 1)
    broker = Broker(BrokerConfig(port=0, data=tmp_path, close_timeout=0.01))
    await broker.__aenter__()
    peer = await asyncio.to_thread(Peer, broker.url)
    async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
        await channel.declare_queue("q", durable=True)
        for number in range(2_000):
            await channel.send(b"%d" % number, routing_key="q")
        await channel.wait_for_confirms()
        await asyncio.to_thread(peer.consume, "q")
        await eventually(lambda: broker.vhosts["/"].queues["q"].unsettled == 2_000, "the consumer has all")
    stopping = asyncio.create_task(broker.__aexit__(None, None, None))
    await at_once(lambda: not broker.connections)
    for _ in range(5):  # until it notices that they are closed
        await asyncio.sleep(0)
    assert broker.shares.is_working, "it waits for the deliveries"
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert "stopped before all unsettled deliveries were recorded" in caplog.text
    await asyncio.to_thread(peer.drop)
    monkeypatch.undo()
    for _ in range(2):  # also if the next one stops before it has read them all
        async with Broker(BrokerConfig(port=0, data=tmp_path)) as again, rabbitry.connect(again.url) as connection:
            channel = await connection.channel()
            got = [await channel.get("q") for _ in range(100)]
            assert all(delivery is not None and delivery.redelivered for delivery in got)
            for delivery in got:
                assert delivery is not None
                delivery.ack()
    assert "was removed" not in caplog.text


async def test_the_keys_of_bcc_survive_a_restart(tmp_path: Path) -> None:
    """A dead letter goes to them too, and no consumer sees them."""
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for name in ("dead", "hidden"):
            await channel.declare_queue(name, durable=True)
            await channel.bind_queue(name, "amq.direct", f"to.{name}")
        await channel.declare_queue("q", durable=True, arguments={"x-dead-letter-exchange": "amq.direct"})
        headers: Table = {"BCC": ["to.hidden", "nowhere"], "CC": ["to.dead"], "a": 1}
        await channel.publish(b"m", routing_key="q", properties=rabbitry.Properties(headers=headers))
        await channel.publish(b"n", routing_key="q", properties=rabbitry.Properties(headers={"BCC": ["to.hidden"]}))
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        seen: list[Table | None] = []
        for _ in range(2):
            delivery = await channel.get("q")
            assert delivery is not None
            seen.append(delivery.properties.headers)
            delivery.reject(requeue=False)
        assert seen == [{"CC": ["to.dead"], "a": 1}, {}]
        assert [body for body, _ in await _drain(channel, "hidden")] == [b"m", b"n"]
        assert [body for body, _ in await _drain(channel, "dead")] == [b"m"]


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let queues keep so few messages in memory that a test can have many more."""
    monkeypatch.setattr(queue_module, "WINDOW", 2_000)
    monkeypatch.setattr(queue_module, "_AT_ONCE", 500)
    return 2_000


async def test_a_backlog_larger_than_the_window_keeps_its_order(tmp_path: Path, small_window: int) -> None:
    count = 6 * small_window
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel(prefetch=100)
        await channel.declare_queue("long", durable=True)
        for number in range(count):
            mode = 1 if number % 7 == 0 else 2
            await channel.send(b"%d" % number, routing_key="long", properties=rabbitry.Properties(delivery_mode=mode))
        await channel.wait_for_confirms()
        assert (await channel.declare_queue("long", passive=True)).message_count == count
        async with channel.consume("long") as deliveries:
            for number in range(count):
                delivery = await anext(deliveries)
                assert delivery.body == b"%d" % number
                delivery.ack()
        assert (await channel.declare_queue("long", passive=True)).message_count == 0


async def test_a_purge_deletes_stored_messages_too(tmp_path: Path, small_window: int) -> None:
    count = 3 * small_window
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        for number in range(count):
            await channel.send(b"%d" % number, routing_key="q")
        await channel.wait_for_confirms()
        held = await channel.get("q")
        assert held is not None
        assert await channel.purge_queue("q") == count - 1
        await channel.publish(b"after", routing_key="q")
        held.nack()
        assert [body for body, _ in await _drain(channel, "q")] == [b"0", b"after"]
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert (await channel.declare_queue("q", passive=True)).message_count == 0


async def test_dead_lettering_is_atomic(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("dead", durable=True)
        await channel.declare_queue(
            "q", durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        )
        for number in range(50):
            await channel.send(b"%d" % number, routing_key="q")
        await channel.wait_for_confirms()
        for _ in range(50):
            delivery = await channel.get("q")
            assert delivery is not None
            delivery.reject(requeue=False)
        await channel.declare_queue("q", passive=True)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert [body for body, _ in await _drain(channel, "dead")] == [b"%d" % number for number in range(50)]
        assert await _drain(channel, "q") == []


async def test_a_second_broker_on_the_folder_is_refused(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        with pytest.raises(StoreFailed, match="another broker"):
            async with Broker(BrokerConfig(port=0, data=tmp_path)):
                pass


async def test_a_full_store_nacks_and_recovers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"fits", routing_key="q")
        store = broker.journal._store
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()  # type: ignore[union-attr] # SQLite's
        store._connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[union-attr] # likewise
        with pytest.raises(rabbitry.PublishRefused):
            await channel.publish(b"x" * 1_000_000, routing_key="q")
        store._connection.execute("PRAGMA max_page_count = 100000")  # type: ignore[union-attr] # likewise
        await eventually(lambda: "room for the store again" in caplog.text, "room")
        await channel.publish(b"fits again", routing_key="q")
        assert [body for body, _ in await _drain(channel, "q")] == [b"fits", b"fits again"]


async def _publish_until_lost(url: str, confirmed: set[bytes], unknown: set[bytes], start: int) -> int:
    """Publish numbered messages until the broker is gone; record confirmed ones, and those that may have arrived."""
    number = start
    try:
        async with rabbitry.connect(url, recover=False) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)

            def done(body: bytes, future: "asyncio.Future[None]") -> None:
                if not future.cancelled() and future.exception() is None:
                    confirmed.add(body)

            while True:
                body = b"%d" % number
                unknown.add(body)
                number += 1
                future = await channel.send(body, routing_key="q")
                future.add_done_callback(lambda future, body=body: done(body, future))  # type: ignore[misc] # bound
                if number % 50 == 0:
                    await asyncio.sleep(0)
    except rabbitry.RabbitryError:
        return number


async def kill_again_and_again(folder: Path, kills: int, module: str = "rabbitry") -> tuple[int, int]:
    """Kill a broker under load `kills` times, then count. Gives how many were confirmed, and how many came twice.

    Raises AssertionError where a confirmed message is lost, or one is there that nobody published.
    """
    confirmed: set[bytes] = set()
    unknown: set[bytes] = set()
    number = 0
    with BrokerProcess("--data", str(folder), module=module) as broker:
        for round_ in range(kills):
            wanted = len(confirmed) + 20 + 30 * (round_ % 7)
            work = asyncio.create_task(_publish_until_lost(broker.url, confirmed, unknown, number))
            await eventually(lambda wanted=wanted: len(confirmed) >= wanted, f"{wanted} confirms", within=90)  # type: ignore[misc] # bound now
            broker.kill()
            number = await work
            broker.start()
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel(prefetch=1000)
            left = (await channel.declare_queue("q", passive=True)).message_count
            got: list[bytes] = []
            async with channel.consume("q") as deliveries:
                for _ in range(left):
                    delivery = await anext(deliveries)
                    got.append(delivery.body)
                    delivery.ack()
    assert confirmed - set(got) == set(), "confirmed and lost"
    assert set(got) - unknown == set(), "never published"
    return len(confirmed), len(got) - len(set(got))


async def test_a_killed_broker_loses_nothing_that_it_confirmed(tmp_path: Path) -> None:
    confirmed, twice = await kill_again_and_again(tmp_path, 6)
    assert confirmed > 100
    assert twice == 0


async def test_a_broker_that_confirms_before_it_writes_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="confirmed and lost"):
        await kill_again_and_again(tmp_path, 3, "tests.support.hasty_broker")


async def test_a_sync_comes_before_each_confirm(tmp_path: Path) -> None:
    """SIGKILL shows the order of writes and not that they reached the disk, so the system calls are looked at."""
    programs.require(None if shutil.which("strace") else "strace is not installed")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-x", "-s", "64", "-o", str(trace), "-e", "trace=fdatasync,fsync,sendto")
    with BrokerProcess("--data", str(tmp_path / "data"), prefix=strace) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)
            for number in range(20):
                await channel.publish(b"%d" % number, routing_key="q")
    confirms = 0
    is_synced = False
    for line in trace.read_text().splitlines():
        if "fdatasync(" in line or "fsync(" in line or "fdatasync resumed" in line:
            is_synced = True
        elif "sendto(" in line and _ACK in line:
            assert is_synced, f"a confirm before any sync: {line}"
            confirms += 1
            is_synced = False
    assert confirms == 20


_ACK = r"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"
"""How strace prints the beginning of a basic.ack frame on channel 1."""


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_two_hundred_kills(tmp_path: Path) -> None:
    confirmed, twice = await kill_again_and_again(tmp_path, 200)
    print(f"200 kills, {confirmed:,} confirmed, 0 lost, {twice} twice")
    assert twice == 0


async def test_a_get_waits_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a backlog is in memory after a restart, and yet the queue is not empty."""
    bodies = [b"%d" % number for number in range(5)]
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for queue in ("q", "over http"):
            await channel.declare_queue(queue, durable=True)
            for body in bodies:
                await channel.publish(body, routing_key=queue)

    def slow(store: SQLiteStore, batch: Batch) -> list[Found]:
        if batch.wanted:
            time.sleep(0.3)  # in the store's thread
        return apply(store, batch)

    apply = SQLiteStore.apply
    monkeypatch.setattr(SQLiteStore, "apply", slow)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert [body for body, _ in await _drain(channel, "q")] == bodies
        asked: dict[str, object] = {"count": 9, "ackmode": "ack_requeue_true", "encoding": "auto"}
        vhost = broker.vhosts["/"]
        got = await messages.get(vhost, vhost.queues["over http"], asked, Pace(), broker.shares)
        assert [json.loads(item)["payload"] for item in got] == [body.decode() for body in bodies]


async def test_arguments_of_maximum_depth_are_stored(tmp_path: Path) -> None:
    nested: dict[str, FieldValue] = {}
    for _ in range(MAX_DEPTH - 1):
        nested = {"x": nested}
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("deep", durable=True, arguments=nested)
        await channel.declare_exchange("deep", durable=True, arguments=nested)
        await channel.bind_queue("deep", "deep", arguments=nested)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert broker.vhosts["/"].queues["deep"].arguments == nested
        (binding,) = broker.vhosts["/"].all_bindings()
        assert binding.arguments == nested


@contextlib.contextmanager
def _no_more_pages(broker: Broker) -> Iterator[None]:
    """Let the database not become larger than it is."""
    store = broker.journal._store
    assert isinstance(store, SQLiteStore)
    connection = store._open_connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    connection.execute("PRAGMA max_page_count = 100000")


async def test_dead_lettering_needs_no_space(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("dead", durable=True)
        arguments: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        await channel.declare_queue("q", durable=True, arguments=arguments)
        await channel.publish(b"x" * 1_000_000, routing_key="q")
        delivery = await channel.get("q")
        assert delivery is not None
        with _no_more_pages(broker):
            delivery.reject(requeue=False)
            await channel.declare_queue("behind", durable=True)
            assert not broker.alarms.on
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert [len(body) for body, _ in await _drain(channel, "dead")] == [1_000_000]
        assert await _drain(channel, "q") == []


async def test_a_transaction_waits_for_space_but_acks_do_not(tmp_path: Path) -> None:
    """The acknowledgements of a transaction wait with its publishes."""
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        for body in (b"acked", b"in the transaction", b"left"):
            await channel.publish(body, routing_key="q")
        acked = await channel.get("q")
        transaction = await asyncio.to_thread(_begin, broker.url)
        with _no_more_pages(broker):
            committing = asyncio.create_task(asyncio.to_thread(transaction.tx_commit))
            await eventually(lambda: broker.journal.is_stuck, "no room")
            assert acked is not None
            acked.ack()
            await eventually(lambda: _stored(broker) == 2, "the ack is written")
            assert not committing.done()
        await committing
        await eventually(lambda: not broker.journal.is_stuck, "room")
        await asyncio.to_thread(transaction.connection.close)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        assert [len(body) for body, _ in await _drain(channel, "q")] == [4, 1_000_000]


def _begin(url: str) -> pika.adapters.blocking_connection.BlockingChannel:
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.tx_select()
    method, _, _ = channel.basic_get("q")
    channel.basic_ack(method.delivery_tag)
    channel.basic_publish("", "q", b"x" * 1_000_000, pika.BasicProperties(delivery_mode=2))
    return channel


def _stored(broker: Broker) -> int:
    """Count the entries in the store's file, as of its last commit."""
    store = broker.journal._store
    assert isinstance(store, SQLiteStore)
    (count,) = store._open_connection().execute("SELECT COUNT(*) FROM entries").fetchone()
    return int(count)


async def test_a_backlog_of_large_messages_is_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.broker._queues.contents.WINDOW_BYTES", 1000)
    bodies = [b"%0*d" % (100 + number * 7 % 300, number) for number in range(60)]
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        for body in bodies:
            await channel.publish(body, routing_key="q")
        lane = broker.vhosts["/"].queues["q"]._lane
        assert 0 < lane.size < 1400
        assert lane.tail > 40
        assert [body for body, _ in await _drain(channel, "q")] == bodies
        assert (lane.size, lane.tail) == (0, 0)
        for body in bodies:
            await channel.publish(body, routing_key="q")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel(prefetch=3)
        async with channel.consume("q") as deliveries:
            for body in bodies:
                delivery = await anext(deliveries)
                assert delivery.body == body
                delivery.ack()


async def test_a_held_message_is_written_despite_constant_traffic(tmp_path: Path) -> None:
    """A batch waits for acks that are in flight, but not for any that do not arrive."""
    with BrokerProcess("--data", str(tmp_path / "data")) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            for queue in ("held", "busy"):
                await channel.declare_queue(queue, durable=True)
            async with channel.consume("held") as holding, channel.consume("busy") as busy:
                coming_and_going = asyncio.create_task(asyncio.to_thread(_publish_unconfirmed, broker.url, 3000))
                taken = 0
                async for delivery in busy:
                    delivery.ack()
                    taken += 1
                    if taken == 500:
                        await channel.publish(b"confirmed", routing_key="held")
                    if taken == 3000:
                        break
                await coming_and_going
                held = [(await anext(holding)).body for _ in range(2)]
                assert sorted(held) == [b"confirmed", b"unconfirmed"]
                broker.kill()
        broker.start()
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            assert sorted(body for body, _ in await _drain(channel, "held")) == [b"confirmed", b"unconfirmed"]


def _publish_unconfirmed(url: str, count: int) -> None:
    persistent = pika.BasicProperties(delivery_mode=2)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for number in range(count):
            if number == 100:
                channel.basic_publish("", "held", b"unconfirmed", persistent)
            channel.basic_publish("", "busy", b"x", persistent)


async def test_a_queue_with_a_missing_record_does_not_affect_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for name in ("a", "b", "c"):
            await channel.declare_queue(name, durable=True)
            await channel.publish(name.encode(), routing_key=name)
    store = sqlite3.connect(tmp_path / "broker.sqlite")
    store.execute("DELETE FROM records WHERE kind = 'queue' AND key LIKE '%c'")
    store.commit()
    store.close()
    for is_first in (True, False):
        async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            assert ("no record of the queue with number 3; its messages are in the queue" in caplog.text) == is_first
            caplog.clear()
            assert (await channel.declare_queue("rabbitry.recovered.3", passive=True)).message_count == 1
            await channel.declare_queue("new", durable=True)
            assert broker.vhosts["/"].queues["new"].id > 3, "what is left of the other one would be its"
            for name in ("a", "b"):
                assert (await channel.declare_queue(name, passive=True)).message_count == 1


async def test_an_answered_purge_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._queues.contents._FORGOTTEN_AT_ONCE", 1)
    monkeypatch.setattr("rabbitry.broker._shares._SECONDS", 0.0)  # each step in a turn of its own
    async with (
        Broker(BrokerConfig(port=0, data=tmp_path / "data")) as broker,
        rabbitry.connect(broker.url) as connection,
    ):
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        for number in range(1000):
            await channel.send(b"%d" % number, routing_key="q")
        await channel.wait_for_confirms()
        assert await channel.purge_queue("q") == 1000
        shutil.copytree(tmp_path / "data", tmp_path / "killed")  # as it would be found after a crash
    async with Broker(BrokerConfig(port=0, data=tmp_path / "killed")) as broker:
        assert len(broker.vhosts["/"].queues["q"]) == 0
