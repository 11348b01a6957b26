"""Stages that are paused and resumed, on both brokers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Connection
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.reading import Reason
from rabbitry.exceptions import PublishRefused, PublishTimeout, UsageError
from rabbitry.flow.wiring import pausing
from rabbitry.flow.wiring.pausing import NoSuchStage, Pause, pause_queue
from rabbitry.flow.worker import Worker
from tests.flow._running import counts, eventually_consumed, eventually_holds, put
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually, eventually_awaited


async def pause(url: str, app: str, stage: str) -> None:
    async with rabbitry.connect(url) as connection:
        _, is_new = await pausing.pause(connection, app, stage, by="ada", why="a test")
        assert is_new


async def resume(url: str, app: str, stage: str) -> None:
    async with rabbitry.connect(url) as connection:
        assert await pausing.resume(connection, app, stage)


class Stages:
    """An app with a stage of each kind, whose handlers wait at a gate."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.attempts: set[int] = set()
        self.gate = asyncio.Event()
        self.app = app = rabbitry.App("held")

        async def work(text: str, message: rabbitry.Message) -> None:
            self.begun.append(text)
            self.attempts.add(message.attempt)
            await self.gate.wait()
            self.done.append(text)

        @app.stage("plain", concurrency=2)
        async def plain(text: str, message: rabbitry.Message) -> None:
            await work(text, message)

        @app.stage("single", concurrency=2, single_active=True)
        async def single(text: str, message: rabbitry.Message) -> None:
            await work(text, message)

        @app.stage("batch", batch=2, within=0.01)
        async def batch(texts: list[str], messages: list[rabbitry.Message]) -> None:
            for text, message in zip(texts, messages, strict=True):
                self.begun.append(text)
                self.attempts.add(message.attempt)
            await self.gate.wait()
            self.done.extend(texts)

    async def publish(self, url: str, names: range) -> None:
        async with self.app.publisher(url) as publisher:
            for stage in self.app.stages:
                for number in names:
                    await publisher.send(f"{stage} {number}", key=stage)


async def test_a_paused_stage_finishes_what_is_in_hand_and_takes_nothing_more(broker_url: str, no_leaks: None) -> None:
    stages = Stages()
    queues = [f"held.{name}" for name in stages.app.stages]
    async with stages.app.worker(broker_url, connect_attempts=1) as worker:
        await stages.publish(broker_url, range(8))
        await eventually(lambda: len(stages.begun) == 6, "two in hand of each stage")
        for name in stages.app.stages:
            await pause(broker_url, "held", name)
        for name in ("plain", "batch"):
            await eventually_consumed(broker_url, f"held.{name}", 0)
            await eventually_holds(broker_url, f"held.{name}", 6)
        assert await eventually_consumed(broker_url, "held.single", 1) < 8, "it stays active while two are in hand"
        stages.gate.set()
        await eventually_consumed(broker_url, "held.single", 0)
        await eventually_holds(broker_url, "held.single", 6)
        assert worker.is_healthy, "a stage that is paused is no failure"
        assert str(worker._describe()).count("'paused': True") == 3
        assert worker._engine.counting.reports("heartbeat")[0].gauges["paused"] == 1
        assert len(stages.done) == 6
        for name in stages.app.stages:
            await resume(broker_url, "held", name)
        await eventually(lambda: len(stages.done) == 24, "all")
    assert len(set(stages.done)) == 24
    assert stages.attempts == {1}, "what went back is no attempt more"
    for queue in queues:
        await eventually_holds(broker_url, queue, 0)


@pytest.fixture(params=["embedded", "rabbitmq"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ | BrokerProcess]:
    """A broker with a store, of the test's own."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_rabbitmq")
        return
    with BrokerProcess("--data", str(tmp_path)) as broker:
        yield broker


def is_paused(worker: Worker) -> bool:
    """Return whether a worker, which is connected, knows that its stage is paused."""
    return worker.is_healthy and worker._engine.counting.stages["handle"].is_paused


async def test_a_pause_survives_a_killed_broker_and_other_workers(server: RabbitMQ | BrokerProcess) -> None:
    app = rabbitry.App("kept")
    handled: list[tuple[str, int]] = []
    begun: list[str] = []
    go_on = asyncio.Event()

    @app.stage("in", concurrency=1)
    async def handle(text: str, message: rabbitry.Message) -> None:
        begun.append(text)
        await go_on.wait()
        handled.append((text, message.attempt))

    async with app.worker(server.url, connect_attempts=1) as worker:
        await put(server.url, "kept.handle", b"in hand")
        await eventually(lambda: begun == ["in hand"], "the first in hand")
        await pause(server.url, "kept", "handle")
        await eventually(lambda: is_paused(worker), "the pause")
        await eventually_consumed(server.url, "kept.handle", 0)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await eventually(lambda: is_paused(worker), "the worker to come back")
        await put(server.url, "kept.handle", b"meanwhile")
        # What was in hand is handled to its end, and comes again: its connection was lost.
        go_on.set()
        await eventually(lambda: handled == [("in hand", 1)], "what was in hand")
        await eventually_holds(server.url, "kept.handle", 2)
    async with app.worker(server.url, connect_attempts=1) as worker:
        assert is_paused(worker), "before it takes anything"
        assert await eventually_consumed(server.url, "kept.handle", 0) == 2
        await resume(server.url, "kept", "handle")
        await eventually(lambda: {text for text, _ in handled[1:]} == {"in hand", "meanwhile"}, "all of the rest")
        assert not is_paused(worker)
    assert begun[1:] == [text for text, _ in handled[1:]]


async def test_two_that_pause_at_once_and_readers_are_not_in_each_others_way(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("crowded")

    @app.stage("in", queue="another.name")
    async def handle(text: str) -> None: ...

    async with (
        app.worker(broker_url, connect_attempts=1) as worker,
        rabbitry.connect(broker_url) as first,
        rabbitry.connect(broker_url) as second,
    ):
        with pytest.raises(NoSuchStage, match="app 'crowded' has no stage 'handler' on this broker"):
            await pausing.pause(first, "crowded", "handler", by="ada")
        assert await pausing.paused(first, "crowded", "handle") is None
        assert not await pausing.resume(first, "crowded", "handle")
        answers = await asyncio.gather(
            pausing.pause(first, "crowded", "handle", by="ada"), pausing.pause(second, "crowded", "handle", by="bob")
        )
        assert sorted(is_new for _, is_new in answers) == [False, True]
        held = next(pause for pause, is_new in answers if is_new)
        assert {pause for pause, _ in answers} == {held}, "both know who did it"
        await eventually(lambda: is_paused(worker), "the pause")

        async def read(connection: Connection) -> None:
            for _ in range(15):
                assert await pausing.paused(connection, "crowded", "handle") == held

        reading = asyncio.gather(read(first), read(second))
        while not reading.done():
            await asyncio.wait((reading,), timeout=0.01)
            assert is_paused(worker), "a reader holds the message for a moment, and the stage stays paused"
        await reading
        assert await pausing.resume(second, "crowded", "handle")
        await eventually(lambda: not is_paused(worker), "the end of the pause")
        await eventually_consumed(broker_url, "another.name", 1)
        assert await counts(broker_url, [pause_queue("crowded", "handle")]) == {"crowded.paused.handle": 0}


async def test_a_message_of_somebody_else_pauses_too_and_a_deleted_queue_comes_back(
    broker_url: str, no_leaks: None
) -> None:
    app = rabbitry.App("odd")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async with (
        app.worker(broker_url, connect_attempts=1) as worker,
        rabbitry.connect(broker_url) as connection,
        await connection.channel() as channel,
    ):
        await put(broker_url, "odd.paused.handle", b"no json")
        await eventually(lambda: is_paused(worker), "the pause")
        assert await pausing.paused(connection, "odd", "handle") == Pause("odd", "handle")
        await channel.delete_queue("odd.paused.handle")
        await eventually(lambda: not is_paused(worker), "the end of the pause")
        await pause(broker_url, "odd", "handle")
        await eventually(lambda: is_paused(worker), "another pause")


async def _declared(connection: Connection, arguments: dict[str, FieldValue] | None = None) -> None:
    channel = await connection.channel()
    await channel.declare_queue(pause_queue("held", "plain"), durable=True, arguments=arguments or {})
    await channel.close()


async def test_a_pause_during_an_alarm_ends_in_time_and_takes_effect_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "_PATIENCE", 0.5)
    async with Broker(BrokerConfig(port=0)) as broker:
        await broker.alarms.stop()  # it would look at the memory that there is
        async with rabbitry.connect(broker.url) as first, rabbitry.connect(broker.url) as second:
            await _declared(first)
            broker.alarms.set(Reason.MEMORY, is_on=True)
            with pytest.raises(PublishTimeout):
                await pausing.pause(first, "held", "plain", by="ada")
            assert first.blocked is not None
            assert await pausing.paused(second, "held", "plain") is None
            broker.alarms.set(Reason.MEMORY, is_on=False)
            await eventually_awaited(lambda: pausing.paused(second, "held", "plain"), "the pause, after the alarm")


async def test_a_pause_that_the_broker_keeps_refusing_ends_with_an_error(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pausing, "_PATIENCE", 0.5)
    async with rabbitry.connect(embedded_url) as connection:
        await _declared(connection, {"x-max-length": 0, "x-overflow": "reject-publish"})
        with pytest.raises(PublishRefused):
            await pausing.pause(connection, "held", "plain", by="ada")


async def test_any_reason_is_a_text_of_bounded_length(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection:
        await _declared(connection)
        with pytest.raises(UsageError, match="at most 1000 characters"):
            await pausing.pause(connection, "held", "plain", by="ada", why="x" * 1001)
        mine, is_new = await pausing.pause(connection, "held", "plain", by="ada", why="\udcff\0")
        assert (mine.why, is_new) == ("?\0", True)
        await pausing.resume(connection, "held", "plain")
        async with await connection.channel() as channel:
            body = b'{"app": "x", "stage": "y", "why": "%s"}' % (b"x" * 5000)
            await channel.publish(body, routing_key=pause_queue("held", "plain"))
        found = await pausing.paused(connection, "held", "plain")
        assert found == Pause("held", "plain", why="x" * 1000)
