"""The moments that schedules name, and what is refused."""

import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

import rabbitry
from rabbitry.flow.schedule import Schedule, cron, every


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def some(schedule: Schedule, since: str, number: int, zone: str = "UTC") -> list[str]:
    """Return the first ticks after a moment, in words."""
    ticks = islice(schedule.ticks(at(since), at("2099-01-01")), number)
    return [tick.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M:%S") for tick in ticks]


@pytest.mark.parametrize(
    ("interval", "when", "ticks"),
    [
        ("5m", "every 5m", ["11-27 10:05:00", "11-27 10:10:00"]),
        ("1h30m", "every 1h30m", ["11-27 10:30:00", "11-27 12:00:00"]),
        (90, "every 1m30s", ["11-27 10:01:30", "11-27 10:03:00"]),
        (20.0, "every 20s", ["11-27 10:00:20", "11-27 10:00:40"]),
        (timedelta(days=1), "every 1d", ["11-28 00:00:00", "11-29 00:00:00"]),
    ],
)
def test_an_interval_ticks_at_its_whole_multiples(interval: str | float, when: str, ticks: list[str]) -> None:
    schedule = every(interval, "last", "app")
    assert (schedule.when, some(schedule, "2026-11-27T10:00:00", 2)) == (when, ticks)


def test_cron_keeps_to_the_clock_of_its_zone() -> None:
    schedule = cron("30 1 * * *", "Europe/Dublin", "last", "app")
    assert schedule.when == "30 1 * * * (Europe/Dublin)"
    # On 2026-03-29 there is no 01:30, and on 2026-10-25 there are two.
    assert some(schedule, "2026-03-28T00:00:00", 3, "Europe/Dublin") == [
        "03-28 01:30:00",
        "03-29 02:00:00",
        "03-30 01:30:00",
    ]
    assert some(schedule, "2026-10-24T00:00:00", 3, "Europe/Dublin") == [
        "10-24 01:30:00",
        "10-25 01:30:00",
        "10-26 01:30:00",
    ]
    assert some(cron("0 6 * * 1-5", "UTC", "last", "app"), "2026-11-27T05:00:00", 2) == [
        "11-27 06:00:00",
        "11-30 06:00:00",
    ]


@pytest.mark.parametrize("away", [1, 59, 3_599, 90_000, 3_000_000, 50_000_000])
def test_the_last_tick_is_that_of_all(away: int) -> None:
    now = at("2026-11-27T10:00:30")
    since = now - timedelta(seconds=away)
    for schedule in (every("1h", "last", "app"), cron("*/20 3-5 * 1,11 *", "UTC", "last", "app")):
        assert schedule.last(since, now) == next(iter([*schedule.ticks(since, now)][-1:]), None)


@pytest.mark.parametrize(
    ("expression", "last"),
    [
        ("* * * * 1 *", "2026-01-31T23:59:59"),
        ("* * * 1 *", "2026-01-31T23:59:00"),
        ("0 0 29 2 *", "2024-02-29T00:00:00"),
    ],
)
def test_the_last_of_millions_of_ticks_is_found_without_a_walk_through_them(expression: str, last: str) -> None:
    schedule = cron(expression, "UTC", "last", "app")
    steps: list[datetime] = []

    def after(moment: datetime) -> datetime:
        steps.append(moment)
        return schedule.after(moment)

    counted = Schedule(schedule.when, schedule.missed, after)
    assert counted.last(at("2020-06-01T00:00:00"), at("2026-11-27T10:00:30")) == at(last)
    assert len(steps) < 100


def test_in_an_hour_that_comes_twice_no_tick_is_before_the_moment() -> None:
    schedule = cron("30 2 * * *", "Europe/Berlin", "last", "app")
    second = at("2026-10-25T01:15:00")  # 02:15 for the second time; 02:30 was at 00:30 UTC
    assert schedule.after(second) == at("2026-10-26T01:30:00")
    assert schedule.last(at("2026-10-20T00:00:00"), second) == at("2026-10-25T00:30:00")
    assert schedule.last(second, at("2026-10-25T12:00:00")) is None


def test_a_tick_at_the_end_counts_and_one_at_the_beginning_does_not() -> None:
    schedule = every("1m", "last", "app")
    begin, end = at("2026-11-27T10:00:00"), at("2026-11-27T10:02:00")
    assert [*schedule.ticks(begin, end)] == [at("2026-11-27T10:01:00"), end]
    assert schedule.last(end, end) is None


@pytest.mark.parametrize("interval", ["", "5", "m", "5 m", "0s", "1.5", 0.5, 1.5, "400d", -60, True, None, "5m5m"])
def test_an_interval_that_is_none_is_named(interval: str) -> None:
    app = rabbitry.App("wrong")

    def handle(tick: rabbitry.Tick) -> None: ...

    with pytest.raises(rabbitry.AppError, match=r"app 'wrong', stage 'handle' .*: every\(.*: give whole seconds"):
        app.every(interval)(handle)
    assert not app.stages


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "61 * * * *", "0 0 30 2 *", "x * * * *", "0 0 31 2-2 *", "*/" + "9" * 5000 + " * * * *"],
)
def test_a_cron_expression_that_is_none_is_named(expression: str) -> None:
    app = rabbitry.App("wrong")

    def handle(tick: rabbitry.Tick) -> None: ...

    with pytest.raises(rabbitry.AppError, match=r"stage 'handle' .*: cron\("):
        app.cron(expression)(handle)
    with pytest.raises(rabbitry.AppError, match="timezone='Mars/Olympus' is no time zone"):
        app.cron("0 6 * * *", timezone="Mars/Olympus")(handle)
    with pytest.raises(rabbitry.AppError, match="timezone=None is no time zone"):
        app.cron("0 6 * * *", timezone=None)(handle)  # type: ignore[arg-type] # what is refused


def test_without_cronsim_the_error_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)

    def handle(tick: rabbitry.Tick) -> None: ...

    with pytest.raises(rabbitry.AppError, match="it comes with the extra 'cron'"):
        rabbitry.App("without").cron("0 6 * * *")(handle)


def test_a_schedule_belongs_to_one_stage_that_takes_ticks() -> None:
    app = rabbitry.App("several")

    @app.every("1h", missed="all")
    @app.stage("hourly", time_limit=5, name="clean")
    def handle(ticks: rabbitry.Tick) -> None: ...

    @app.every("1d")
    async def daily(tick: rabbitry.Tick) -> None: ...

    assert {name: (stage.key, stage.time_limit) for name, stage in app.stages.items()} == {
        "clean": ("hourly", 5),
        "daily": ("daily", 600.0),
    }
    assert {name: schedule.when for name, schedule in app.spec().schedules.items()} == {
        "clean": "every 1h",
        "daily": "every 1d",
    }
    with pytest.raises(rabbitry.AppError, match=r"it has a schedule already \(every 1d\)"):
        app.every("2d")(daily)
    with pytest.raises(rabbitry.AppError, match="parameter 'text' must be a rabbitry"):

        @app.every("1h")
        def other(text: str) -> None: ...

    with pytest.raises(rabbitry.AppError, match="missed='none': must be"):
        app.every("1h", missed="none")(daily)  # type: ignore[arg-type] # as a user may write it


def test_an_idempotent_stage_has_a_schedule_if_it_takes_ticks() -> None:
    app = rabbitry.App("once")

    @app.every("1h")
    @app.stage("hourly", idempotent=True)
    def clean(tick: rabbitry.Tick) -> None: ...

    assert list(app.spec().schedules) == ["clean"]
    assert list(app.stages) == ["clean"]
    with pytest.raises(rabbitry.AppError, match="parameter 'text' must be a rabbitry"):

        @app.every("1h")
        @app.stage("texts", idempotent=True)
        def other(text: str) -> None: ...
