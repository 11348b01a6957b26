"""A blocked event loop is told of, with the stack of what blocks it."""

import asyncio
import logging
import os
import time

import pytest

import rabbitry
from rabbitry.amqp.client import watchdog
from tests.support.waiting import eventually


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


def block_the_loop_until_told(caplog: pytest.LogCaptureFixture) -> None:
    until = time.monotonic() + 20
    while "the event loop is blocked for" not in caplog.text and time.monotonic() < until:
        time.sleep(0.05)


async def test_the_log_names_what_blocks_the_loop(
    no_leaks: None, embedded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger=watchdog.__name__):
        async with rabbitry.connect(f"{embedded_url}?heartbeat=1") as connection:
            block_the_loop_until_told(caplog)
            await eventually(lambda: "goes on" in caplog.text, "the end of the stall")
            channel = await connection.channel()
            await channel.declare_queue(exclusive=True)
    assert "the event loop is blocked for" in caplog.text
    assert "block_the_loop_until_told" in caplog.text
    assert "heartbeat of 1 s" in caplog.text


async def test_connections_that_end_while_the_watchdog_looks_do_not_end_it(
    embedded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After a long stall a loop finds its connections lost, at the moment when the watchdog looks at it."""
    could_end: list[bool] = []

    class Watched(watchdog._Watched):
        def stalled(self) -> tuple[float, float] | None:
            could_end.append(not watchdog._lock.locked())
            return super().stalled()

    loop = asyncio.get_running_loop()
    with caplog.at_level(logging.WARNING, logger=watchdog.__name__):
        watchdog._watched[id(loop)] = Watched(loop)
        for _ in range(50):
            watchdog.watch(0.01)
            block_the_loop(0.03)
            watchdog.unwatch(0.01)
            watchdog._watched[id(loop)] = Watched(loop)
        del watchdog._watched[id(loop)]
        assert could_end
        assert not any(could_end)
        caplog.clear()
        async with rabbitry.connect(f"{embedded_url}?heartbeat=1"):
            block_the_loop_until_told(caplog)
            await eventually(lambda: "goes on" in caplog.text, "the watchdog still looks")


async def test_a_loop_that_runs_is_not_told_of(embedded_url: str, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_child_made_by_fork_is_told(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        child = os.fork()
        if child == 0:
            code = 9
            try:
                channel.publish(b"x", routing_key=queue).send(None)
            except rabbitry.UsedAfterFork:
                code = 7
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        await channel.publish(b"from the parent", routing_key=queue)
