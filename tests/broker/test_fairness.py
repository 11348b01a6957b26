"""Clients that publish to very many queues: the others are still served."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

import rabbitry
from rabbitry.broker import Broker, connection, shares
from rabbitry.broker.shares import Shares
from tests.differential.peer import Peer
from tests.support.waiting import eventually


async def test_those_who_wait_get_a_share_of_each_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shares = Shares()
    done: list[int] = []

    def step(number: int, left: int) -> Callable[[], None]:
        def take() -> None:
            nonlocal now
            now += 0.004
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
    async with Broker(port=0) as broker, contextlib.AsyncExitStack() as stack:
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
        # Were each of the twenty served in each turn of the loop, more than a thousand would have gone by.
        assert queue.published - before < 700
        after = queue.published
        await eventually(lambda: queue.published > after, "more of theirs")


async def test_what_takes_long_gives_others_their_turn_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_TURN", 0.0)
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    async with Broker(port=0) as broker, contextlib.AsyncExitStack() as stack:
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
