"""Stages of which one worker at a time is active, on both brokers."""

import asyncio
import json
import logging
import signal
from pathlib import Path
from typing import Literal

import pytest

import rabbitry
from rabbitry.amqp.client import Properties, parse_url
from rabbitry.exceptions import PreconditionFailed
from rabbitry.flow.wiring import topology
from rabbitry.flow.worker._standstill import watch_queues
from tests.flow._running import (
    bodies,
    counts,
    dead_of,
    eventually_dead,
    eventually_holds,
    gathered,
    put,
)
from tests.support import commands
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

Seen = list[tuple[str, int, int]]


class Group:
    """Workers of one app, each with a name, and what they handled. No two of them ever handle at once."""

    def __init__(self, *, concurrency: int | None = None, queue_type: Literal["classic", "quorum"] = "classic") -> None:
        self.seen: Seen = []
        self.at_work: set[str] = set()
        self.most = 0
        self.running = 0
        self.released = asyncio.Event()
        self.released.set()
        self._concurrency = concurrency
        self._queue_type = queue_type

    def app(self, worker: str) -> rabbitry.App:
        """Make the app as one of the workers has it."""
        app = rabbitry.App("one", queue_type=self._queue_type)

        @app.stage("in", single_active=True, concurrency=self._concurrency, delays=[0])
        async def handle(number: int, message: rabbitry.Message) -> None:
            self.at_work.add(worker)
            assert self.at_work == {worker}, f"{self.at_work} are at work at once"
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(0)
                await self.released.wait()
                self.seen.append((worker, number, message.attempt))
            finally:
                self.running -= 1
                if not self.running:
                    self.at_work.discard(worker)

        return app

    def numbers(self) -> list[int]:
        return [number for _, number, _ in self.seen]

    def workers(self) -> set[str]:
        return {worker for worker, _, _ in self.seen}


async def publish(url: str, app: rabbitry.App, numbers: range) -> None:
    async with app.publisher(url) as publisher:
        for number in numbers:
            await publisher.send(number, key="in")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_one_worker_handles_all_and_another_takes_over_when_it_stops(
    broker_url: str, queue_type: Literal["classic", "quorum"], no_leaks: None
) -> None:
    group = Group(queue_type=queue_type)
    first, second = group.app("a"), group.app("b")
    async with first.worker(broker_url, connect_attempts=1) as a:
        async with second.worker(broker_url, connect_attempts=1) as b:
            assert (a.is_healthy, b.is_healthy) == (True, True), "standing by is healthy"
            await publish(broker_url, first, range(200))
            await eventually(lambda: len(group.seen) == 200, "all")
            assert group.workers() == {"a"}
            group.released.clear()
            await publish(broker_url, first, range(200, 500))
            # Deliveries of a quorum queue that RabbitMQ 3.10 has on their way at the cancel come redelivered.
            prefetch, settler = a._engine.intakes[0].prefetch, a._engine._settler
            assert settler is not None
            await eventually(lambda: settler.in_hand == prefetch and group.running > 50, "all that it may have in hand")
            stopping = asyncio.create_task(a.stop())
            await eventually(lambda: settler._held != [], "the stop")
            group.released.set()  # what is at work is finished by `a`, before `b` begins
            assert await stopping
            await eventually(lambda: len(group.seen) == 500, "the rest")
            await eventually(lambda: b.is_healthy, "it consumes its suspects, too")
    assert sorted(group.numbers()) == list(range(500))
    assert group.workers() == {"a", "b"}
    assert {attempt for _, _, attempt in group.seen} == {1}, "an orderly stop is no attempt"
    assert group.most > 50, "concurrency is as ever"
    assert await counts(broker_url, ["one.handle", "one.suspects.handle"]) == {
        "one.handle": 0,
        "one.suspects.handle": 0,
    }


async def test_concurrency_of_one_keeps_the_order(broker_url: str) -> None:
    group = Group(concurrency=1)
    app, other = group.app("a"), group.app("b")
    async with app.worker(broker_url, connect_attempts=1), other.worker(broker_url, connect_attempts=1):
        await publish(broker_url, app, range(500))
        await eventually(lambda: len(group.seen) == 500, "all")
    assert group.numbers() == list(range(500))
    assert group.most == 1


async def test_another_worker_takes_over_after_a_lost_connection_and_so_do_suspects(
    broker_url: str,
) -> None:
    group = Group()
    first, second = group.app("a"), group.app("b")
    port = parse_url(broker_url).hosts[0][1]
    async with FaultProxy(port) as proxy:
        through = broker_url.replace(f":{port}/", f":{proxy.port}/")
        async with first.worker(through, connect_attempts=1) as a, second.worker(broker_url, connect_attempts=1):
            await publish(broker_url, first, range(20))
            await eventually(lambda: len(group.seen) == 20, "all")
            assert group.workers() == {"a"}
            proxy.refuse()
            await proxy.reset()
            await publish(broker_url, first, range(20, 40))
            await eventually(lambda: set(group.numbers()) == set(range(40)), "the others")
            proxy.accept()
            await eventually(lambda: a.is_healthy, "the first to be back")
            await put_suspects(broker_url, range(40, 50))
            await publish(broker_url, first, range(50, 60))
            await eventually(lambda: set(group.numbers()) == set(range(60)), "the suspects too")
    assert {worker for worker, number, _ in group.seen if number >= 20} == {"b"}


async def put_suspects(url: str, numbers: range) -> None:
    for number in numbers:
        await put(url, "one.suspects.handle", b"%d" % number, Properties(headers={"x-rabbitry-attempt": 2}))


async def test_suspects_are_handled_without_other_messages_and_a_known_active_worker(
    broker_url: str,
) -> None:
    group = Group()
    first, second = group.app("a"), group.app("b")
    async with first.publisher(broker_url):
        await put_suspects(broker_url, range(5))
    async with first.worker(broker_url, connect_attempts=1), second.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(group.seen) == 5, "the suspects")
        assert len(group.workers()) == 1
        assert await dead_of(broker_url, first) == []
    for queue in ("one.handle", "one.suspects.handle"):
        await eventually_holds(broker_url, queue, 0)  # a probe that came too late lives for ten seconds


@pytest.mark.timeout(400)
async def test_workers_killed_one_after_the_other_lose_nothing_and_never_work_at_once(
    broker_url: str, tmp_path: Path
) -> None:
    (tmp_path / "only_of_tests.py").write_text(
        "import asyncio, fcntl, os, signal, rabbitry\n"
        "app = rabbitry.App('only')\n"
        "handled = 0\n"
        "lock = open(os.environ['LOCK'], 'w')\n"
        "@app.stage('in', then='out', single_active=True, concurrency=1)\n"
        "async def handle(number: int) -> int:\n"
        "    global handled\n"
        "    try:\n"
        "        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except OSError:\n"
        "        raise rabbitry.Reject('another worker is at work') from None\n"
        "    try:\n"
        "        await asyncio.sleep(0)\n"
        "        handled += 1\n"
        "        if handled == int(os.environ['DIE_AT']):\n"
        "            fcntl.flock(lock, fcntl.LOCK_UN)  # the kernel may let it go after the sockets\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return number\n"
        "    finally:\n"
        "        fcntl.flock(lock, fcntl.LOCK_UN)\n"
        "app.output('out', queue='only.out')\n"
    )
    only = rabbitry.App("only")

    @only.stage("in", single_active=True)
    async def handle(number: int) -> None: ...

    only.output("out", queue="only.out")
    loop = asyncio.get_running_loop()
    await publish(broker_url, only, range(300))
    more = {"RABBITRY_BROKER": broker_url, "PYTHONPATH": str(tmp_path), "LOCK": str(tmp_path / "lock")}
    dying = more | {"DIE_AT": "40"}
    with (
        commands.service("worker", "only_of_tests:app", more=dying) as first,
        commands.service("worker", "only_of_tests:app", more=dying) as second,
    ):
        for worker in (first, second):  # whichever is active dies, then the other one
            code = await loop.run_in_executor(None, worker.process.wait, 90)
            assert code == -signal.SIGKILL, worker.output
    with commands.service("worker", "only_of_tests:app", more=more | {"DIE_AT": "-1"}) as last:
        wanted = {str(number) for number in range(300)}
        assert set((await gathered(broker_url, ["only.out"], wanted))["only.out"]) == wanted
        last.process.terminate()
        assert await loop.run_in_executor(None, last.process.wait, 60) == 0, last.output
    assert await dead_of(broker_url, only) == []


async def test_a_queue_that_would_let_two_be_active_is_an_error(broker_url: str) -> None:
    app = Group().app("a")
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("one.handle", durable=True)
    for entering in (app.worker(broker_url, connect_attempts=1), app.publisher(broker_url)):
        with pytest.raises(
            rabbitry.TopologyMismatch, match=r"'one.handle'.*stage 'handle' with single_active.*rabbitry topology plan"
        ):
            await entering.__aenter__()
    strict = app.worker(broker_url, connect_attempts=1, strict=True)
    with pytest.raises(rabbitry.TopologyMismatch, match="x-single-active-consumer"):
        await strict.__aenter__()


async def test_an_app_that_publishes_declares_the_queue_as_the_stage_needs_it(broker_url: str) -> None:
    app = rabbitry.App("one")
    app.output("in", queue="one.handle", single_active=True)
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await topology.declare(connection, app.spec())
        await channel.publish(b"1", exchange=app.exchange, routing_key="in")
    group = Group()
    async with group.app("a").worker(broker_url, connect_attempts=1):
        await eventually(lambda: group.numbers() == [1], "what waited")


async def test_an_app_that_publishes_uses_the_queue_as_it_is(broker_url: str) -> None:
    app = rabbitry.App("one")
    app.output("in", queue="one.handle", single_active=True)
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("one.handle", durable=True)
        await topology.declare(connection, app.spec())
        await channel.publish(b"1", exchange=app.exchange, routing_key="in")
    assert await bodies(broker_url, "one.handle") == [b"1"]


async def test_a_queue_recreated_without_the_argument_ends_the_worker(broker_url: str) -> None:
    app = Group().app("a")

    async def run() -> None:
        async with app.worker(broker_url, connect_attempts=1) as worker:
            async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
                is_declared = False
                while not is_declared:
                    await channel.delete_queue("one.handle")
                    try:
                        await channel.declare_queue("one.handle", durable=True)
                        is_declared = True
                    except PreconditionFailed:  # the worker was quicker
                        await channel.open()
            await worker.wait()

    with pytest.raises(rabbitry.TopologyMismatch, match=r"one\.handle"):
        await asyncio.wait_for(run(), 60)


async def test_a_standby_worker_is_not_taken_for_a_stuck_one(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    group = Group(concurrency=1)
    group.released.clear()
    first, second = group.app("a"), group.app("b")
    async with first.worker(broker_url, connect_attempts=1), second.worker(broker_url, connect_attempts=1) as b:
        await publish(broker_url, first, range(50))
        await eventually_holds(broker_url, "one.handle", 48)
        engine = b._engine
        with caplog.at_level(logging.ERROR, "rabbitry.flow"):
            work = watch_queues(engine.intakes, engine._connections[0], lambda stage: 0, every=0.05)
            watching = asyncio.run_coroutine_threadsafe(work, b._io.loop)  # type: ignore[union-attr] # it is entered
            await asyncio.sleep(0.5)
            watching.cancel()
        group.released.set()
        await eventually(lambda: len(group.seen) == 50, "all")
    assert "consuming anew" not in caplog.text
    assert group.workers() == {"a"}


def test_a_plain_app_has_no_such_stage() -> None:
    app = rabbitry.App("plain", plain=True)

    async def handle(text: str) -> None: ...

    with pytest.raises(rabbitry.AppError, match=r"test_single_active.py:\d+.*single_active"):
        app.stage("in", single_active=True)(handle)
    later = Group().app("a")
    later.plain = True  # as `rabbitry worker --plain` does
    with pytest.raises(rabbitry.AppError, match="single_active"):
        later.validate()


def test_the_argument_is_in_the_definitions_too() -> None:
    definitions = topology.derive(Group(queue_type="quorum").app("a").spec()).definitions()
    (queue,) = [queue for queue in definitions["queues"] if queue["name"] == "one.handle"]
    assert json.loads(json.dumps(queue["arguments"])) == {
        "x-queue-type": "quorum", "x-delivery-limit": topology.DELIVERY_LIMIT, "x-single-active-consumer": True,
    }  # fmt: skip


async def test_a_poisoned_message_becomes_a_dead_letter_of_the_active_worker(broker_url: str) -> None:
    app = rabbitry.App("one")

    @app.stage("in", single_active=True, attempts=2, delays=[0])
    async def handle(number: int) -> None:
        raise ValueError(number)

    async with app.worker(broker_url, connect_attempts=1):
        await publish(broker_url, app, range(3))
        await eventually_dead(broker_url, app, 3)
    assert {letter.attempts for letter in await dead_of(broker_url, app)} == {2}
