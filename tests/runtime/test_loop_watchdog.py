"""A blocked event loop is told of, with the stack of what blocks it."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

import rabbitry
from rabbitry.runtime import loop_watchdog
from rabbitry.runtime.loop_watchdog import Alarm, Watch
from tests.support.waiting import eventually


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


def block_the_loop_until(is_told: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_told() and time.monotonic() < until:
        time.sleep(0.05)


async def test_the_log_shows_the_stack_that_blocks_the_loop(
    no_leaks: None, embedded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="rabbitry.amqp.client"):
        async with rabbitry.connect(f"{embedded_url}?heartbeat=1") as connection:
            block_the_loop_until(lambda: "the event loop is blocked for" in caplog.text)
            await eventually(lambda: "runs again" in caplog.text, "the end of the stall")
            channel = await connection.channel()
            await channel.declare_queue(exclusive=True)
    assert "the event loop is blocked for" in caplog.text
    assert "block_the_loop_until" in caplog.text
    assert "heartbeat of 1 s" in caplog.text


def _alarm(told: list[str]) -> Alarm:
    return Alarm(lambda seconds, limit, stack: told.append(stack), lambda seconds: told.append("resumed"))


async def test_watches_that_stop_while_the_watchdog_looks_do_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long stall a loop finds its connections lost, at the moment when the watchdog looks at it."""
    could_end: list[bool] = []

    class Watched(loop_watchdog._Watched):
        def stalled(self) -> tuple[float, float] | None:
            could_end.append(not loop_watchdog._lock.locked())
            return super().stalled()

    monkeypatch.setattr(loop_watchdog, "_Watched", Watched)
    told: list[str] = []
    for _ in range(50):
        watch = Watch(0.01, _alarm(told))
        block_the_loop(0.03)
        watch.stop()
    assert could_end
    assert not any(could_end)
    told.clear()
    watch = Watch(0.1, _alarm(told))
    try:
        block_the_loop_until(lambda: bool(told))
        await eventually(lambda: "resumed" in told, "the watchdog still looks")
    finally:
        watch.stop()
    assert "block_the_loop_until" in told[0]


async def test_a_blocked_loop_is_logged_once_at_its_shortest_limit() -> None:
    told: list[str] = []
    alarm = _alarm(told)
    watches = [Watch(limit, alarm) for limit in (3600, 0.1, 3600)]
    try:
        block_the_loop_until(lambda: bool(told))
        block_the_loop(0.3)
        assert len(told) == 1
        await eventually(lambda: "resumed" in told, "the end of the stall")
    finally:
        for watch in watches:
            watch.stop()
            watch.stop()
    assert (id(asyncio.get_running_loop()), alarm) not in loop_watchdog._watched


async def test_a_running_loop_is_not_logged(embedded_url: str, caplog: pytest.LogCaptureFixture) -> None:
    longest = 0.0

    async def measure() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            longest = max(longest, time.monotonic() - before)

    measuring = asyncio.create_task(measure())
    async with rabbitry.connect(f"{embedded_url}?heartbeat=1"):
        await asyncio.sleep(1.5)
    await asyncio.sleep(0.05)
    measuring.cancel()
    assert "blocked" not in caplog.text or longest > 0.4  # a busy machine may have stopped it, in truth
