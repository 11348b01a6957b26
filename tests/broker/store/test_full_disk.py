"""A disk that fills up: publishers are blocked in time, consumers continue, no confirmed message is lost.

The broker is a process of its own on a file system of 100 MB; what it promised is noted outside.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Connection
from tests.broker.store import _no_limit
from tests.support.embedded import BrokerProcess
from tests.support.small_disk import SmallDisk
from tests.support.waiting import eventually

_BODY = bytes(100_000)
_LIMIT = 50_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", 100) as disk:
        yield disk


@pytest.fixture
def broker(disk: SmallDisk) -> Iterator[BrokerProcess]:
    with BrokerProcess("--data", str(disk.folder / "data"), prefix=disk.prefix) as broker:
        yield broker


class _Account:
    """The numbers of the confirmed and the acknowledged messages."""

    def __init__(self) -> None:
        self.confirmed: set[int] = set()
        self.got: set[int] = set()

    async def publish(self, connection: Connection, count: int) -> None:
        """Publish numbers as fast as possible, and wait for their confirms."""
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        for number in range(count):
            future = await channel.send(b"%d " % number + _BODY, routing_key="q", timeout=200)
            future.add_done_callback(functools.partial(self._done, number))
        await channel.wait_for_confirms()

    def _done(self, number: int, done: "asyncio.Future[None]") -> None:
        if not done.cancelled() and done.exception() is None:
            self.confirmed.add(number)

    async def take(self, channel: Channel, count: int) -> None:
        """Take messages and acknowledge them. Raises AssertionError for one that was taken before."""
        async with channel.consume("q") as deliveries:
            for _ in range(count):
                delivery = await asyncio.wait_for(anext(deliveries), 120)
                number = int(bytes(delivery.body[:20]).split()[0])
                assert number not in self.got, "acknowledged and back"
                self.got.add(number)
                delivery.ack()
        await _written(channel)


async def _written(channel: Channel) -> None:
    """Wait until earlier publishes and acks are written, which the answer to a durable change guarantees."""
    await channel.declare_queue("behind", durable=True)
    await channel.delete_queue("behind")


async def _count(channel: Channel) -> int:
    return (await channel.declare_queue("q", passive=True)).message_count


@contextlib.asynccontextmanager
async def _blocked_publisher(
    broker: BrokerProcess, account: _Account, count: int
) -> AsyncIterator["asyncio.Task[None]"]:
    """A publisher that publishes so much that it is blocked meanwhile."""
    async with rabbitry.connect(broker.url, recover=False) as connection:
        publishing = asyncio.create_task(account.publish(connection, count))
        await eventually(lambda: connection.blocked or publishing.done(), "connection.blocked")
        assert connection.blocked == "low on disk"
        yield publishing
        publishing.cancel()
        await asyncio.wait((publishing,))


async def test_publishers_are_blocked_before_the_disk_is_full_and_go_on_when_the_backlog_is_drained(
    disk: SmallDisk, broker: BrokerProcess
) -> None:
    account, count = _Account(), 700
    async with _blocked_publisher(broker, account, count) as publishing, rabbitry.connect(broker.url) as connection:
        assert disk.free > _LIMIT * 0.8
        channel = await connection.channel(prefetch=20)
        await account.take(channel, count)
        await publishing
        assert account.confirmed == account.got == set(range(count))
    await eventually(lambda: disk.free > 85_000_000, "the files are small again")


async def test_a_full_disk_is_drained_across_a_kill_and_a_restart(disk: SmallDisk, broker: BrokerProcess) -> None:
    account = _Account()
    async with _blocked_publisher(broker, account, 700), rabbitry.connect(broker.url, recover=False) as connection:
        channel = await connection.channel(prefetch=20)
        await _written(channel)
        disk.fill()
        third = await _count(channel) // 3
        await account.take(channel, third)
        broker.kill()
    disk.fill()
    broker.start()
    async with rabbitry.connect(broker.url) as connection:
        await account.take(await connection.channel(prefetch=20), third)
    assert broker.stop() == 0
    disk.fill()
    broker.start()
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel(prefetch=20)
        await account.take(channel, await _count(channel))
        assert account.confirmed - account.got == set()
        disk.empty()
        await channel.publish(b"after", routing_key="q", timeout=60)
    await eventually(lambda: disk.size("data/broker.sqlite*") < 10_000_000, "the files are small again")


async def test_a_store_is_created_only_with_space_and_refuses_larger_messages(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", 20) as disk:
        disk.fill()
        options = ("--data", str(disk.folder / "data"))
        with pytest.raises(RuntimeError, match="no room in"), BrokerProcess(*options, prefix=disk.prefix):
            pass
        disk.empty()
        # With the usual limit it would meet the alarm, and be held.
        prefix = (*disk.prefix, "env", f"PYTHONPATH={Path(__file__).parents[3]}")
        with BrokerProcess(*options, prefix=prefix, module=_no_limit.__name__) as broker:
            async with rabbitry.connect(broker.url) as connection:
                channel = await connection.channel()
                await channel.declare_queue("q", durable=True)
                with pytest.raises(rabbitry.PublishRefused):
                    await channel.publish(bytes(12_000_000), routing_key="q", timeout=60)
                # Only a publish that meets the alarm is told, and the one before may have raised it.
                again = asyncio.ensure_future(channel.publish(b"small", routing_key="q"))
                await eventually(lambda: connection.blocked, "connection.blocked")
                again.cancel()
            async with rabbitry.connect(broker.url) as connection:
                channel = await connection.channel()
                small = await channel.get("q", no_ack=True)  # it may have met the alarm, or not
                assert small is None or small.body == b"small"
                assert await _count(channel) == 0
