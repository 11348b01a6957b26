"""Alarms: publishers are notified and not read, all others continue, as on RabbitMQ."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Connection
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.reading import Reason
from rabbitry.exceptions import PublishTimeout
from tests.support.management import Api
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

Switch = Callable[[bool], Awaitable[None]]


async def _told_and_held(url: str, switch: Switch) -> str:
    """Set and lift an alarm beside a publisher and a consumer; return the reason that the publisher got."""
    reason = ""
    async with rabbitry.connect(url) as publisher, rabbitry.connect(url) as consumer:
        publishing, consuming = await publisher.channel(), await consumer.channel(prefetch=1)
        await publishing.declare_queue("alarmed")
        for number in range(3):
            await publishing.publish(b"%d" % number, routing_key="alarmed")
        async with consuming.consume("alarmed") as deliveries:
            (await anext(deliveries)).ack()
            await switch(True)
            assert _reason(publisher) == ""  # not before it publishes
            await publishing.send(b"on the edge", routing_key="alarmed")
            reason = await eventually(lambda: _reason(publisher), "connection.blocked")
            with pytest.raises(PublishTimeout):
                await publishing.publish(b"late", routing_key="alarmed", timeout=0.3)
            for _ in range(2):  # it consumes and acknowledges all the same
                (await anext(deliveries)).ack()
            assert _reason(consumer) == ""
            # Who has not published yet is let in, and blocked by the first publish.
            async with rabbitry.connect(url) as third:
                channel = await third.channel()
                await channel.declare_queue("beside", exclusive=True)
                assert _reason(third) == ""
                await channel.send(b"1", routing_key="beside")
                assert await eventually(lambda: _reason(third), "connection.blocked of the third") == reason
                with pytest.raises(PublishTimeout):
                    await channel.publish(b"2", routing_key="beside", timeout=0.3)
                await switch(False)
                await eventually(lambda: not _reason(third), "connection.unblocked of the third")
            await eventually(lambda: not _reason(publisher), "connection.unblocked")
            await publishing.publish(b"after", routing_key="alarmed")
            async for delivery in deliveries:
                delivery.ack()
                if delivery.body == b"after":
                    break
        await publishing.delete_queue("alarmed")
    return reason


def _reason(connection: Connection) -> str:
    return connection.blocked or ""


async def test_an_alarm_on_the_embedded_broker() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        await broker.alarms.stop()  # it would look at the memory that there is

        async def switch(is_on: bool) -> None:
            broker.alarms.set(Reason.MEMORY, is_on=is_on)

        assert await _told_and_held(broker.url, switch) == "low on memory"


async def test_an_alarm_on_rabbitmq(own_rabbitmq: RabbitMQ) -> None:
    async def switch(is_on: bool) -> None:
        # The alarms are queried after it, so each connection has been told of the change when this returns.
        share = "0" if is_on else "0.8"
        change = f"vm_memory_monitor:set_vm_memory_high_watermark({share}), length(rabbit_alarm:get_alarms())."
        assert await asyncio.to_thread(own_rabbitmq.eval, change) == str(int(is_on))

    assert await _told_and_held(own_rabbitmq.url, switch) == "low on memory"


async def test_health_checks_name_the_alarms_as_rabbitmq_does() -> None:
    """The expected answers are RabbitMQ 3.10.8's, but for its line ends within the list of the last one."""
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        api = Api(broker.management_url)
        name = (await asyncio.to_thread(api, "GET", "/api/nodes"))[1][0]["name"]
        paths = ("health/checks/alarms", "health/checks/local-alarms", "healthchecks/node")
        for path in paths:
            assert await asyncio.to_thread(api, "GET", f"/api/{path}") == (200, {"status": "ok"})
        await broker.alarms.stop()  # it would look at the memory that there is
        broker.alarms.set(Reason.MEMORY, is_on=True)
        broker.alarms.set(Reason.DISK, is_on=True)
        alarms = [{"node": name, "resource": "disk space"}, {"node": name, "resource": "memory"}]
        failed = {"status": "failed", "alarms": alarms}
        limits = f"{{resource_limit,disk,'{name}'}},{{resource_limit,memory,'{name}'}}"
        assert [await asyncio.to_thread(api, "GET", f"/api/{path}") for path in paths] == [
            (503, {**failed, "reason": "There are alarms in effect in the cluster"}),
            (503, {**failed, "reason": "There are alarms in effect on the node"}),
            (503, {"status": "failed", "reason": f"resource alarm(s) in effect:[{limits}]"}),
        ]
        (node,) = (await asyncio.to_thread(api, "GET", "/api/nodes"))[1]
        assert (node["disk_free_alarm"], node["mem_alarm"]) == (True, True)


async def test_memory_and_disk_raise_separate_alarms(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path, memory_limit=1, disk_free_limit=1 << 62)) as broker:
        await eventually(lambda: broker.alarms.on == {"memory", "disk"}, "both alarms")
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)
            await channel.send(b"x", routing_key="q")
            reason = await eventually(lambda: _reason(connection), "connection.blocked")
            with pytest.raises(PublishTimeout):
                await channel.publish(b"x", routing_key="q", timeout=0.3)
            assert reason == "low on disk & memory"
            broker.alarms.disk_free_limit = 0
            broker.alarms.memory_limit = 1 << 62
            await eventually(lambda: not broker.alarms.on, "the end of the alarms")
            await channel.publish(b"y", routing_key="q")


async def test_the_disk_alarm_ends_above_the_limit_and_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = 200_000_000
    monkeypatch.setattr("rabbitry.broker._store.sqlite.free_bytes", lambda folder: free)
    monkeypatch.setattr("rabbitry.broker._alarms.PERIOD", 0.01)
    monkeypatch.setattr("rabbitry.broker._alarms._PERIOD_OF_ALARMS", 0.01)
    async with Broker(BrokerConfig(port=0, data=tmp_path, memory_limit=1 << 62)) as broker:
        for free, is_on in (
            (49_900_000, True), (52_000_000, True), (54_900_000, True), (55_100_000, False), (51_000_000, False),
        ):  # fmt: skip
            await eventually(lambda free=free: broker.alarms.disk_free - free < 1_000_000, f"{free} are seen")  # type: ignore[misc] # bound now
            await eventually(lambda is_on=is_on: ("disk" in broker.alarms.on) == is_on, f"{free}: {is_on}")  # type: ignore[misc] # bound now
    assert caplog.text.count("low on disk") == 1
    assert caplog.text.count("consume messages, or free space") == 1
    assert caplog.text.count("there is room for the store again") == 1


async def test_the_disk_alarm_ends_on_a_disk_that_never_had_much_more_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 52_000_000
    monkeypatch.setattr("rabbitry.broker._store.sqlite.free_bytes", lambda folder: free)
    monkeypatch.setattr("rabbitry.broker._alarms.PERIOD", 0.01)
    monkeypatch.setattr("rabbitry.broker._alarms._PERIOD_OF_ALARMS", 0.01)
    async with Broker(BrokerConfig(port=0, data=tmp_path, memory_limit=1 << 62)) as broker:
        await eventually(lambda: broker.alarms._most_room, "a look")
        free = 40_000_000
        await eventually(lambda: broker.alarms.on, "the alarm")
        free = 51_900_000
        await eventually(lambda: not broker.alarms.on, "the end of the alarm")


async def test_a_removed_data_folder_stops_the_broker(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with Broker(BrokerConfig(port=0, data=folder)) as broker:
        folder.rename(tmp_path / "elsewhere")
        failure = await asyncio.wait_for(asyncio.shield(broker.failed), 90)
        assert "is gone" in str(failure)
        (tmp_path / "elsewhere").rename(folder)


async def test_an_alarm_ends_for_all_while_one_connection_closes() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        await broker.alarms.stop()  # it would look at the memory that there is
        async with rabbitry.connect(broker.url) as first, rabbitry.connect(broker.url) as second:
            for connection in (first, second):
                channel = await connection.channel()
                await channel.declare_queue("q")
            broker.alarms.set(Reason.MEMORY, is_on=True)
            for connection in (first, second):
                await (await connection.channel()).send(b"x", routing_key="q")
            await eventually(lambda: _reason(first) and _reason(second), "connection.blocked of both")
            for connected in list(broker.connections)[:1]:
                connected.hang_up(320, "CONNECTION_FORCED - test")
            broker.alarms.set(Reason.MEMORY, is_on=False)
            assert not any(connected.gate.is_blocked for connected in broker.connections)
