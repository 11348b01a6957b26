"""Three RabbitMQ nodes with a quorum queue, one of them at a time killed, paused or restarted under load."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest

from tests.support import programs, rabbitmq
from tests.support.cluster import Cluster
from tests.support.load import Load, running_load
from tests.support.rabbitmq import RabbitMQ
from warren.amqp.protocol.tables import Table

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
    await load.arrives(100, within=_WITHIN)  # the other two carry on
    await asyncio.to_thread(node.start)


async def _pause(node: RabbitMQ, load: Load, chance: random.Random) -> None:
    """Now shorter, now longer than the others wait for it."""
    node.pause()
    await load.arrives(100, within=_WITHIN)
    await asyncio.sleep(chance.uniform(0, 15))
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
    """Let the nodes fail in turns; gives the account in words."""
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
