"""Very many deliveries, consumers and queues that change at one moment: others are served, and nothing is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.protocol.methods import (
    BasicAck,
    BasicConsume,
    BasicNack,
    BasicRecover,
    Method,
    TxCommit,
    TxRollback,
    TxSelect,
)
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker import _channel as channel
from rabbitry.broker import _connection as connection
from rabbitry.broker import _shares as shares
from rabbitry.broker import _transaction as transaction
from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._ordering import in_order
from rabbitry.broker._queues import Queue
from rabbitry.broker.message import Message
from tests.differential.peer import Peer
from tests.support.waiting import at_once, eventually

_MANY = 400


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let brokers take few steps in each loop iteration, each of two deliveries."""
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    monkeypatch.setattr(channel, "_STEP", 2)
    monkeypatch.setattr(channel, "_TAKEN_AT_ONCE", 2)
    monkeypatch.setattr(transaction, "_STEP", 2)


@pytest.fixture
async def broker(small_steps: None) -> AsyncIterator[Broker]:
    """A broker with small steps."""
    async with Broker(BrokerConfig(port=0)) as broker:
        yield broker


def _push(broker: Broker, queue: Queue, body: bytes) -> None:
    queue.push(Message(b"\x00\x01q", encode_header(Properties(), len(body)), body, False))
    broker.dispatcher.touch(queue)
    broker.dispatcher.dispatch()


def _filled(broker: Broker) -> Queue:
    queue = broker.vhosts["/"].declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    for number in range(_MANY):
        _push(broker, queue, b"%d" % number)
    return queue


async def _holder(broker: Broker, queue: Queue, stack: contextlib.AsyncExitStack, *, tx: bool) -> Peer:
    peer = await asyncio.to_thread(Peer, broker.url)
    stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
    if tx:
        await asyncio.to_thread(peer.call, TxSelect())
    await asyncio.to_thread(peer.consume, "q")
    await eventually(lambda: queue.unsettled == _MANY, "the consumer has all")
    return peer


def _side(broker: Broker) -> tuple[connection.ClientConnection, channel.Channel]:
    """Return the broker's side of the connection that consumes."""
    for known in broker.connections:
        for its in known.channels.values():
            if its.consumers:
                return known, its
    raise AssertionError("nobody consumes")


async def test_many_deliveries_are_settled_while_others_are_served(broker: Broker) -> None:
    queue = _filled(broker)
    async with contextlib.AsyncExitStack() as stack:
        asking = await stack.enter_async_context(rabbitry.connect(broker.url))
        other = await stack.enter_async_context(await asking.channel())
        peer = await _holder(broker, queue, stack, tx=False)
        _, side = _side(broker)
        peer.send(BasicAck(201, multiple=True))
        await at_once(lambda: len(side.unsettled) < _MANY)
        await other.declare_queue("another")
        assert queue.settlements < 201, "the other was served in between"
        await eventually(lambda: queue.settlements == 201, "all of it")
        assert list(side.unsettled) == list(range(202, _MANY + 1))


@pytest.mark.parametrize("given_back", [BasicNack(0, multiple=True, requeue=True), BasicRecover(requeue=True)])
async def test_deliveries_that_are_given_back_are_not_all_looked_at_in_one_step(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, given_back: Method
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(channel, "check_returns", lambda unsettled, tag: looked.append(len(unsettled)))
    queue = _filled(broker)
    async with contextlib.AsyncExitStack() as stack:
        peer = await _holder(broker, queue, stack, tx=False)
        peer.send(given_back)
        await eventually(lambda: queue.given_back == _MANY, "all of it")
    assert not looked, "only a stream refuses to take deliveries back"


async def test_closing_during_a_large_ack_requeues_only_unacked_messages(broker: Broker) -> None:
    queue = _filled(broker)
    async with contextlib.AsyncExitStack() as stack:
        peer = await _holder(broker, queue, stack, tx=False)
        its, side = _side(broker)
        peer.send(BasicAck(201, multiple=True))
        await at_once(lambda: len(side.unsettled) < _MANY)
        assert len(side.unsettled) > _MANY - 201, "it is amid the ack"
        its.hang_up(320, "CONNECTION_FORCED - by the test")
        await eventually(lambda: queue.ready == _MANY - 201 and not queue.returning, "the others are back")
        assert queue.settlements == 201
        assert [entry.message.body for entry in queue.held()][:2] == [b"201", b"202"]


async def test_a_large_rollback_keeps_the_order_of_tags_while_others_are_served(broker: Broker) -> None:
    queue = _filled(broker)
    async with contextlib.AsyncExitStack() as stack:
        asking = await stack.enter_async_context(rabbitry.connect(broker.url))
        other = await stack.enter_async_context(await asking.channel())
        peer = await _holder(broker, queue, stack, tx=True)
        _, side = _side(broker)
        for tag in (_MANY, 7, 300):
            peer.send(BasicAck(tag))
        peer.send(BasicAck(350, multiple=True))
        await eventually(lambda: len(side.unsettled) == _MANY - 351, "all but 49 are settled")
        rolling_back = asyncio.ensure_future(asyncio.to_thread(peer.call, TxRollback()))
        await at_once(lambda: not side.unsettled)
        _push(broker, queue, b"new")
        await other.declare_queue("another")
        assert not rolling_back.done()
        assert len(side.unsettled) < _MANY, "the other was served in between"
        await rolling_back
        assert list(side.unsettled) == list(range(1, _MANY + 2))
        peer.send(BasicAck(300, multiple=True))
        await asyncio.to_thread(peer.call, TxCommit())
        assert queue.settlements == 300
        assert list(side.unsettled) == list(range(301, _MANY + 2))


async def test_consumers_of_a_deleted_queue_are_notified_in_steps(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    tell = channel.Consumer.tell_cancelled

    def counted(self: channel.Consumer) -> None:
        told.append(self.tag)
        tell(self)

    monkeypatch.setattr(channel.Consumer, "tell_cancelled", counted)
    vhost = broker.vhosts["/"]
    vhost.declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    async with contextlib.AsyncExitStack() as stack:
        asking = await stack.enter_async_context(rabbitry.connect(broker.url))
        other = await stack.enter_async_context(await asking.channel())
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
        for number in range(100):
            await asyncio.to_thread(peer.call, BasicConsume("q", f"c{number}"))
        await other.delete_queue("q")
        await other.declare_queue("another")
        assert len(told) < 100, "the other was served in between"
        await eventually(lambda: len(told) == 100, "all are told")
        assert told == [f"c{number}" for number in range(100)]


async def test_an_unused_queue_that_is_used_before_its_turn_to_be_deleted_stays(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[Callable[[], None]] = []
    monkeypatch.setattr(Dispatcher, "wait", lambda self, go_on: turns.append(go_on))
    vhost = broker.vhosts["/"]
    arguments = {"x-expires": 1}
    queue = vhost.declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments=arguments)
    await eventually(lambda: len(turns) == 1, "it waits for its turn")
    queue.note_use()
    turns[0]()
    assert "q" in vhost.queues
    await eventually(lambda: len(turns) == 2, "it waits again")
    turns[1]()
    assert "q" not in vhost.queues


def test_items_are_sorted_in_steps_and_freed_as_they_are_taken() -> None:
    items = [(number * 7919) % 10_007 for number in range(10_007)]
    steps = in_order(items, lambda item: item)
    taken = 0
    while True:
        try:
            next(steps)
        except StopIteration as over:
            found = over.value
            break
        taken += 1
    assert taken == 6, "2,000 in a step"
    assert items == []
    assert list(found) == list(range(10_007))


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}, {"x-max-priority": 3}], ids=str)
async def test_an_orderly_stop_stores_delivery_counts(small_steps: None, tmp_path: Path, arguments: Table) -> None:
    config = BrokerConfig(port=0, data=tmp_path)
    async with contextlib.AsyncExitStack() as running:
        broker = await running.enter_async_context(Broker(config))
        client = await running.enter_async_context(rabbitry.connect(broker.url))
        consuming = await running.enter_async_context(await client.channel(prefetch=0))
        await consuming.declare_queue("q", durable=True, arguments=arguments)
        for number in range(_MANY):
            await consuming.send(b"%d" % number, routing_key="q")
        await consuming.wait_for_confirms()
        deliveries = await running.enter_async_context(consuming.consume("q"))
        for _ in range(_MANY):
            assert not (await anext(deliveries)).redelivered
        await broker.__aexit__(None, None, None)  # the client, which is still there, answers the close at once
    async with Broker(config) as broker, rabbitry.connect(broker.url) as client:
        asking = await client.channel()
        again = [await asking.get("q") for _ in range(_MANY)]
        assert [one is not None and one.redelivered for one in again] == [True] * _MANY
        assert await asking.get("q") is None
