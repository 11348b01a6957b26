"""Ticks: each is published once, whatever becomes of the workers; on both brokers."""

import asyncio
import logging
import time
from datetime import UTC, datetime

import pytest

import rabbitry
from rabbitry.flow.schedule import every
from rabbitry.flow.wiring import pausing
from rabbitry.flow.wiring.schedules import KEPT, Fired, Token, encode_token, read_token
from rabbitry.flow.worker import _scheduler
from rabbitry.flow.worker._scheduler import due_ticks
from rabbitry.telemetry import Report, collect
from tests.flow._running import bodies, counts, eventually_holds, put
from tests.flow.worker._over_kills import due_in, pause_and_declare, ticks_over_kills
from tests.flow.worker._ticking import app as ticking
from tests.support.embedded import BrokerProcess
from tests.support.waiting import eventually, eventually_awaited

QUEUE = "ticking.schedule.count"


def assert_whole(ticks: list[int]) -> None:
    """Each second has one tick, in order."""
    assert ticks == [*range(ticks[0], ticks[0] + len(ticks))]


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_publish_each_tick_once(broker_url: str) -> None:
    assert_whole(await ticks_over_kills(broker_url, 6))


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_fifty_kills_neither_miss_nor_repeat_a_tick(broker_url: str) -> None:
    assert_whole(await ticks_over_kills(broker_url, 50))


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_tick_is_a_message_of_its_stage(broker_url: str, queue_type: str, no_leaks: None) -> None:
    app = rabbitry.App("clock", queue_type=queue_type)  # type: ignore[arg-type] # one of the two
    seen: list[tuple[rabbitry.Tick, rabbitry.Message]] = []
    reports: list[Report] = []

    @app.every("1s")
    @app.stage("each", attempts=2, delays=[0], then="out")
    async def work(tick: rabbitry.Tick, message: rabbitry.Message) -> datetime:
        seen.append((tick, message))
        if message.attempt == 1:
            raise ValueError("once more")
        return tick.at

    app.output("out", queue="clock.out")
    async with rabbitry.connect(broker_url) as connection, app.worker(broker_url), app.worker(broker_url):
        collecting = asyncio.create_task(collect(connection, reports.append))
        await eventually_holds(broker_url, "clock.out", 2, at_least=True)
        await eventually(lambda: any(report.schedule and report.schedule.fired for report in reports), "its report")
        collecting.cancel()
        await asyncio.wait([collecting])
    tick, message = seen[0]
    assert (tick.schedule, tick.at.tzinfo, tick.at.microsecond, message.type) == ("work", UTC, 0, "Tick")
    assert message.id == message.correlation_id
    assert {each[1].attempt for each in seen if each[1].id == message.id} == {1, 2}
    state = next(report.schedule for report in reports if report.schedule and report.schedule.fired)
    assert (state.when, state.missed) == ("every 1s", "last")
    assert state.next - state.fired[-1][0] == 1


async def test_ticks_that_were_missed_come_as_the_schedule_says(broker_url: str) -> None:
    day = 24 * 3600  # so long that none ends during the test, but one a day
    since = int(time.time()) // day * day - 3 * day
    app = rabbitry.App("away")
    for missed in ("last", "all", "skip"):

        @app.every("1d", missed=missed)
        @app.stage(missed, name=missed)
        def handle(tick: rabbitry.Tick) -> None: ...

    for missed in ("last", "all", "skip"):
        await pause_and_declare(broker_url, app, missed)
        earlier = [Fired(since - number, since - number + 0.5, "ada") for number in reversed(range(KEPT))]
        await put(broker_url, f"away.schedule.{missed}", encode_token(Token(since, earlier)))
    days = [since + day, since + 2 * day, since + 3 * day]
    async with app.worker(broker_url):
        await eventually_holds(broker_url, "away.all", 3)
        await eventually_holds(broker_url, "away.last", 1)
    assert due_in(await bodies(broker_url, "away.all")) == days
    assert due_in(await bodies(broker_url, "away.last")) == days[-1:]
    [body] = await bodies(broker_url, "away.schedule.all")
    remembered = [fired.due for fired in read_token(body, time.time()).fired]
    assert (len(remembered), remembered[-4:]) == (KEPT, [since, *days])
    if time.time() - days[-1] > 600:  # else the last tick may have come in time
        assert (await counts(broker_url, ["away.skip"]))["away.skip"] == 0


async def test_a_deleted_token_or_queue_is_made_again(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with ticking.worker(broker_url), rabbitry.connect(broker_url) as connection:
        async with await connection.channel() as channel:
            await eventually_awaited(lambda: consumers(channel), "the schedule to be consumed")
            await channel.delete_queue(QUEUE)
        await eventually(lambda: "trying again" in caplog.text, "the deletion to be seen")
        async with await connection.channel() as channel:
            await pausing.pause(connection, "ticking", "count", by="a test")
            await eventually_holds(broker_url, "ticking.count", 2, at_least=True)
            await channel.delete_queue("ticking.count")
    async with ticking.worker(broker_url):
        await eventually_holds(broker_url, "ticking.count", 1, at_least=True)


async def consumers(channel: rabbitry.Channel) -> bool:
    return (await channel.declare_queue(QUEUE, passive=True)).consumer_count > 0


async def test_several_tokens_become_one(broker_url: str) -> None:
    await pause_and_declare(broker_url, ticking, "count")
    now = int(time.time())
    for body in (
        encode_token(Token(now)),
        b"not a token",
        encode_token(Token(now + 2)),
        encode_token(Token(253402300799)),  # the end of the year 9999, after which nothing comes
        encode_token(Token(now - 1)),
    ):
        await put(broker_url, QUEUE, body)
    async with ticking.worker(broker_url), ticking.worker(broker_url):
        await eventually_holds(broker_url, "ticking.count", 2, at_least=True)
    assert due_in(await bodies(broker_url, "ticking.count"))[:2] == [now + 3, now + 4]
    await eventually_holds(broker_url, QUEUE, 1)


async def test_a_token_from_a_clock_ahead_is_told(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await pause_and_declare(broker_url, ticking, "count")
        await put(broker_url, QUEUE, encode_token(Token(int(time.time()) + 86_400)))
        async with ticking.worker(broker_url):
            await eventually(lambda: "a machine whose clock was ahead" in caplog.text, "the warning")
    assert (await counts(broker_url, ["ticking.count"])) == {"ticking.count": 0}


async def test_stale_tokens_repeat_no_tick(broker_url: str) -> None:
    """A worker that begins may be slow, so that its token comes at the very moment at which a tick is published."""
    await pause_and_declare(broker_url, ticking, "count")
    stale = encode_token(Token(int(time.time()) - 5))

    async def disturb() -> None:
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            while True:
                await channel.publish(stale, routing_key=QUEUE)

    async with ticking.worker(broker_url):
        await eventually_holds(broker_url, "ticking.count", 1, at_least=True)
        disturbing = asyncio.create_task(disturb())
        now = (await counts(broker_url, ["ticking.count"]))["ticking.count"]
        await eventually_holds(broker_url, "ticking.count", now + 3, at_least=True)
        disturbing.cancel()
        await asyncio.wait([disturbing])
    assert disturbing.cancelled()
    ticks = due_in(await bodies(broker_url, "ticking.count"))
    assert ticks == [*range(ticks[0], ticks[0] + len(ticks))]


async def test_a_worker_that_stops_passes_its_token_on(broker_url: str) -> None:
    await pause_and_declare(broker_url, ticking, "count")
    async with ticking.worker(broker_url) as first:
        await eventually_holds(broker_url, "ticking.count", 1, at_least=True)
        async with ticking.worker(broker_url):
            await first.stop()
            now = (await counts(broker_url, ["ticking.count"]))["ticking.count"]
            await eventually_holds(broker_url, "ticking.count", now + 2, at_least=True)
    ticks = due_in(await bodies(broker_url, "ticking.count"))
    assert ticks == [*range(ticks[0], ticks[0] + len(ticks))]


@pytest.mark.timeout(240)
async def test_a_schedule_begins_anew_on_a_broker_that_lost_its_data() -> None:
    """The consumers of both workers are there again, and no token: neither may wait for the other's."""
    app = rabbitry.App("lost")
    seen: list[rabbitry.Tick] = []

    @app.every(1)
    async def handle(tick: rabbitry.Tick) -> None:
        seen.append(tick)

    with BrokerProcess() as broker:
        async with app.worker(broker.url), app.worker(broker.url):
            await eventually(lambda: seen, "a tick")
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            seen.clear()
            await eventually(lambda: seen, "a tick of the new broker")


async def test_a_token_that_waits_is_published_anew(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = rabbitry.App("rare")

    @app.every("1d")
    def handle(tick: rabbitry.Tick) -> None: ...

    published: list[int] = []

    def note(token: Token) -> bytes:
        published.append(token.done)
        return encode_token(token)

    monkeypatch.setattr(_scheduler, "RENEWED", 0.05)
    monkeypatch.setattr(_scheduler, "encode_token", note)
    async with app.worker(broker_url):
        await eventually(lambda: sum(map(bool, published)) > 3, "renewals")
    assert len(set(published) - {0}) == 1, "0 is without a time"
    assert (await counts(broker_url, ["rare.schedule.handle", "rare.handle"])) == {
        "rare.schedule.handle": 1,
        "rare.handle": 0,
    }


def test_missed_ticks_are_published_a_part_at_a_time() -> None:
    schedule = every(1, "all", "app")
    since = datetime(2026, 11, 27, tzinfo=UTC)
    until = datetime(2026, 11, 27, 0, 4, 10, tzinfo=UTC)
    parts = []
    while (part := due_ticks(schedule, since, until))[0]:
        parts.append(len(part[0]))
        since = part[1]
    assert (parts, since) == ([100, 100, 50], until)
