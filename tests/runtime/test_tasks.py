"""Work until a stop, and beside a block."""

import asyncio

import pytest

from rabbitry.runtime.tasks import background, until


async def test_until_returns_the_first_result(no_leaks: None) -> None:
    stop = asyncio.Event()
    assert await until(stop, asyncio.sleep(0, "done")) == "done"
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    await until(stop, work())
    assert ended


async def test_until_passes_errors_and_cancelling_on(no_leaks: None) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await until(asyncio.Event(), fail())
    inner = asyncio.create_task(asyncio.sleep(1000))
    outer = asyncio.create_task(until(asyncio.Event(), inner))
    await asyncio.sleep(0.01)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert inner.cancelled()


async def test_background_work_ends_with_its_block_and_raises_its_error(no_leaks: None) -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    async with background(work()):
        await started.wait()

    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with background(fail()):
            await asyncio.sleep(0.01)
