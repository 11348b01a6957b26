"""Waiting for a condition with a deadline, instead of sleeping for a time that should do."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")
WITHIN: Final = 90.0
"""Seconds for anything that takes a moment on an idle machine, processes that start included."""
_SHORTEST: Final = 0.01
_LONG: Final = 0.1
_LONGEST: Final = 1.0


class Looks:
    """The looks at a condition: each is announced, and they take a tenth of the time at most.

    A look may run a command, or ask a page or a database, and eight processes of tests wait at once. Nor is a condition
    that has not held for seconds looked at each hundredth of one.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._begun = self._last = time.monotonic()

    def begin(self) -> None:
        """Note when a look begins."""
        self._last = time.monotonic()

    def pause(self, what: str) -> float:
        """Return the seconds until the next look, after one that was in vain. Raises AssertionError if time is up."""
        now = time.monotonic()
        waited = now - self._begun
        if waited > self._within:
            raise AssertionError(f"not within {self._within} s: {what}")
        return max(_SHORTEST, min(waited / 50, _LONG), min(9 * (now - self._last), _LONGEST))


async def eventually(condition: Callable[[], T], what: str, *, within: float = WITHIN) -> T:
    """Return the first true value of `condition`; raises AssertionError after `within` seconds."""
    looks = Looks(within)
    while not (value := condition()):
        await asyncio.sleep(looks.pause(what))
        looks.begin()
    return value


async def at_once(condition: Callable[[], object]) -> None:
    """Wait for a condition, which is looked at in each turn of the loop: for states that last a few of them."""
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 # nothing tells of it, and 10 ms would be too late
            await asyncio.sleep(0)


async def eventually_awaited(condition: Callable[[], Awaitable[T]], what: str, *, within: float = WITHIN) -> T:
    """The same for a condition that is to be awaited."""
    looks = Looks(within)
    while not (value := await condition()):
        await asyncio.sleep(looks.pause(what))
        looks.begin()
    return value


def eventually_blocking(condition: Callable[[], T], what: str, *, within: float = WITHIN) -> T:
    """The same for tests without an event loop."""
    looks = Looks(within)
    while not (value := condition()):
        time.sleep(looks.pause(what))
        looks.begin()
    return value
