"""A fault every few seconds for a long time: memory stays flat, and no task or file descriptor is left behind."""

import asyncio
import gc
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Consumer, parse_url
from tests.support.embedded import BrokerProcess
from tests.support.load import running_load
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually

_SHORT: Final = 10
_LONG: Final = 600
_FEWEST: Final = 2
"""Measurements, of tasks and descriptors too, however long a busy machine takes for them."""
_LINKS: Final = 3
"""Connections: those of the load, and the one that hears."""
_MANY: Final = 10
"""Measures from which memory is compared: what an allocator keeps after a few rounds says nothing."""
_FLAT: Final = 8.0
"""MiB by which resident memory may differ between the middle and the end: the allocator's reserve, not growth."""


async def _stand_still(proxy: FaultProxy, chance: random.Random) -> None:
    """Stall the traffic, at random for less or for more than two heartbeats."""
    proxy.pause(*chance.choice([(), (Way.TO_SERVER,), (Way.TO_CLIENT,)]))
    await asyncio.sleep(chance.uniform(0.2, 4))
    proxy.resume()


async def _swallow(proxy: FaultProxy, chance: random.Random) -> None:
    """Drop bytes, then reset the connection, because TCP never continues after lost bytes."""
    proxy.swallow(*chance.choice([(), (Way.TO_SERVER,), (Way.TO_CLIENT,)]))
    await asyncio.sleep(chance.uniform(0.1, 2))
    await proxy.reset()
    proxy.deliver()


async def _refuse(proxy: FaultProxy, chance: random.Random) -> None:
    proxy.refuse()
    await proxy.cut()
    await asyncio.sleep(chance.uniform(0.1, 2))
    proxy.accept()


async def _drag(proxy: FaultProxy, chance: random.Random) -> None:
    proxy.delay(0.05)
    proxy.chunk(chance.randint(1, 9))
    await asyncio.sleep(chance.uniform(0.2, 1))
    proxy.delay(0)
    proxy.chunk()


async def _break_in_pieces(proxy: FaultProxy, chance: random.Random) -> None:
    """Cut the connection in the middle of a frame."""
    proxy.chunk(1)
    await asyncio.sleep(0.1)
    await proxy.reset()
    proxy.chunk()


_FAULTS: Final[dict[str, Callable[[FaultProxy, random.Random], Awaitable[None]]]] = {
    "cut": lambda proxy, chance: proxy.cut(),
    "reset": lambda proxy, chance: proxy.reset(),
    "stand still": _stand_still,
    "black hole": _swallow,
    "refused": _refuse,
    "drag": _drag,
    "broken frame": _break_in_pieces,
}


@dataclass(frozen=True)
class _Measure:
    """The resources in use while no message is in flight.

    blocks: memory blocks in use by Python objects. memory, broker: resident MiB of this process and of the broker,
    including free memory that the allocator keeps.
    """

    tasks: int
    descriptors: int
    blocks: int
    memory: float
    broker: float


def _memory(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _measure(broker: int | None, first: _Measure | None) -> _Measure | None:
    """Return a measurement; None while there are more tasks or descriptors than at first, since some may be ending."""
    measure = _Measure(
        tasks=len(asyncio.all_tasks()),
        descriptors=len(os.listdir("/proc/self/fd")),
        blocks=sys.getallocatedblocks(),
        memory=_memory(os.getpid()),
        broker=0.0 if broker is None else _memory(broker),
    )
    is_more = first is not None and (measure.tasks > first.tasks or measure.descriptors > first.descriptors)
    return None if is_more else measure


async def _hear(channel: Channel, heard: Consumer, word: bytes) -> None:
    """Check that a server-named queue, its binding and its consumer all exist."""
    await channel.publish(word, exchange="amq.fanout")
    async with asyncio.timeout(90):
        while True:
            delivery = await anext(heard)
            delivery.ack()
            if delivery.body == word:
                return


async def _soak(broker_url: str, seconds: float, each_round: int, broker: int | None) -> None:
    """Measure after each round of faults. broker: the process whose memory must not grow either."""
    chance = random.Random(23)
    suffered: Counter[str] = Counter()
    measures: list[_Measure] = []
    end = asyncio.get_running_loop().time() + seconds
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        url = parse_url(broker_url)._replace(hosts=(("127.0.0.1", proxy.port),), heartbeat=1, connection_timeout=3.0)
        async with running_load(url) as load, rabbitry.connect(url) as connection:
            channel = await connection.channel()
            queue = (await channel.declare_queue(exclusive=True)).name
            await channel.bind_queue(queue, "amq.fanout")
            async with channel.consume(queue) as heard:
                while asyncio.get_running_loop().time() < end or len(measures) < _FEWEST:
                    for fault in chance.choices(list(_FAULTS), k=each_round):
                        suffered[fault] += 1
                        await _FAULTS[fault](proxy, chance)
                        await asyncio.sleep(chance.uniform(0.2, 2))
                    await load.settle()
                    await _hear(channel, heard, b"%d" % len(measures))
                    load.account.check()
                    assert not load.account.unconfirmed
                    load.account.forget()
                    gc.collect()
                    # Lost connections end once the broker noticed; the loop watchdog may read files after a long turn.
                    await eventually(lambda: proxy.open_links == _LINKS, "the end of all lost links")
                    first = measures[0] if measures else None
                    what = f"no more tasks and descriptors than at first, {first}"
                    measure = await eventually(partial(_measure, broker, first), what)
                    assert measure is not None
                    measures.append(measure)
                    load.go_on()
                await load.settle()
    if len(measures) >= _MANY:
        _check_flat(measures)
    print(
        f"{suffered.total()} faults in {seconds:g} s; {load.account}; after the first round, in the middle, at the "
        f"end: {measures[0]}, {measures[len(measures) // 2]}, {measures[-1]}",
        file=sys.stderr,
    )


def _check_flat(measures: list[_Measure]) -> None:
    later = measures[len(measures) // 2 :]
    for name in ("memory", "broker"):
        sizes = [getattr(measure, name) for measure in later]
        assert sizes[-1] - sizes[0] < _FLAT, f"{name} grows: {sizes}"
    blocks = [measure.blocks for measure in later]
    assert blocks[-1] < blocks[0] * 1.02, f"blocks grow: {blocks}"


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Keep log records out of pytest, which holds them until the test ends: each lost connection logs one."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(params=["embedded", "rabbitmq"])
def soaked(request: pytest.FixtureRequest) -> Iterator[tuple[str, int | None]]:
    """A broker's URL, and the process id of the embedded one."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("rabbitmq_url"), None
    else:
        with BrokerProcess() as process:
            yield process.url, process.pid


@pytest.mark.usefixtures("unlogged")
@pytest.mark.timeout(300)
async def test_a_fault_every_second_for_a_while(no_leaks: None, soaked: tuple[str, int | None]) -> None:
    await _soak(soaked[0], _SHORT, 2, soaked[1])


@pytest.mark.faults
@pytest.mark.usefixtures("unlogged")
@pytest.mark.timeout(_LONG + 120)
async def test_ten_minutes_with_a_fault_every_few_seconds(no_leaks: None, soaked: tuple[str, int | None]) -> None:
    await _soak(soaked[0], _LONG, 6, soaked[1])
