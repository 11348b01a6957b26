"""Rates of stages hold over all workers, whatever becomes of these; on both brokers."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import rabbitry
from rabbitry.flow.wiring import pausing, topology
from rabbitry.flow.worker import _minter
from rabbitry.testing import harness
from tests.flow._running import counts, eventually_holds, put
from tests.flow.worker._over_kills import RATE, begun_over_kills, rate_of
from tests.support.waiting import eventually, eventually_awaited


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_never_begin_more_than_the_rate(broker_url: str, path: Path) -> None:
    begun = await begun_over_kills(broker_url, path, "ask", 50, 2)
    for number, moment in enumerate(begun.all):
        assert number <= 1 + RATE * (moment - begun.since), f"handler {number} began too early"


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_over_a_minute_with_kills_the_rate_is_held(broker_url: str, path: Path) -> None:
    begun = await begun_over_kills(broker_url, path, "ask", 65 * RATE, 12)
    rate = rate_of(begun.all, 60)
    print(f"{rate:.2f} a second of {RATE}")
    assert rate <= 1.02 * RATE  # a busy machine may begin fewer


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_each_kind_of_handler_has_its_messages(broker_url: str, queue_type: str, no_leaks: None) -> None:
    app = rabbitry.App("kinds", queue_type=queue_type)  # type: ignore[arg-type] # one of the two
    tried = []

    @app.stage("one", then="out", rate="100/s", attempts=2, delays=[0])
    async def one(number: int) -> int:
        tried.append(number)
        if tried.count(number) == 1:
            raise ValueError("once more")
        return number

    @app.stage("parts", then="out", rate="100/s")
    async def parts(number: int) -> AsyncIterator[int]:
        yield number

    @app.stage("many", then="out", rate="100/s", batch=5)
    def many(numbers: list[int]) -> list[int]:
        return numbers

    app.output("out", queue="kinds.out")
    async with app.worker(broker_url) as worker, rabbitry.connect(broker_url) as connection:
        await asyncio.gather(*(worker.publish(n, key=key) for key in ("one", "parts", "many") for n in range(5)))
        await eventually_holds(broker_url, "kinds.out", 15)
        async with await connection.channel() as channel:  # a broker that lost its data
            for queue in ("kinds.tokens.one", "kinds.rate.one"):
                await channel.delete_queue(queue)
        await worker.publish(7, key="one")
        await eventually_holds(broker_url, "kinds.out", 16)
    assert sorted(tried) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 7, 7]


async def test_what_waits_is_returned_unattempted_and_the_state_stays(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("daily")
    seen: list[rabbitry.Message] = []

    @app.stage("ask", rate="1/d")
    async def ask(number: int, message: rabbitry.Message) -> None:
        seen.append(message)

    async with app.worker(broker_url) as worker:
        for number in range(3):
            await worker.publish(number, key="ask")
        await eventually(lambda: len(seen) == 1, "the first message")
        # One waits here for its token, since no more than one does at this rate; the other one in the queue.
        await eventually_holds(broker_url, "daily.ask", 1)
        async with rabbitry.connect(broker_url) as connection:
            await pausing.pause(connection, "daily", "ask", by="a test")
            await eventually_holds(broker_url, "daily.ask", 2)
            await pausing.resume(connection, "daily", "ask")
            await eventually_holds(broker_url, "daily.ask", 1)
    assert await counts(broker_url, ["daily.ask", "daily.tokens.ask", "daily.rate.ask"]) == {
        "daily.ask": 2, "daily.tokens.ask": 0, "daily.rate.ask": 1,
    }  # fmt: skip
    async with app.worker(broker_url) as worker:
        await eventually_awaited(lambda: _holds_nothing(broker_url), "the state to be taken")
        await eventually_holds(broker_url, "daily.ask", 1)
        assert len(seen) == 1  # the second token is due tomorrow
        async with rabbitry.connect(broker_url) as connection:
            await pausing.pause(connection, "daily", "ask", by="a test")
            await eventually_holds(broker_url, "daily.ask", 2)
            # A token that comes while nothing waits is there for the next message.
            await put(broker_url, "daily.tokens.ask", b"")
            await eventually_holds(broker_url, "daily.tokens.ask", 1)
            await pausing.resume(connection, "daily", "ask")
        await eventually(lambda: len(seen) == 2, "the second message")
    assert [message.attempt for message in seen] == [1, 1]


async def test_what_is_cancelled_while_it_waits_is_dropped(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("hourly", cancellable=True)
    seen: list[int] = []

    @app.stage("ask", rate="2/h", concurrency=3, replies=True)
    async def ask(number: int) -> int:
        seen.append(number)
        return number

    async with app.publisher(broker_url) as publisher:
        calls = [
            asyncio.create_task(publisher.call(number, key="ask", timeout=100, id=f"call {number}", type=int))
            for number in range(3)
        ]
        await eventually_holds(broker_url, "hourly.ask", 3)
        async with app.worker(broker_url):
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            waits = [number for number in range(3) if number not in seen]
            for number in waits:
                await publisher.cancel(f"call {number}")
            for number in waits:
                with pytest.raises(rabbitry.CallCancelled):
                    await calls[number]
        assert [await calls[number] for number in seen] == seen
    assert len(seen) == 1


async def test_the_harness_waits_for_no_limit(no_leaks: None) -> None:
    app = rabbitry.App("tested")

    @app.stage("in", then="out", rate="1/d", total_concurrency=1)
    async def handle(number: int) -> int:
        return number

    app.output("out", required=False)
    async with harness(app) as h:
        for number in range(3):
            await h.publish(number, key="in")
            assert await h.published("out", type=int) == number


async def test_a_clock_that_is_set_back_stops_no_stage(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    ahead = 3600.0
    monkeypatch.setattr(_minter, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    app = rabbitry.App("late")
    seen: list[int] = []

    @app.stage("ask", rate="20/s")
    async def ask(number: int) -> None:
        seen.append(number)

    async with app.worker(broker_url) as worker:
        await worker.publish(0, key="ask")
        await eventually(lambda: len(seen) == 1, "the first message")
        ahead = 0.0
        # More than the tokens that may be there already.
        await asyncio.gather(*(worker.publish(number, key="ask") for number in range(1, 41)))
        await eventually(lambda: len(seen) == 41, "the messages after the clock was set back", within=60)


async def test_the_tokens_of_a_higher_rate_are_dropped(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("slower")

    @app.stage("ask", rate="3/s")
    async def ask(number: int) -> None: ...

    async with rabbitry.connect(broker_url) as connection:
        await topology.declare(connection, app.spec())
    for _ in range(9):
        await put(broker_url, "slower.tokens.ask", b"")
    async with app.worker(broker_url):
        await eventually_holds(broker_url, "slower.tokens.ask", 3)


async def _holds_nothing(url: str) -> bool:
    return (await counts(url, ["daily.rate.ask"]))["daily.rate.ask"] == 0
