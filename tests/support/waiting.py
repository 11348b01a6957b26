"""Waiting for a condition with a deadline, instead of sleeping for a time that should do."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")
WITHIN: Final = 90.0
"""Seconds for anything that takes a moment on an idle machine, processes that start included."""


async def eventually(condition: Callable[[], T], what: str, *, within: float = WITHIN) -> T:
    """Return the first true value of `condition`; raises AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.01)
    return value


async def at_once(condition: Callable[[], object]) -> None:
    """Wait for a condition, which is looked at in each turn of the loop: for states that last a few of them."""
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 # nothing tells of it, and 10 ms would be too late
            await asyncio.sleep(0)


async def eventually_awaited(condition: Callable[[], Awaitable[T]], what: str, *, within: float = WITHIN) -> T:
    """The same for a condition that is to be awaited."""
    deadline = time.monotonic() + within
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.05)
    return value


def eventually_blocking(condition: Callable[[], T], what: str, *, within: float = WITHIN) -> T:
    """The same for tests without an event loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.01)
    return value
