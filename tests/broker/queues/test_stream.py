"""Streams: what clients see on both brokers, and what survives restarts and kills."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pika
import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.methods import Method
from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table, TaggedInt
from rabbitry.broker import Broker, BrokerConfig, _shares
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues import Stream
from rabbitry.broker._queues import stream as stream_module
from rabbitry.broker._queues import stream_log as log_module
from rabbitry.broker._queues.stream import with_offset
from rabbitry.broker._queues.stream_reader import Since, parse_offset
from rabbitry.broker._store.batch import Batch, Dropped, Found, StoreFull
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker.compat import RELEASES, Release
from rabbitry.broker.message import Message
from rabbitry.exceptions import InternalError
from rabbitry.testing import RunningBroker
from tests.differential.peer import Peer
from tests.support.embedded import BrokerProcess
from tests.support.management import Api
from tests.support.waiting import eventually

_STREAM: Table = {"x-queue-type": "stream"}


async def _declare(channel: Channel, **arguments: FieldValue) -> None:
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    await channel.declare_queue("s", durable=True, arguments={**_STREAM, **named})


async def _fill(channel: Channel, numbers: Sequence[int], body: bytes = b"") -> None:
    for number in numbers:
        await channel.send(b"%d" % number + body, routing_key="s")
    await channel.wait_for_confirms()


async def _read(url: str, count: int, offset: FieldValue = "first", prefetch: int = 50) -> list[tuple[int, bytes]]:
    """Return offset and body of a stream's messages, read by a consumer of its own."""
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel(prefetch=prefetch)
        found: list[tuple[int, bytes]] = []
        async with asyncio.timeout(120), channel.consume("s", arguments={"x-stream-offset": offset}) as deliveries:
            while len(found) < count:
                delivery = await anext(deliveries)
                at = (delivery.properties.headers or {})["x-stream-offset"]
                assert isinstance(at, int)
                found.append((at, delivery.body))
                delivery.ack()
        return found


def _numbered(first: int, end: int) -> list[tuple[int, bytes]]:
    return [(number, b"%d" % number) for number in range(first, end)]


async def test_consumers_read_a_stream_each_from_its_own_offset(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        await _fill(channel, range(200))
        one, other = await asyncio.gather(_read(broker_url, 200), _read(broker_url, 100, 100, prefetch=7))
        assert (one, other) == (_numbered(0, 200), _numbered(100, 200))
        following = asyncio.create_task(_read(broker_url, 3, 199))
        await _fill(channel, range(200, 202))
        assert await following == _numbered(199, 202)
        assert await _read(broker_url, 202, datetime(2020, 1, 1, tzinfo=UTC)) == _numbered(0, 202)
        await channel.delete_queue("s")


def test_pika_reads_a_stream_and_acknowledges(broker_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("s", durable=True, arguments={"x-queue-type": "stream", "x-max-age": "1h"})
        for number in range(20):
            channel.basic_publish("", "s", b"%d" % number, mandatory=True)
        channel.basic_qos(prefetch_count=5)
        found: list[tuple[int, bytes]] = []
        for method, properties, body in channel.consume("s", arguments={"x-stream-offset": 4}):
            found.append((properties.headers["x-stream-offset"], body))
            channel.basic_ack(method.delivery_tag)
            if len(found) == 16:
                break
        channel.cancel()
        channel.queue_delete("s")
    assert found == _numbered(4, 20)


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stream keep so few messages in memory that a test reads most of them from the store."""
    monkeypatch.setattr(log_module, "WINDOW", 50)
    monkeypatch.setattr(log_module, "_SPARE", 10)
    monkeypatch.setattr(stream_module, "READ_AT_ONCE", 64)


async def test_messages_beyond_the_window_are_read_from_the_store(tmp_path: Path, small_window: None) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        await _fill(channel, range(500))
        stream = broker.vhosts["/"].queues["s"]
        assert isinstance(stream, Stream)
        assert len(list(stream.held())) < 61
        assert await _read(broker.url, 500) == _numbered(0, 500)
        middle = time.time()
        await eventually(lambda: time.time() > middle, "time passes")
        await _fill(channel, range(500, 900))
        since = datetime.fromtimestamp(middle, UTC)
        many = await asyncio.gather(_read(broker.url, 1, 123), *(_read(broker.url, 900, prefetch=n) for n in (1, 300)))
        assert many == [_numbered(123, 124), _numbered(0, 900), _numbered(0, 900)]
        # A timestamp travels in whole seconds, so it may come before the first messages.
        (first, _), *_ = await _read(broker.url, 1, since)
        assert first <= 500
    async with Broker(config) as broker:
        assert len(broker.vhosts["/"].queues["s"]) == 900
        assert await _read(broker.url, 900) == _numbered(0, 900)
        assert await _read(broker.url, 1, "last") == _numbered(899, 900)
        assert await _read(broker.url, 900, "1h") == _numbered(0, 900)


async def _publish_at(channel: Channel, times: Sequence[float]) -> None:
    """Publish messages that come to the stream at these times."""
    for number, at in enumerate(times):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream_module, "mark_arrival", lambda entry, _, at=at: log_module.mark_arrival(entry, at))
            await channel.publish(b"%d" % number, routing_key="s")


async def test_a_time_is_found_by_bisection_of_the_store(tmp_path: Path, small_window: None) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        await _publish_at(channel, [1_000_000 + number for number in range(120)])
        for wanted in (0, 1, 40, 69, 70, 119):
            since = datetime.fromtimestamp(1_000_000 + wanted, UTC)
            assert await _read(broker.url, 1, since) == _numbered(wanted, wanted + 1)


async def test_retention_drops_whole_segments(tmp_path: Path) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    arguments: Table = {"x-max-length-bytes": 20_000, "x-stream-max-segment-size-bytes": 5_000}
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, **arguments)
        await _fill(channel, range(1000), b"x" * 100)
        left = len(broker.vhosts["/"].queues["s"])
        assert 20_000 / 240 * 0.7 < left < 20_000 / 220 + 25
        (first, body), *_ = await _read(broker.url, 1)
        assert (first, body) == (1000 - left, b"%d" % first + b"x" * 100)
        assert (await _read(broker.url, 1, 3))[0][0] == first
    async with Broker(config) as broker:
        assert len(broker.vhosts["/"].queues["s"]) == left
        found = await _read(broker.url, left)
        assert [at for at, _ in found] == list(range(first, 1000))


async def test_age_drops_segments_of_a_stream_in_memory() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, x_max_age="1h", x_stream_max_segment_size_bytes=1)
        now = time.time()
        await _publish_at(channel, [now - 1000 * age for age in range(9, -1, -1)])
        assert await _read(broker.url, 4) == _numbered(6, 10)


async def test_confirmed_messages_survive_kills_at_their_offsets(tmp_path: Path) -> None:
    with BrokerProcess("--data", str(tmp_path)) as broker:
        for round_ in range(3):
            async with rabbitry.connect(broker.url) as connection:
                channel = await connection.channel()
                await _declare(channel, x_stream_max_segment_size_bytes=10_000)
                await _fill(channel, range(round_ * 200, round_ * 200 + 200))
                broker.kill()
            broker.start()
            assert await _read(broker.url, (round_ + 1) * 200) == _numbered(0, (round_ + 1) * 200)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A disk that has no room for messages while it is `full`."""
    disk = {"full": False}
    apply = SQLiteStore.apply

    def apply_or_refuse(store: SQLiteStore, batch: Batch) -> list[Found]:
        if disk["full"] and batch.added:
            raise StoreFull("no room in the test")
        return apply(store, batch)

    monkeypatch.setattr(SQLiteStore, "apply", apply_or_refuse)
    return disk


async def test_consumers_pass_the_offsets_of_messages_without_room(tmp_path: Path, disk: dict[str, bool]) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        await _fill(channel, range(5))
        following = asyncio.create_task(_read(broker.url, 6))
        stream = broker.vhosts["/"].queues["s"]
        await eventually(lambda: stream.settlements == 5, "the consumer is at the end")
        disk["full"] = True
        with pytest.raises(rabbitry.PublishError):
            await channel.publish(b"refused", routing_key="s")
        disk["full"] = False
        await channel.publish(b"6", routing_key="s", timeout=100)  # once the alarm has ended
        assert await following == [*_numbered(0, 5), *_numbered(6, 7)]
        assert len(stream) == 6
        assert await _read(broker.url, 6) == [*_numbered(0, 5), *_numbered(6, 7)]


async def test_offsets_go_on_behind_a_segment_without_messages(tmp_path: Path, disk: dict[str, bool]) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, x_max_length_bytes=1, x_stream_max_segment_size_bytes=1)
        await _fill(channel, range(3))
        disk["full"] = True
        with pytest.raises(rabbitry.PublishError):
            await channel.publish(b"refused", routing_key="s")
        disk["full"] = False
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _fill(channel, range(3, 4))
        assert await _read(broker.url, 1) == _numbered(3, 4)


async def test_deleting_old_segments_delays_neither_consumers_nor_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = {"deletes": False}
    drop = SQLiteStore._drop_some

    def drop_later(self: SQLiteStore, waiting: list[Dropped], most: int) -> None:
        if store["deletes"]:
            drop(self, waiting, most)

    monkeypatch.setattr(SQLiteStore, "_drop_some", drop_later)
    arguments: Table = {"x-max-length-bytes": 1, "x-stream-max-segment-size-bytes": 5_000}
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, **arguments)
        try:
            await _fill(channel, range(60))
            assert len(broker.vhosts["/"].queues["s"]) < 50, "a segment was dropped"
            assert await _read(broker.url, 1, "last") == _numbered(59, 60)
            await channel.declare_queue("answered", durable=True)
        finally:
            store["deletes"] = True  # the broker waits for it when it stops


@pytest.mark.parametrize("refused", [m.BasicNack(0, multiple=True, requeue=True), m.BasicRecover(requeue=True)])
def test_a_refused_return_loses_no_delivery_of_another_queue(refused: Method) -> None:
    with RunningBroker() as broker:
        with Peer(broker.url) as peer:
            peer.queue("s", durable=True, x_queue_type="stream")
            peer.queue("q")
            peer.publish("", "q", b"kept")
            peer.publish("", "s", b"read")
            peer.call(m.BasicQos(0, 10))
            peer.consume("q", "z")  # returned after the stream's: in the order of tags
            peer.consume("s", "s", arguments={"x-stream-offset": "first"})
            peer.quiet()
            assert sum("BasicDeliver" in line for line in peer.log) == 2
            peer.send(refused)
            peer.quiet()
            assert not peer.is_open
        with Peer(broker.url) as peer:
            peer.until_it_has("q", 1)
            peer.get("q")
            assert "kept" in peer.log[-1]


async def test_a_deleted_stream_begins_anew(tmp_path: Path) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, x_stream_max_segment_size_bytes=1)
        await _fill(channel, range(20))
        await channel.delete_queue("s")
        await _declare(channel)
        await _fill(channel, range(3))
    async with Broker(config) as broker:
        assert await _read(broker.url, 3) == _numbered(0, 3)


@pytest.mark.parametrize("age", ["9" * 400 + "s", "9" * 5000 + "Y", "0" * 5000 + "1Y"])
async def test_very_long_ages_are_no_limit(tmp_path: Path, age: str) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, x_max_age=age)
        await _fill(channel, range(3))
        assert await _read(broker.url, 3, age) == _numbered(0, 3)
    async with Broker(config) as broker:
        assert await _read(broker.url, 3) == _numbered(0, 3)


def test_a_time_beyond_the_year_9999_is_no_offset() -> None:
    start = parse_offset(TaggedInt(1 << 63, b"T"), "stream")
    assert isinstance(start, Since)
    assert start.time == 1 << 63


async def test_a_policy_limits_a_stream_at_once() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, x_stream_max_segment_size_bytes=1)
        await _fill(channel, range(50))
        for _ in broker.putting_policy(Policy("/", "short", "s", {"max-length-bytes": 10 * 130})):
            pass
        left = len(broker.vhosts["/"].queues["s"])
        assert left == 10
        assert await _read(broker.url, left) == _numbered(40, 50)


async def test_the_management_api_shows_a_stream_and_imports_it() -> None:
    config = BrokerConfig(port=0, management_port=0)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, x_max_age="1h")
        await _fill(channel, range(5))
        api = Api(broker.management_url)
        assert await _read(broker.url, 5) == _numbered(0, 5)
        _, shown = await asyncio.to_thread(api, "GET", "/api/queues/%2F/s")
        assert isinstance(shown, dict)
        assert (shown["type"], shown["messages"], shown["messages_unacknowledged"]) == ("stream", 5, 0)
        status, _ = await asyncio.to_thread(api, "DELETE", "/api/queues/%2F/s/contents")
        assert status >= 400
        _, exported = await asyncio.to_thread(api, "GET", "/api/definitions")
        await channel.delete_queue("s")
        status, _ = await asyncio.to_thread(api, "POST", "/api/definitions", exported)
        assert status < 300
        stream = broker.vhosts["/"].queues["s"]
        assert isinstance(stream, Stream)
        assert stream.arguments == {"x-queue-type": "stream", "x-max-age": "1h"}
        assert len(stream) == 0


async def test_a_filter_applies_to_messages_of_the_store_too(tmp_path: Path, small_window: None) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path, compat="4.0")) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel(prefetch=10)
            await _declare(channel)
            for number in range(600):
                value = {"x-stream-filter-value": "few"} if not number % 100 else {}
                properties = rabbitry.Properties(headers=dict(value))
                await channel.send(b"%d" % number, routing_key="s", properties=properties)
            await channel.wait_for_confirms()
            arguments: Table = {"x-stream-offset": "first", "x-stream-filter": ["few"]}
            async with asyncio.timeout(120), channel.consume("s", arguments=arguments) as deliveries:
                found: list[bytes] = []
                while len(found) < 6:
                    found.append((await anext(deliveries)).body)
            assert found == [b"0", b"100", b"200", b"300", b"400", b"500"]


async def _commit_a_bad_value(url: str) -> None:
    """Commit an ack, and messages to a stream of which the last has an invalid value for filters."""
    async with rabbitry.connect(url, recover=False) as connection:
        channel = await connection.channel(confirms=False)
        await _declare(channel)
        await channel.declare_queue("q", durable=True)
        await channel.send(b"1", routing_key="q")
        async with channel.transaction():
            delivery = await channel.get("q")
            assert delivery is not None
            delivery.ack()
            for value in ("a", "a", "a", 5):
                properties = Properties(headers={"x-stream-filter-value": value})
                await channel.send(b"x", routing_key="s", properties=properties)


async def test_a_bad_value_for_filters_ends_a_long_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shares, "_SECONDS", 0.0)  # each later step has a turn of its own, with no handler around it
    async with Broker(BrokerConfig(port=0, compat="4.0")) as broker:
        with pytest.raises(InternalError, match="541"):
            await _commit_a_bad_value(broker.url)
        await eventually(lambda: len(broker.vhosts["/"].queues["q"]) == 1, "the return of the message")


async def test_a_transient_message_is_kept_by_the_queues_that_keep_all(tmp_path: Path) -> None:
    kinds = ("stream", "quorum", "classic")
    for names in (kinds, kinds[::-1]):
        folder = tmp_path / names[0]
        async with Broker(BrokerConfig(port=0, data=folder)) as broker, rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange("all", "fanout", durable=True)
            for name in names:
                await channel.declare_queue(name, durable=True, arguments={"x-queue-type": name})
                await channel.bind_queue(name, "all")
            for mode in (1, 2):
                await channel.publish(b"%d" % mode, exchange="all", properties=rabbitry.Properties(delivery_mode=mode))
            assert {name: len(broker.vhosts["/"].queues[name]) for name in names} == dict.fromkeys(names, 2)
        async with Broker(BrokerConfig(port=0, data=folder)) as broker:
            left = {name: len(broker.vhosts["/"].queues[name]) for name in names}
            assert left == {"stream": 2, "quorum": 2, "classic": 1}


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES.keys())
@pytest.mark.parametrize(
    "properties",
    [
        Properties(),
        Properties(delivery_mode=2),
        Properties(content_type="a/b", content_encoding="c", delivery_mode=1, priority=3, app_id="d"),
        Properties(content_encoding="c", message_id="i"),
        Properties(headers={}),
        Properties(headers={"a": 1, "x-stream-offset": "own", "x-nested": [1], "table": {"b": 1}}, type="t"),
    ],
)
def test_the_offset_is_added_to_a_header(properties: Properties, release: Release) -> None:
    message = Message(b"\0\1s", encode_header(properties, 3), b"abc", True)
    given = properties.headers or {}
    dropped = ("table",) if release.streams_keep_nested else ("table", "x-nested")
    kept = {name: value for name, value in given.items() if name not in dropped}
    headers: Table = {**kept, "x-stream-offset": 7}
    mode = properties.delivery_mode or (1 if release.streams_set_mode else None)
    assert decode_header(with_offset(message, 7, release)) == properties._replace(headers=headers, delivery_mode=mode)
