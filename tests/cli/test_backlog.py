"""Worker processes that follow what waits in an app's queues."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.cli import _backlog, worker
from rabbitry.cli._scaling import Backlog, Bounds, Range
from rabbitry.exceptions import ConnectionClosed
from rabbitry.flow.wiring import pausing
from rabbitry.runtime.backoff import Backoff
from rabbitry.runtime.children import Child
from rabbitry.testing import RunningBroker
from tests.flow._running import counts, eventually_consumed, eventually_holds, gathered
from tests.support import commands
from tests.support.ports import free_port
from tests.support.waiting import eventually, eventually_blocking

_APP = """
import time
from pathlib import Path
import rabbitry

app = rabbitry.App("jam")

@app.stage("in", then="out", concurrency=1)
def wait(name: str) -> str:
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.02)
    return name

app.output("out", queue="jam.out")
"""


def test_processes_follow_the_backlog_and_nothing_is_lost(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "jam_of_tests.py").write_text(_APP)
    lines = "".join(f"{number}\n" for number in range(60))
    more = {"RABBITRY_BROKER": broker_url, "PYTHONPATH": str(tmp_path)}
    scaled = ["--processes", "1:3", "--scale-backlog", "10", "--scale-quiet", "1"]
    with commands.service("worker", "jam_of_tests:app", *scaled, more=more) as worker:
        children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
        asyncio.run(eventually_consumed(broker_url, "jam.wait", 1))
        assert commands.run("publish", "jam_of_tests:app", "in", more=more, text=lines).returncode == 0
        asyncio.run(eventually_consumed(broker_url, "jam.wait", 3))
        worker.wait_for(r"worker processes: 3, \d before: messages waiting: \d+")
        killed = int(children.read_text().split()[-1])
        os.kill(killed, signal.SIGKILL)
        eventually_blocking(lambda: str(killed) not in children.read_text().split(), "the end of it")
        asyncio.run(eventually_consumed(broker_url, "jam.wait", 3))
        (tmp_path / "go").touch()
        wanted = {f"{number}" for number in range(60)}
        asyncio.run(gathered(broker_url, ["jam.out"], wanted))
        worker.wait_for(r"worker processes: 1, 2 before: fewer were enough for \d+ s")
        asyncio.run(eventually_consumed(broker_url, "jam.wait", 1))
        worker.process.terminate()
        assert worker.process.wait(60) == 0, worker.output
    assert asyncio.run(counts(broker_url, ["jam.wait", "jam.dead"])) == {"jam.wait": 0, "jam.dead": 0}


async def test_the_stages_that_more_processes_help_are_counted(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backlog, "LOOK", 0.02)
    app = rabbitry.App("kinds")

    @app.stage("shared")
    async def shared(text: str) -> None: ...

    @app.stage("paused")
    async def paused(text: str) -> None: ...

    @app.stage("one", single_active=True)
    async def one(text: str) -> None: ...

    @app.stage("paced", rate="4/s")
    async def paced(text: str) -> None: ...

    @app.stage("few", total_concurrency=2)
    async def few(text: str) -> None: ...

    seen: list[Backlog] = []
    stages = app.spec().select(None)
    watching = asyncio.create_task(_backlog.watch(broker_url, app.spec(), stages, seen.append))
    try:
        await eventually(lambda: Backlog(0, 0.0) in seen, "a look at queues that are not there yet")
        async with app.worker(broker_url):
            pass
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await pausing.pause(connection, app.name, "paused", by="a test")
            await channel.purge_queue("kinds.tokens.paced")  # the worker may have published some
            slots = [channel.consume(f"kinds.slot.few.{number}") for number in (1, 2)]
            for slot in slots:
                await slot.start()  # as workers that run two calls do
            for stage in stages:
                await _put(channel, stage.queue, 3)
            await eventually(lambda: seen[-1].waiting == 3, "the shared stage's messages alone")
            await slots[0].cancel()
            await eventually(lambda: seen[-1].waiting == 6, "those that have a slot and no worker")
            await channel.purge_queue("kinds.few")
            await eventually(lambda: seen[-1].waiting == 3, "the shared stage's messages alone again")
            since = seen[-1].age
            await eventually(lambda: seen[-1].age > since, "their age to grow")
            await pausing.resume(connection, app.name, "paused")
            await eventually(lambda: seen[-1].waiting == 6, "those of the stage that was paused")
            await _put(channel, "kinds.tokens.paced", 1)
            await _put(channel, "kinds.shared", 1)
            await eventually(lambda: seen[-1].waiting == 7, "a look after the first token")
            await _put(channel, "kinds.tokens.paced", 1)
            await eventually(lambda: seen[-1].waiting == 10, "those that have tokens and no worker")
            for queue in ("kinds.shared", "kinds.paused", "kinds.paced"):
                await channel.purge_queue(queue)
            await eventually(lambda: seen[-1] == (0, 0.0), "queues that are empty again")
            assert not watching.done()
    finally:
        watching.cancel()


async def test_messages_that_wait_for_their_keys_count_while_handlers_are_busy(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(_backlog, "LOOK", 0.02)
    monkeypatch.setattr("rabbitry.telemetry._reporter.INTERVAL", 0.05)
    monkeypatch.setattr("rabbitry.flow.worker._load._LOOK", 0.01)
    monkeypatch.setattr("rabbitry.flow.worker._keyed._TURN", 0.2)
    app = rabbitry.App("keyed")
    begun: list[str] = []
    until, over = asyncio.Event(), asyncio.Event()

    @app.stage("in", limit_by=lambda text: text, concurrency_each=1, concurrency=4)
    async def handle(text: str) -> None:
        begun.append(text)
        await (over if text == "limited" else until).wait()

    seen: list[Backlog] = []
    spec = app.spec()
    async with app.worker(broker_url) as worker:
        watching = asyncio.create_task(_backlog.watch(broker_url, spec, spec.select(None), seen.append))
        try:
            # More than a worker takes: the others wait in the queue.
            await asyncio.gather(*(worker.publish("limited", key="in") for _ in range(300)))
            await eventually(lambda: begun, "the one call of the key that may run")
            await eventually_holds(broker_url, "keyed.handle", 50, at_least=True)
            heard = worker._engine.counting._reported
            await eventually(lambda: worker._engine.counting._reported > heard + 10, "reports of what waits")
            looks = len(seen)
            await eventually(lambda: len(seen) > looks + 20, "many looks at what waits")
            assert {look.waiting for look in seen} == {0}, "limited messages count"
            await asyncio.gather(*(worker.publish(f"free {number}", key="in") for number in range(300)))
            await eventually(lambda: len(begun) == 4, "as many calls as run at once")
            await eventually(lambda: seen[-1].waiting > 0, "messages that wait for handlers")
            until.set()
            await eventually(lambda: len(begun) == 301, "all that are not limited")
            await eventually(lambda: seen[-1].waiting == 0, "messages that are limited alone")
            assert not watching.done()
        finally:
            watching.cancel()
            over.set()


async def test_stages_with_limits_by_key_do_not_count_when_reports_are_refused(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_backlog, "LOOK", 0.02)
    app = rabbitry.App("refused")

    @app.stage("each", limit_by=lambda text: text, rate_each="1/m")
    async def each(text: str) -> None: ...

    @app.stage("all")
    async def shared(text: str) -> None: ...

    seen: list[Backlog] = []
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("rabbitry.telemetry", "fanout")  # of another type, which ends the channel
        for stage in app.spec().select(None):
            await channel.declare_queue(stage.queue, durable=True)
            await _put(channel, stage.queue, 2)
        watching = asyncio.create_task(_backlog.watch(broker_url, app.spec(), app.spec().select(None), seen.append))
        try:
            await eventually(lambda: "workers' reports can't be read" in caplog.text, "a warning")
            looks = len(seen)
            await eventually(lambda: len(seen) > looks + 5, "looks after it")
            assert seen[-1].waiting == 2
            assert not watching.done()
        finally:
            watching.cancel()
            await channel.delete_exchange("rabbitry.telemetry")


async def test_looking_ends_though_collecting_reports_has_failed(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """The connection is lost between two looks, and the command is told to end before the next one."""
    app = rabbitry.App("ending")

    @app.stage("each", limit_by=lambda text: text, rate_each="1/m")
    async def each(text: str) -> None: ...

    has_failed, seen = asyncio.Event(), asyncio.Event()

    async def fail(*_: object, **__: object) -> None:
        await (asyncio.Event() if has_failed.is_set() else seen).wait()  # later connections stay
        has_failed.set()
        raise ConnectionClosed(0, "the connection was lost")

    monkeypatch.setattr(_backlog, "LOOK", 3600.0)
    monkeypatch.setattr("rabbitry.telemetry.Collector.run", fail)
    spec = app.spec()
    watching = asyncio.create_task(_backlog.watch(broker_url, spec, spec.select(None), lambda _: seen.set()))
    await has_failed.wait()
    await asyncio.sleep(0)  # it has failed
    watching.cancel()
    done, _ = await asyncio.wait((watching,), timeout=10)
    watching.cancel()
    await asyncio.wait((watching,))
    assert done


async def test_looking_goes_on_when_the_broker_comes_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backlog, "LOOK", 0.02)
    monkeypatch.setattr(_backlog, "AT_START", Backoff(0.05, 0.05))
    app = rabbitry.App("late")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    seen: list[Backlog] = []
    port = free_port()
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    watching = asyncio.create_task(_backlog.watch(url, app.spec(), app.spec().select(None), seen.append))
    try:
        for _ in range(2):
            with RunningBroker(port=port) as broker:
                async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
                    await channel.declare_queue("late.handle", durable=True)
                    await _put(channel, "late.handle", 2)
                    await eventually(lambda: any(look.waiting == 2 for look in seen), "a look")
            seen.clear()
        assert not watching.done()
    finally:
        watching.cancel()


async def test_an_error_of_the_look_ends_all_and_is_raised(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = rabbitry.App("kinds")

    @app.stage("in")
    async def shared(text: str) -> None: ...

    ready = asyncio.Event()
    children: list[Child] = []

    async def fail(*_: object) -> None:
        await ready.wait()
        raise LookupError("a fault of this program")

    class Making(worker._Making):
        def child(self, number: int) -> Child:
            made = Child(f"worker {number}", ["broker", "--memory", "--port", "0", "--no-management"], {})
            children.append(made)
            return made

    monkeypatch.setattr(_backlog, "watch", fail)
    make = Making([], None, embedded_url, 60.0)
    running = worker._supervise(asyncio.Event(), app.worker(embedded_url), Range(1, 2), Bounds(1, 1.0, 1.0), make)
    supervising = asyncio.create_task(running)
    await eventually(lambda: children and children[0].ready.is_set(), "the first process")
    ready.set()
    with pytest.raises(LookupError, match="a fault of this program"):
        await asyncio.wait_for(supervising, 90)


async def _put(channel: Channel, queue: str, number: int) -> None:
    for _ in range(number):
        await channel.publish(b'"x"', routing_key=queue)
