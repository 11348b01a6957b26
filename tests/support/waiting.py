"""Waiting for a condition with a deadline, instead of sleeping for a time that should do."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(condition: Callable[[], T], what: str, *, within: float = 60.0) -> T:
    """Return the first true value of `condition`; raises AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.01)
    return value


async def eventually_awaited(condition: Callable[[], Awaitable[T]], what: str, *, within: float = 60.0) -> T:
    """The same for a condition that is to be awaited."""
    deadline = time.monotonic() + within
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.05)
    return value


def eventually_blocking(condition: Callable[[], T], what: str, *, within: float = 60.0) -> T:
    """The same for tests without an event loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.01)
    return value
