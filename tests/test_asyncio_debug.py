"""asyncio's debug mode checks all tests, though it records no stacks (tests/conftest.py)."""

import asyncio
import time

import pytest


async def test_a_call_from_another_thread_is_an_error() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        await asyncio.to_thread(loop.call_soon, print)


async def test_a_coroutine_as_a_callback_is_an_error() -> None:
    async def callback() -> None: ...

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        asyncio.get_running_loop().call_soon(callback)


async def test_a_callback_that_took_long_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0
    loop.call_soon(time.sleep, 0.001)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not caplog.records
