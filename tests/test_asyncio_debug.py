"""asyncio's debug mode checks all tests, though it records no stacks (tests/conftest.py)."""

import asyncio

import pytest


async def test_a_call_from_another_thread_is_an_error() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        await asyncio.to_thread(loop.call_soon, print)


async def test_a_coroutine_as_a_callback_is_an_error() -> None:
    async def callback() -> None: ...

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        asyncio.get_running_loop().call_soon(callback)
