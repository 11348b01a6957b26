"""What the broker needs in memory, as its process shows it: a backlog, many queues, connections and bindings."""

import asyncio
import re
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from tests.support.embedded import BrokerProcess

_MIB: Final = 1 << 20
_MOST: Final = 200 * _MIB
_AT_ONCE: Final = 50

Fill = Callable[[str, int, Callable[[], None]], Awaitable[None]]
"""Creates a number of objects in the broker, and calls back at the peak."""


def _memory(pid: int) -> int:
    """Bytes of a process that are in memory now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


async def _backlog(url: str, number: int, full: Callable[[], None]) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("backlog", durable=True)
        for _ in range(number):
            await channel.send(b"x" * 200, routing_key="backlog")
        await channel.wait_for_confirms()
        info = await channel.declare_queue("backlog", passive=True)
        assert info.message_count == number
        full()


async def _spread(channel: Channel, number: int, step: Callable[[int], Awaitable[object]]) -> None:
    """Do a step for each number, some at once."""
    for start in range(0, number, _AT_ONCE):
        await asyncio.gather(*(step(index) for index in range(start, min(start + _AT_ONCE, number))))


async def _queues(url: str, number: int, full: Callable[[], None]) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await _spread(channel, number, lambda index: channel.declare_queue(f"queue.{index}", durable=True))
        await channel.publish(b"still there", routing_key=f"queue.{number - 1}")
        full()


async def _bindings(url: str, number: int, full: Callable[[], None]) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("bound", durable=True)
        await _spread(
            channel, number, lambda index: channel.bind_queue("bound", "amq.topic", f"host.{index}.*.{index % 7}.#")
        )
        await channel.publish(b"routed", exchange="amq.topic", routing_key=f"host.{number - 1}.cpu.{(number - 1) % 7}")
        full()


async def _connections(url: str, number: int, full: Callable[[], None]) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(number):
            connection = await stack.enter_async_context(rabbitry.connect(url, recover=False))
        channel = await connection.channel()
        await channel.declare_queue("last", durable=True)
        await channel.publish(b"still there", routing_key="last")
        full()


_FILLS: Final[dict[str, tuple[Fill, int, int]]] = {
    "backlog": (_backlog, 100_000, 1_000_000),
    "queues": (_queues, 500, 10_000),
    "bindings": (_bindings, 500, 10_000),
    "connections": (_connections, 100, 1_000),
}
"""What fills the broker, and how much of it in a short test and in a long one."""


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Allow this process, and the broker that inherits it, as many file descriptors as the system does."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def _fill(folder: Path, kind: str, number: int) -> int:
    """Fill a separate broker, and return its memory at the peak."""
    seen = 0

    def full() -> None:
        nonlocal seen
        seen = _memory(broker.pid)

    with BrokerProcess("--data", str(folder), anew=True) as broker:
        await _FILLS[kind][0](broker.url, number, full)
    print(f"{number} {kind}: {seen / _MIB:.0f} MiB")
    assert seen
    return seen


@pytest.mark.parametrize("kind", _FILLS)
async def test_memory_stays_small(kind: str, tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)
    assert await _fill(tmp_path, kind, _FILLS[kind][1]) < _MOST


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", _FILLS)
async def test_memory_stays_small_under_large_loads(kind: str, tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)
    assert await _fill(tmp_path, kind, _FILLS[kind][2]) < _MOST
