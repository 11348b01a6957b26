"""Clients that publish to very many queues: the others are still served."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Properties
from rabbitry.amqp.protocol.methods import (
    BasicCancel,
    BasicNack,
    BasicRecover,
    ChannelClose,
    ConnectionClose,
    TxCommit,
    TxSelect,
)
from rabbitry.amqp.protocol.properties import encode_header
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker import _connection as connection
from rabbitry.broker import _shares as shares
from rabbitry.broker._queues import queue as queue_module
from rabbitry.broker._shares import Shares
from rabbitry.broker._store.journal import Journal
from rabbitry.broker.message import Message
from tests.differential.peer import Peer
from tests.support.waiting import at_once, eventually


async def test_waiting_clients_get_a_limited_part_of_each_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shares = Shares()
    done: list[int] = []

    def step(number: int, left: int) -> Callable[[], None]:
        def take() -> None:
            nonlocal now
            now += 0.0025
            done.append(number)
            if left > 1:
                shares.wait(step(number, left - 1))

        return take

    for number in range(4):
        shares.wait(step(number, 2))
    turns: list[list[int]] = []
    while len(done) < 8:
        before = len(done)
        await asyncio.sleep(0)
        turns.append(done[before:])
    assert [turn for turn in turns if turn] == [[0, 1, 2], [3, 0, 1], [2, 3]]
    shares.wait(step(9, 1))
    shares.stop()
    await asyncio.sleep(0)
    assert done.count(9) == 0


async def test_publishers_to_a_thousand_queues_do_not_keep_others_from_connecting() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, contextlib.AsyncExitStack() as stack:
        vhost = broker.vhosts["/"]
        for number in range(1000):
            queue = vhost.declare_queue(
                f"q{number}", None, durable=False, exclusive=False, auto_delete=False, arguments={"x-max-length": 1}
            )
            vhost.bind("amq.fanout", queue, "", {})
        peers: list[Peer] = []
        for _ in range(20):
            peer = await asyncio.to_thread(Peer, broker.url)
            stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
            peers.append(peer)
        for peer in peers * 100:
            peer.publish("amq.fanout", "")
        await eventually(lambda: queue.published, "the first has come")
        before = queue.published
        async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
            await channel.declare_queue("mine")
        # If each of the twenty were served in each loop iteration, more than a thousand would have been published.
        assert queue.published - before < 700
        after = queue.published
        await eventually(lambda: queue.published > after, "more of theirs")


async def test_every_long_operation_lets_other_clients_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_TURN", 0.0)
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    async with Broker(BrokerConfig(port=0)) as broker, contextlib.AsyncExitStack() as stack:
        vhost = broker.vhosts["/"]
        queue = vhost.declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments={})
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
        async with rabbitry.connect(broker.url) as client, await client.channel() as channel:
            await channel.declare_queue("mine")
            for _ in range(5000):
                peer.publish("", "q")
            await channel.declare_queue("mine", passive=True)
            assert queue.published < 5000  # a few in each turn of the loop, and the answer takes a few turns
            await eventually(lambda: queue.published == 5000, "all of it, in the end")


async def _published(channel: Channel, name: str, count: int, **options: Any) -> None:
    await channel.declare_queue(name, **options)
    for number in range(count):
        await channel.publish(b"%d" % number, routing_key=name, properties=Properties(delivery_mode=2))


@pytest.mark.parametrize("ending", ["channel", "connection", "nack", "recover", "lost"])
async def test_others_are_served_during_a_large_requeue_in_order(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    monkeypatch.setattr("rabbitry.broker._channel._STEP", 2)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, contextlib.AsyncExitStack() as stack:
        asking = await stack.enter_async_context(rabbitry.connect(broker.url))
        other = await stack.enter_async_context(await asking.channel())
        await _published(other, "q", 400, durable=True)
        holding = await asyncio.to_thread(Peer, broker.url)
        stack.push_async_callback(asyncio.to_thread, holding.__exit__, OSError, OSError(), None)
        queue = broker.vhosts["/"].queues["q"]
        await asyncio.to_thread(holding.consume, "q")
        await eventually(lambda: queue.unsettled == 400, "the consumer has all")
        await asyncio.to_thread(holding.call, BasicCancel("c"))
        match ending:
            case "channel":
                holding.send(ChannelClose(200, "", 0, 0))
            case "connection":
                holding.send(ConnectionClose(200, "", 0, 0), 0)
            case "nack":
                holding.send(BasicNack(0, multiple=True, requeue=True))
            case "recover":
                holding.send(BasicRecover(requeue=True))
            case _:
                holding.drop()
        await at_once(lambda: queue.returning)
        await other.declare_queue("another")
        assert queue.returning, "the other was served in between"
        got = await other.get("q", no_ack=True)
        assert got is not None
        assert got.body == b"0", "nothing is delivered before all is back"
        await eventually(lambda: queue.ready == 399, "all is back")
        assert not queue.returning


async def test_others_are_served_while_a_large_transaction_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, contextlib.AsyncExitStack() as stack:
        asking = await stack.enter_async_context(rabbitry.connect(broker.url))
        other = await stack.enter_async_context(await asking.channel())
        await other.declare_queue("q", durable=True)
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
        await asyncio.to_thread(peer.call, TxSelect(), 1)
        for number in range(400):
            peer.publish("", "q", b"%d" % number)
        queue = broker.vhosts["/"].queues["q"]
        assert queue.ready == 0
        committing = asyncio.ensure_future(asyncio.to_thread(peer.call, TxCommit(), 1))
        await at_once(lambda: queue.ready)
        await other.declare_queue("another")
        assert queue.ready < 400
        await committing
        assert len(queue) == 400


async def test_an_unfinished_queue_deletion_is_completed_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.broker._queues.contents.WINDOW", 10)
    monkeypatch.setattr("rabbitry.broker._store.sqlite._MOST_DROPPED", 20)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as client:
        channel = await client.channel()
        await _published(channel, "purged", 200, durable=True)
        await _published(channel, "deleted", 200, durable=True)
        assert await channel.purge_queue("purged") == 200
        await channel.publish(b"new", routing_key="purged", properties=Properties(delivery_mode=2))
        monkeypatch.setattr(Journal, "_drop_on", lambda self, writing: None)  # as if the process ended there
        assert await channel.delete_queue("deleted") == 200
    monkeypatch.undo()
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as client:
        channel = await client.channel()
        assert "deleted" not in broker.vhosts["/"].queues
        assert (await channel.declare_queue("purged", passive=True)).message_count == 1
        await broker.journal.committed_now()
    store = sqlite3.connect(tmp_path / "broker.sqlite")
    assert store.execute("SELECT COUNT(*) FROM entries").fetchone() == (1,)
    assert store.execute("SELECT COUNT(*) FROM bodies").fetchone() == (1,)
    store.close()


async def test_a_consumer_of_many_messages_lets_other_clients_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "LONGEST_TURN", 0.0)
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    async with Broker(BrokerConfig(port=0)) as broker:
        vhost = broker.vhosts["/"]
        queue = vhost.declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments={})
        for number in range(5000):
            queue.push(Message(b"\x00\x01q", encode_header(Properties(), 4), b"%04d" % number, False))
        async with (
            rabbitry.connect(broker.url) as other,
            await other.channel() as channel,
            rabbitry.connect(broker.url) as client,
            await client.channel(prefetch=0) as consuming,
        ):
            await channel.declare_queue("mine")
            async with consuming.consume("q", no_ack=True) as deliveries:
                await channel.declare_queue("mine", passive=True)
                assert queue.ready, "a few are delivered in each turn of the loop, and the answer takes a few turns"
                bodies = [(await anext(deliveries)).body for _ in range(5000)]
        assert bodies == [b"%04d" % number for number in range(5000)]
