"""Work that depends on lengths which clients choose ends by time, and the rest follows in later turns of the loop."""

import asyncio
import contextlib
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker import Broker, BrokerConfig, _recovery
from rabbitry.broker import _shares as shares
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues import Queue, Stream, backlog, contents, stream_log, waiting
from rabbitry.broker._queues import queue as queue_module
from rabbitry.broker._queues import stream as stream_module
from rabbitry.broker._store import journal, sqlite
from rabbitry.broker._store.batch import Batch, Found, StoredLane
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.message import Message
from rabbitry.broker.reading import Reason
from tests.differential.peer import Peer
from tests.support.steps import take_all
from tests.support.waiting import at_once, eventually


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every turn be over at the first look at the clock."""
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    for module in (backlog, queue_module, stream_module, waiting):
        monkeypatch.setattr(module, "LONGEST_TURN", 0.0)


def _declare(broker: Broker, name: str, **arguments: object) -> Queue:
    named: Table = {key.replace("_", "-"): value for key, value in arguments.items()}  # type: ignore[misc] # the tests' own
    return broker.vhosts["/"].declare_queue(
        name, None, durable=True, exclusive=False, auto_delete=False, arguments=named
    )


def _delaying(vhost: VirtualHost, kind: str) -> waiting.WaitingRoom:
    """Declare the exchange `later`, which delays messages for one of this type, and return what holds them."""
    vhost.declare_exchange(
        "later", "x-delayed-message", durable=True, auto_delete=False, internal=False,
        arguments={"x-delayed-type": kind},
    )  # fmt: skip
    room = vhost.exchanges["later"].waiting
    assert room is not None
    return room


def _fill(queue: Queue, count: int, properties: Properties | None = None) -> None:
    for number in range(count):
        body = b"%d" % number
        queue.push(
            Message(
                b"\x00\x01q", encode_header(properties or Properties(delivery_mode=2), len(body)), body, persistent=True
            )
        )


@contextlib.asynccontextmanager
async def _consumer(broker: Broker, queue: str, *, is_global: bool = False) -> AsyncIterator[Peer]:
    """A consumer that settles nothing."""
    peer = await asyncio.to_thread(Peer, broker.url)
    try:
        await asyncio.to_thread(peer.call, m.BasicQos(0, 1000, is_global))
        await asyncio.to_thread(peer.call, m.BasicConsume(queue))
        yield peer
    finally:
        await asyncio.to_thread(peer.drop)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_copy_of_each_delivery_is_looked_at(kind: str) -> None:
    async with Broker(BrokerConfig(port=0)) as broker, _consumer_of_new(broker, kind) as queue:
        _fill(queue, 50)
        queue.dispatch()
        assert queue.ready == 0, "50 deliveries are few"
        broker.vhosts["/"].trace(is_on=True)
        _fill(queue, 50)
        queue.dispatch()
        assert queue.ready == 49, "each is copied to as many queues as are bound for that"
        await eventually(lambda: not queue.ready, "the others have come in later turns")


@contextlib.asynccontextmanager
async def _consumer_of_new(broker: Broker, kind: str) -> AsyncIterator[Queue]:
    queue = _declare(broker, "q", x_queue_type=kind)
    async with _consumer(broker, "q"):
        yield queue


async def test_each_delivery_with_a_count_is_looked_at() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, _consumer_of_new(broker, "quorum") as queue:
        _fill(queue, 50)
        for entry in queue.held():
            entry.deliveries = 1
        queue.dispatch()
        assert queue.ready == 49
        await eventually(lambda: not queue.ready, "the others have come in later turns")


async def test_each_delivery_of_a_stream_is_looked_at() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        stream = _declare(broker, "s", x_queue_type="stream")
        async with _consumer(broker, "s"):
            _fill(stream, 50)
            stream.dispatch()
            assert stream.unsettled == 0
            assert stream.delivered == 1
            await eventually(lambda: stream.delivered == 50, "the others have come in later turns")


async def test_a_publish_that_is_copied_ends_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._connection._TURN", 0.0)
    async with Broker(BrokerConfig(port=0)) as broker:
        queue = _declare(broker, "q")
        broker.vhosts["/"].trace(is_on=True)
        peer = await asyncio.to_thread(Peer, broker.url)
        for _ in range(12):
            peer.publish("", "q")
        await at_once(lambda: queue.ready)
        assert queue.ready < 12
        await eventually(lambda: queue.ready == 12, "the others have come in later turns")
        await asyncio.to_thread(peer.drop)


async def test_each_ack_of_a_channel_with_a_prefetch_of_its_own_ends_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._connection._TURN", 0.0)
    async with Broker(BrokerConfig(port=0)) as broker:
        queue = _declare(broker, "q")
        async with _consumer(broker, "q", is_global=True) as peer:
            _fill(queue, 12)
            queue.dispatch()
            await eventually(lambda: queue.unsettled == 12, "it has all")
            peer.raw(b"".join(hot.encode_method_frame(1, encode_method(m.BasicAck(tag))) for tag in range(1, 13)))
            await at_once(lambda: queue.unsettled < 12)
            assert queue.unsettled
            await eventually(lambda: not queue.unsettled, "the others are acknowledged in later turns")


async def test_a_publish_with_very_many_keys_is_routed_in_steps() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for number in range(3):
            await channel.declare_queue(f"q{number}")
            await channel.bind_queue(f"q{number}", "amq.topic", "#.last" if number else "other")
        keys: list[FieldValue] = [f"key.number.{number}" for number in range(400)]
        headers: Table = {"CC": [*keys, "very.last"]}
        sent = await channel.send(b"1", exchange="amq.topic", routing_key="k", properties=Properties(headers=headers))
        await at_once(lambda: broker.shares.is_working)
        broker.vhosts["/"].delete_queue(broker.vhosts["/"].queues["q1"])
        following = await channel.send(b"2", routing_key="q2")
        await asyncio.gather(sent, following)
        assert [entry.message.body for entry in broker.vhosts["/"].queues["q2"].held()] == [b"1", b"2"]
        headers = {"CC": keys}
        with pytest.raises(rabbitry.PublishReturned):
            await channel.publish(b"3", exchange="amq.topic", routing_key="k", properties=Properties(headers=headers))


@pytest.mark.parametrize("is_delayed", [False, True])
async def test_dead_letters_and_delayed_messages_with_very_many_keys_are_routed_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_delayed: bool
) -> None:
    many: list[FieldValue] = [*(f"key.number.{number}" for number in range(400)), "very.last"]
    async with Broker(BrokerConfig(port=0, data=tmp_path / "data")) as broker:
        vhost, target = broker.vhosts["/"], _declare(broker, "target")
        source = _declare(broker, "source", x_dead_letter_exchange="amq.topic")
        room = _delaying(vhost, "topic")
        for exchange in ("later", "amq.topic"):
            vhost.bind(exchange, target, "#.last", {})
        held: list[Callable[[], None]] = []
        with monkeypatch.context() as context:
            context.setattr(broker.shares, "wait", held.append)
            for delay, keys in ((1, many), (2, ["very.last"])):
                _fill(
                    room if is_delayed else source,
                    1,
                    Properties(delivery_mode=2, headers={"x-delay": delay, "CC": keys}),
                )
            while not is_delayed and (entry := source.take(0.0)) is not None:
                source.rejected(entry)
            await eventually(lambda: held, "the first steps are taken")
            await broker.journal.committed_now()
            assert not target.ready
            shutil.copytree(tmp_path / "data", tmp_path / "crashed")
        for go_on in held:
            broker.shares.wait(go_on)
        await eventually(lambda: target.ready == 2, "both are there")
        assert [len(entry.message.header) > 1_000 for entry in target.held()] == [True, False]
    async with Broker(BrokerConfig(port=0, data=tmp_path / "data")) as broker:
        assert {name: queue.ready for name, queue in broker.vhosts["/"].queues.items()} == {"source": 0, "target": 2}
    async with Broker(BrokerConfig(port=0, data=tmp_path / "crashed")) as broker:
        queues = broker.vhosts["/"].queues
        await eventually(lambda: queues["target" if is_delayed else "source"].ready == 2, "a crash loses none")


_KEYS_IN_STEPS: list[FieldValue] = [*(f"key.number.{number}" for number in range(400)), "very.last"]


@contextlib.asynccontextmanager
async def _behind_a_letter_in_steps(
    broker: Broker, kind: str, count: int = 100
) -> AsyncIterator[tuple[Queue, Callable[[], object]]]:
    """Prepare messages to be moved to a queue in one of the ways, while a dead letter is routed in steps.

    Yield the queue, and a function that moves them.
    """
    vhost, target = broker.vhosts["/"], _declare(broker, "target")
    first = _declare(broker, "first", x_dead_letter_exchange="amq.topic")
    vhost.bind("amq.topic", _declare(broker, "elsewhere"), "#.last", {})
    dead = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": "target"}
    limits: dict[str, object] = {"x_queue_type": "quorum", "x_delivery_limit": 1} if kind == "delivery limit" else {}
    source = _declare(broker, "source", **dead, **limits)
    room = _delaying(vhost, "fanout")
    vhost.bind("later", target, "", {})
    is_delayed = kind == "delayed"
    _fill(
        room if is_delayed else source,
        count,
        Properties(delivery_mode=2, headers={"x-delay": 1} if is_delayed else None),
    )
    if is_delayed:
        room.close()  # stops the timer
        await asyncio.sleep(0.002)
    taken = [source.take(0.0) for _ in range(count)] if kind in ("rejected", "delivery limit") else []
    entries = [entry for entry in taken if entry is not None]
    for entry in [*source.held(), *entries]:
        entry.expires = 1.0 if kind in ("expired", "taken") else 0.0
        entry.deliveries = 1
    source._expiring = kind in ("expired", "taken")
    moves: dict[str, Callable[[], object]] = {
        "expired": source.drop_expired,
        "taken": source.get,
        "over the limit": lambda: take_all(broker.putting_policy(Policy("/", "short", "^source$", {"max-length": 0}))),
        "delayed": room.dispatch,
        "rejected": lambda: deque(map(source.rejected, entries)),
        "delivery limit": lambda: deque(map(source.requeue, entries)),
    }
    _fill(first, 1, Properties(delivery_mode=2, headers={"CC": _KEYS_IN_STEPS}))
    letter = first.take(0.0)
    assert letter is not None
    first.rejected(letter)
    assert vhost.is_moving_late
    yield target, moves[kind]
    await eventually(lambda: target.ready == count, "all are moved")
    assert vhost.queues["elsewhere"].ready == 1
    assert [entry.message.body for entry in target.held()] == [b"%d" % number for number in range(count)]


_KINDS = ("expired", "taken", "over the limit", "delayed", "rejected", "delivery limit")


@pytest.mark.parametrize("kind", _KINDS)
async def test_letters_behind_one_in_steps_do_not_come_in_one_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    async with Broker(BrokerConfig(port=0)) as broker, _behind_a_letter_in_steps(broker, kind) as (target, move):
        wait = broker.shares.wait

        def watched(go_on: Callable[[], None]) -> None:
            def counted() -> None:
                nonlocal most
                before = target.ready
                go_on()
                most = max(most, target.ready - before)

            wait(counted)

        monkeypatch.setattr(broker.shares, "wait", watched)
        move()
    assert most == 1


@pytest.mark.parametrize("kind", _KINDS[:4])
async def test_few_messages_are_given_up_behind_a_letter_in_steps(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (backlog, waiting):
        monkeypatch.setattr(module, "LONGEST_TURN", 60.0)
    async with Broker(BrokerConfig(port=0)) as broker, _behind_a_letter_in_steps(broker, kind) as (target, move):
        move()
        assert len(broker.vhosts["/"]._moves._waiting) <= 2, "the others wait in their queue"
        assert not target.ready


async def test_messages_that_go_nowhere_do_not_wait_for_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "LONGEST_TURN", 60.0)
    async with Broker(BrokerConfig(port=0)) as broker, _behind_a_letter_in_steps(broker, "expired", 1) as (_, move):
        queue = _declare(broker, "plain")
        _fill(queue, 100)
        for entry in queue.held():
            entry.expires = 1.0
        queue.drop_expired()
        assert not queue.ready
        move()


async def test_very_many_segments_of_a_stream_are_dropped_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_log, "_DROPPED_AT_ONCE", 10)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        arguments: Table = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 1}
        await channel.declare_queue("s", durable=True, arguments=arguments)
        for number in range(200):
            await channel.send(b"%d" % number, routing_key="s")
        await channel.wait_for_confirms()
        stream = broker.vhosts["/"].queues["s"]
        take_all(broker.putting_policy(Policy("/", "short", "^s$", {"max-length-bytes": 1})))
        assert 1 < stream.ready < 200
        await eventually(lambda: stream.ready == 1, "all but the last segment are gone")
        await channel.publish(b"200", routing_key="s")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        stream = broker.vhosts["/"].queues["s"]
        assert isinstance(stream, Stream)
        assert stream.ready == 1
        assert stream.next_position == 201


async def test_what_a_deleted_stream_or_delayed_exchange_held_is_freed_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contents, "_FREED_AT_ONCE", 10)
    async with Broker(BrokerConfig(port=0)) as broker:
        vhost = broker.vhosts["/"]
        _fill(_declare(broker, "s", x_queue_type="stream"), 100)
        vhost.delete_queue(vhost.queues["s"])
        assert broker.shares.is_working
        await broker.shares.finished()
        room = _delaying(vhost, "direct")
        _fill(room, 100, Properties(headers={"x-delay": 1_000_000}))
        vhost.delete_exchange("later", if_unused=False)
        assert broker.shares.is_working
        await broker.shares.finished()


# -- the store's batches -----------------------------------------------------------------------------------


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the store call ten rows many, and return the most messages that came in one batch since the last call."""
    monkeypatch.setattr(journal, "_MOST_ROWS", 10)
    seen = [0]
    written = SQLiteStore.apply

    def watched(store: SQLiteStore, batch: Batch) -> list[Found]:
        seen.append(len(batch.added))
        return written(store, batch)

    monkeypatch.setattr(SQLiteStore, "apply", watched)

    def most() -> int:
        found = max(seen)
        seen[:] = [0]
        return found

    return most


async def _filled(broker: Broker, arguments: Table, properties: Properties) -> tuple[Queue, Queue]:
    dead = _declare(broker, "dead")
    queue = broker.vhosts["/"].declare_queue(
        "q", None, durable=True, exclusive=False, auto_delete=False,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", **arguments},
    )  # fmt: skip
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for number in range(200):
            await channel.send(b"%d" % number, routing_key="q", properties=properties)
        await channel.wait_for_confirms()
    return queue, dead


async def test_expired_messages_are_dead_lettered_no_faster_than_they_are_written(
    tmp_path: Path, largest: Callable[[], int]
) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        queue, dead = await _filled(broker, {}, Properties(delivery_mode=2))
        largest()
        take_all(broker.putting_policy(Policy("/", "ttl", "^q$", {"message-ttl": 0})))
        for entry in queue.held():
            entry.expires = 1.0
        queue.dispatch()
        await eventually(lambda: dead.ready == 200, "all are dead letters")
        await broker.journal.committed_now()
        assert largest() < 15


async def test_expired_messages_that_wait_for_a_turn_are_not_dead_lettered_before() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        queue, dead = await _filled(broker, {"x-message-ttl": 1_000_000}, Properties(delivery_mode=2))
        for entry in queue.held():
            entry.expires = 1.0
        queue._when_due()
        for _ in range(50):
            queue.dispatch()  # as each publish does
            queue._when_due()
        assert (queue.ready, dead.ready, len(broker.shares._waiting)) == (200, 0, 1)
        await eventually(lambda: dead.ready == 200, "all are dead letters")


async def test_a_get_waits_with_its_queue_until_the_store_accepts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        queue, dead = await _filled(broker, {"x-message-ttl": 1_000_000}, Properties(delivery_mode=2))
        for entry in queue.held():
            entry.expires = 1.0
        tried: list[float] = []
        first = Queue.get

        def counted(queue: Queue) -> object:
            tried.append(len(queue))
            return first(queue)

        monkeypatch.setattr(Queue, "get", counted)
        with monkeypatch.context() as crowded:
            crowded.setattr(journal.Journal, "is_crowded", True)
            peer = await asyncio.to_thread(Peer, broker.url)
            got = asyncio.create_task(asyncio.to_thread(peer.call, m.BasicGet("q")))
            await eventually(lambda: tried, "the get")
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(tried) == 1
        broker.journal._tell_throttled()
        await got
        await eventually(lambda: dead.ready == 200, "all are dead letters")
        await asyncio.to_thread(peer.drop)


async def test_excess_messages_are_dead_lettered_no_faster_than_they_are_written(
    tmp_path: Path, largest: Callable[[], int]
) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        _, dead = await _filled(broker, {}, Properties(delivery_mode=2))
        largest()
        take_all(broker.putting_policy(Policy("/", "short", "^q$", {"max-length": 0})))
        await eventually(lambda: dead.ready == 200, "all are dead letters")
        await broker.journal.committed_now()
        assert largest() < 15


async def test_delayed_messages_are_routed_no_faster_than_they_are_written(
    tmp_path: Path, largest: Callable[[], int]
) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        vhost, queue = broker.vhosts["/"], _declare(broker, "q")
        room = _delaying(vhost, "fanout")
        vhost.bind("later", queue, "", {})
        _fill(room, 200, Properties(delivery_mode=2, headers={"x-delay": 500}))
        await broker.journal.committed_now()
        largest()
        await eventually(lambda: queue.ready == 200, "all were routed")
        await broker.journal.committed_now()
        assert largest() < 15


async def test_confirms_do_not_wait_until_all_queues_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        for number in range(20):
            _fill(_declare(broker, f"q{number}"), 3)
        await broker.journal.committed_now()
    monkeypatch.setattr(sqlite, "_READS_FOR", 0.0)
    found: list[int] = []
    read = SQLiteStore._read

    def watched(store: SQLiteStore, wanted: list[object]) -> list[Found]:
        answers = read(store, wanted)  # type: ignore[arg-type] # what it gets
        found.append(len(answers))
        return answers

    monkeypatch.setattr(SQLiteStore, "_read", watched)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        queues = broker.vhosts["/"].queues.values()
        await eventually(lambda: all(list(queue.held()) for queue in queues), "all are read")
    assert [count for count in found if count] == [1] * 20


# -- the start, alarms, overdue deliveries -----------------------------------------------------------------


async def test_records_are_restored_in_slices_and_no_queue_expires_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        _declare(broker, "q")
        for number in range(100):
            _fill(_declare(broker, f"expiring{number}", x_expires=60_000), 1)
        await broker.journal.committed_now()
    monkeypatch.setattr(_recovery, "_SLICE", 0.0)
    monkeypatch.setattr("rabbitry.broker._queues.queue.Queue.note_use", _expire_at_once)
    broker = Broker(BrokerConfig(port=0, data=tmp_path))
    seen: set[int] = set()

    async def look() -> None:
        while True:
            seen.add(len(broker.vhosts["/"].queues))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    async with broker:
        looking.cancel()
        assert len(seen) > 50, "others had turns between the records"
        await eventually(lambda: list(broker.vhosts["/"].queues) == ["q"], "the unused ones have expired")
    assert "damaged" not in caplog.text, "a queue that expired before its messages were restored would have no record"


def _expire_at_once(queue: Queue) -> None:
    if queue.rules.expires is not None:
        queue._unused_timer.start(0.0, queue._when_overdue)


async def test_queues_are_restored_in_slices_and_get_dead_letters_once_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        dead = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": "dead"}
        for number in range(100):
            _fill(_declare(broker, f"q{number}", x_message_ttl=3_600_000, **dead), 1)
        _fill(_declare(broker, "dead"), 10)
        await broker.journal.committed_now()
    monkeypatch.setattr(_recovery, "_SLICE", 0.0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    broker = Broker(BrokerConfig(port=0, data=tmp_path))
    seen: set[int] = set()

    async def look() -> None:
        while True:
            seen.add(sum(queue.ready for queue in broker.vhosts["/"].queues.values()))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    async with broker:
        looking.cancel()
        assert len(seen) > 50, "others had turns between the queues"
        target = broker.vhosts["/"].queues["dead"]
        await eventually(lambda: target.ready == 110, "the expired ones have moved")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert {name: queue.ready for name, queue in broker.vhosts["/"].queues.items() if queue.ready} == {"dead": 110}


async def test_a_queue_that_was_read_before_its_turn_at_a_start_is_not_read_again(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        _fill(_declare(broker, "dead"), 1)
        await broker.journal.committed_now()
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        queue = broker.vhosts["/"].queues["dead"]
        await eventually(lambda: list(queue.held()), "its message is read, as dead letters have it read")
        queue.read_first(StoredLane(queue.id, 0, 1, 1, 0), 1)
        _fill(queue, 2)  # the store would find these
        for _ in range(2):
            await broker.journal.committed_now()
        assert [entry.message.body for entry in queue.held()] == [b"0", b"0", b"1"]


async def test_publishers_continue_in_turns_when_an_alarm_ends() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, contextlib.AsyncExitStack() as stack:
        queue = _declare(broker, "q")
        broker.alarms.force(Reason.DISK, is_on=True)
        for _ in range(5):
            peer = await asyncio.to_thread(Peer, broker.url)
            stack.push_async_callback(asyncio.to_thread, peer.drop)
            peer.publish("", "q", b"x")
        gates = [connection.gate for connection in broker.connections]
        await eventually(lambda: all(Reason.ALARM in gate.reasons for gate in gates), "all are blocked")
        broker.alarms.force(Reason.DISK, is_on=False)
        assert not queue.ready
        broker.alarms.force(Reason.DISK, is_on=True)  # an alarm that begins again holds them again
        broker.alarms.force(Reason.DISK, is_on=False)
        await eventually(lambda: queue.ready == 5, "each has had its turn")


async def test_overdue_deliveries_are_looked_for_in_steps() -> None:
    config = BrokerConfig(port=0, consumer_timeout=1)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        for _ in range(20):
            await connection.channel()
        broker._overdue._on_timer()
        assert broker.shares.is_working
        await broker.shares.finished()
