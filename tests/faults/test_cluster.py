"""Three RabbitMQ nodes with a quorum queue, one of them at a time killed, paused or restarted under load."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest

import rabbitry
from rabbitry.amqp.protocol.tables import Table
from tests.support import programs, rabbitmq
from tests.support.cluster import Cluster
from tests.support.load import Load, running_load
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

_LONG: Final = 600
_QUORUM: Final[Table] = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 3}
_WITHIN: Final = 90.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    programs.require(rabbitmq.why_missing())
    with Cluster() as cluster:
        yield cluster


async def _kill(node: RabbitMQ, load: Load, chance: random.Random) -> None:
    await asyncio.to_thread(node.kill)
    await load.arrives(100, within=_WITHIN)  # the other two go on serving
    await asyncio.to_thread(node.start)


async def _pause(node: RabbitMQ, load: Load, chance: random.Random) -> None:
    """Pause a node, at random for less or for more time than the other nodes wait for it.

    Messages may stop arriving meanwhile: RabbitMQ 3.10 asks the former leader once for each message if a channel first
    published after its node fell silent.
    """
    node.pause()
    await asyncio.sleep(chance.uniform(2, 20))
    node.resume()


async def _restart(node: RabbitMQ, load: Load, chance: random.Random) -> None:
    await asyncio.to_thread(node.stop)
    await load.arrives(100, within=_WITHIN)
    await asyncio.to_thread(node.start)


_FAULTS: Final[dict[str, Callable[[RabbitMQ, Load, random.Random], Awaitable[None]]]] = {
    "killed": _kill,
    "paused": _pause,
    "restarted": _restart,
}


async def _suffer(cluster: Cluster, faults: Iterator[tuple[str, int]], chance: random.Random) -> str:
    """Make the nodes fail one after the other; return a report of the traffic."""
    suffered: Counter[str] = Counter()
    async with running_load(f"{cluster.url}?heartbeat=2&connection_timeout=3000", arguments=_QUORUM) as load:
        await load.arrives(100, within=_WITHIN)
        for fault, node in faults:
            suffered[fault] += 1
            await _FAULTS[fault](cluster.nodes[node], load, chance)
            await asyncio.to_thread(cluster.wait_until_whole)
            await load.arrives(100, within=_WITHIN)
        await load.settle(_WITHIN)
    load.account.check()
    assert load.account.losses["publisher"]
    return f"nodes {', '.join(f'{name} {count} times' for name, count in suffered.items())}; {load.account}"


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_each_node_of_a_cluster_fails_once(cluster: Cluster) -> None:
    # The client is on the first node that answers: on 0, then on 1, then on 0 again.
    faults = [("killed", 0), ("paused", 1), ("restarted", 0)]
    print(await _suffer(cluster, iter(faults), random.Random(1)), file=sys.stderr)


@pytest.mark.faults
@pytest.mark.timeout(_LONG + 600)
async def test_ten_minutes_of_failing_nodes(cluster: Cluster) -> None:
    chance = random.Random(11)
    end = asyncio.get_running_loop().time() + _LONG

    def faults() -> Iterator[tuple[str, int]]:
        while asyncio.get_running_loop().time() < end:
            yield chance.choice(list(_FAULTS)), chance.randrange(len(cluster.nodes))

    print(await _suffer(cluster, faults(), chance), file=sys.stderr)


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_a_queue_whose_node_is_down_is_consumed_again_when_it_is_back() -> None:
    """A classic queue lives on one node. Its consumers wait for that node, whether RabbitMQ cancelled them or not."""
    programs.require(rabbitmq.why_missing())
    with Cluster(2) as cluster:
        home, other = cluster.nodes
        # One consumer is connected to the queue's node and loses its connection; RabbitMQ cancels the other one.
        async with (
            rabbitry.connect(f"{cluster.url}?connection_timeout=3000") as lost,
            rabbitry.connect(other.url) as cancelled,
        ):
            losing, told = await lost.channel(prefetch=1), await cancelled.channel(prefetch=1)
            await losing.declare_queue("at-home", durable=True)
            async with losing.consume("at-home", restore=True) as one, told.consume("at-home", restore=True) as two:
                await asyncio.to_thread(home.kill)
                await eventually(lambda: lost.is_open, "a connection to the other node")
                await asyncio.to_thread(home.start)
                publisher = await cancelled.channel()
                async with asyncio.timeout(_WITHIN):
                    consumers = 0
                    while consumers < 2:
                        consumers = (await publisher.declare_queue("at-home", passive=True)).consumer_count
                        await asyncio.sleep(0.1)
                    for body in (b"1", b"2"):
                        await publisher.publish(body, routing_key="at-home")
                    deliveries = [await anext(one), await anext(two)]
                assert {delivery.body for delivery in deliveries} == {b"1", b"2"}
                for delivery in deliveries:
                    delivery.ack()
