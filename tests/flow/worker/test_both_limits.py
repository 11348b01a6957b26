"""Limits of a whole stage beside those of each key: both hold, whatever becomes of the workers; on both brokers."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

import rabbitry
from rabbitry.flow.wiring import pausing
from rabbitry.flow.worker import _keyed
from tests.flow._running import counts, eventually_holds
from tests.flow.worker._limited import app as limited
from tests.flow.worker._over_kills import RATE, WHOLE, Begun, begun_over_kills, calls_over_kills, rate_of
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually


def _assert_held(begun: Begun) -> None:
    for number, moment in enumerate(begun.all):
        assert number <= 1 + WHOLE * (moment - begun.since), f"handler {number} began too early"
    for key, moments in begun.by_key.items():
        for number, moment in enumerate(moments):
            assert number <= RATE + RATE * (moment - begun.since), f"handler {number} of key {key} began too early"


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_begin_no_more_than_either_rate(broker_url: str, path: Path) -> None:
    _assert_held(await begun_over_kills(broker_url, path, "ask_both", 40, 2))


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_over_a_minute_with_kills_both_rates_are_held(broker_url: str, path: Path) -> None:
    begun = await begun_over_kills(broker_url, path, "ask_both", 66 * WHOLE // 3, 12)
    whole = rate_of(begun.all, 60)
    print(f"{whole:.2f} a second of {WHOLE}")
    assert whole <= 1.02 * WHOLE
    for moments in begun.by_key.values():
        assert rate_of(moments, 60) <= 1.02 * RATE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_workers_that_are_killed_never_run_more_at_once(
    broker_url: str, path: Path, queue_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited, "queue_type", queue_type)
    calls = await calls_over_kills(broker_url, path, "run_both", 60, [10, 30])
    assert calls.most_at_once() == 2
    assert calls.most_by_key() == [1, 1, 1]


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_over_many_kills_no_more_run_at_once(broker_url: str, path: Path) -> None:
    calls = await calls_over_kills(broker_url, path, "run_both", 300, range(10, 300, 20))
    assert calls.most_at_once() == 2
    assert calls.most_by_key() == [1, 1, 1]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_message_passes_all_four_limits(broker_url: str, queue_type: str, no_leaks: None) -> None:
    app = rabbitry.App("four", queue_type=queue_type)  # type: ignore[arg-type] # one of the two
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()
    tried: Counter[int] = Counter()

    @app.stage("in", then="out", attempts=2, delays=[0], rate="1000/s", total_concurrency=3,
               limit_by=lambda number: number % 5 or None, rate_each="500/s", concurrency_each=2)  # fmt: skip
    async def handle(number: int) -> int:
        tried[number] += 1
        running[number % 5] += 1
        for key, now in ((number % 5, running[number % 5]), (-1, running.total())):
            most[key] = max(most[key], now)
        await eventually(lambda: most[-1] >= 3, "as many calls at once as may be")
        running[number % 5] -= 1
        if tried[number] == 1 and number % 7 == 0:
            raise ValueError("once more")
        return number

    app.output("out", queue="four.out")
    async with app.worker(broker_url) as worker, app.worker(broker_url):
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(100)))
        await eventually_holds(broker_url, "four.out", 100)
        await eventually_holds(broker_url, "four.handle", 0)
    assert most[-1] == 3, "of the whole stage"
    assert max(most[key] for key in range(1, 5)) <= 2, "of each key"
    assert tried.total() == 100 + len(range(0, 100, 7))


async def test_a_key_that_waits_for_its_own_limit_uses_nothing_of_the_stage(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("shared")
    seen: list[str] = []
    until = asyncio.Event()

    @app.stage("in", rate="50/s", total_concurrency=2, limit_by=lambda text: text[0], concurrency_each=1)
    async def handle(text: str) -> None:
        seen.append(text)
        if text[0] == "a":
            await until.wait()

    async with app.worker(broker_url) as worker:
        await asyncio.gather(*(worker.publish(f"a{number}", key="in") for number in range(30)))
        await eventually(lambda: seen, "the call of the busy key")
        await asyncio.gather(*(worker.publish(f"b{number}", key="in") for number in range(30)))
        await eventually(lambda: len(seen) == 31, "the other key's calls, in the other slot")
        until.set()
        await eventually(lambda: len(seen) == 60, "all messages")


async def test_few_messages_of_a_key_wait_for_the_limit_of_the_stage(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("few")
    seen: list[int] = []

    @app.stage("in", rate="1/d", limit_by=lambda number: "all", rate_each="1000/s", concurrency=20)
    async def handle(number: int) -> None:
        seen.append(number)

    async with app.worker(broker_url) as worker:
        measures = worker._engine.counting.stages["handle"].measures
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(50)))
        await eventually(lambda: seen and measures["waiting_tokens"]() == 10, "as many as may be on their way")
        await eventually_holds(broker_url, "few.handle", 0)
        await eventually(lambda: measures["waiting_keys"]() == 39, "the keys of all others are read")
        async with rabbitry.connect(broker_url) as connection:
            await pausing.pause(connection, "few", "handle", by="a test")
            await eventually_holds(broker_url, "few.handle", 49)
            await pausing.resume(connection, "few", "handle")
        await eventually(lambda: measures["waiting_tokens"]() == 10, "the same after a pause")
    assert await counts(broker_url, ["few.handle"]) == {"few.handle": 49}
    assert len(seen) == 1


async def test_what_waits_for_the_limit_of_the_stage_is_not_returned_for_others(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(_keyed, "_TURN", 0.1)
    monkeypatch.setattr(_keyed, "_LOOK", 0.02)
    looks: list[None] = []
    sweep = _keyed.Keyed.sweep

    def counted(keyed: _keyed.Keyed) -> None:
        looks.append(None)
        sweep(keyed)

    monkeypatch.setattr(_keyed.Keyed, "sweep", counted)
    app = rabbitry.App("stage_bound")
    seen: list[int] = []

    @app.stage("in", rate="1/d", limit_by=lambda number: number % 10, concurrency_each=2, concurrency=20)
    async def handle(number: int) -> None:
        seen.append(number)

    async with app.worker(broker_url) as worker:
        engine = worker._engine
        measures = engine.counting.stages["handle"].measures
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(250)))
        await eventually(lambda: seen and measures["waiting_tokens"]() == 10, "as many as may be on their way")
        await eventually_holds(broker_url, "stage_bound.handle", 29)
        taken = sum(intake.taken for intake in engine.intakes)
        until = len(looks) + 25  # five times as long as what could be returned waits
        await eventually(lambda: len(looks) >= until, "many looks at what waits")
        assert sum(intake.taken for intake in engine.intakes) == taken
        monkeypatch.setattr(_keyed, "_HELD_UP", 3600.0)
        monkeypatch.setattr(_keyed.Keyed, "_free", property(lambda _: 1))  # as in a moment in which fewer wait
        until = len(looks) + 25
        await eventually(lambda: len(looks) >= until, "looks in that moment")
        assert sum(intake.taken for intake in engine.intakes) == taken
        monkeypatch.setattr(_keyed, "_HELD_UP", 0.0)
        await eventually(lambda: sum(intake.taken for intake in engine.intakes) > taken, "returns, when it is longer")


@pytest.mark.timeout(300)
async def test_a_killed_broker_lets_no_more_run_at_once(own_broker: RabbitMQ | BrokerProcess) -> None:
    app = rabbitry.App("restarted")
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()
    done: set[int] = set()

    @app.stage("in", rate="100/s", total_concurrency=2, limit_by=lambda number: number % 3, rate_each="50/s",
               concurrency_each=1)  # fmt: skip
    async def handle(number: int) -> None:
        running[number % 3] += 1
        for key, now in ((number % 3, running[number % 3]), (-1, running.total())):
            most[key] = max(most[key], now)
        await asyncio.sleep(0)
        running[number % 3] -= 1
        done.add(number)

    async with app.publisher(own_broker.url) as publisher:
        await asyncio.gather(*(publisher.publish(number, key="in") for number in range(300)))
    loop, url = asyncio.get_running_loop(), own_broker.url
    async with app.worker(url, connect_attempts=1) as one, app.worker(url, connect_attempts=1) as two:
        await eventually(lambda: len(done) >= 50, "some calls")
        await loop.run_in_executor(None, own_broker.kill)
        await loop.run_in_executor(None, own_broker.start)
        await eventually(lambda: one.is_healthy and two.is_healthy, "the workers to come back")
        await eventually(lambda: len(done) == 300, "all calls")
        await eventually_holds(url, "restarted.handle", 0)
    assert most[-1] <= 2, "of the whole stage"
    assert max(most[key] for key in range(3)) == 1, "of each key"
