"""Fairness between clients: those with much left to do share a part of each turn of the event loop.

A chunk of publishes that each go to a thousand queues takes seconds. Were each client with such a chunk served in each
turn of the loop, a hundred of them would make it a hundred times as long, and whoever else asks for something waits for
one at each step. So all of them together get some milliseconds of each, one after the other.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

_SECONDS: Final = 0.006
"""What all who wait here get of a turn of the loop; the one who is served then still ends its step, of up to 8 ms.

More than `sys.getswitchinterval()`, 5 ms: the loop lets go of the interpreter at the end of each turn and takes it back
before the store's thread wakes up, which begins to count anew then. With 4 ms a confirm waited for 0.5 s, with 6 ms for
0.1 s.
"""
_WORK: Final = 3_000
"""Events that clients with large chunks may bring in one turn, before the others of them wait."""


class Shares:
    """Who waits for the next step of what it has to do."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._handle: asyncio.Handle | None = None
        self._work = 0
        self._ends_at = 0.0
        """When the share of this turn of the loop is used up; 0.0 before anybody has used any of it."""

    def may_go_on(self, work: int) -> bool:
        """Return whether a client may handle `work` events now: nobody waits, and this turn has room."""
        if self._waiting or self._work > _WORK:
            return False
        self._work += work
        self._schedule()
        return True

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call back when it is its turn, after those who wait already."""
        self._waiting.append(go_on)
        self._schedule()

    def work(
        self, steps: Iterator[None], then: Callable[[], None], may_go_on: Callable[[Callable[[], None]], bool]
    ) -> bool:
        """Take the steps that fit into this turn. Return True if those were all; otherwise go on in later turns.

        The first step is taken at once, whatever others have used of this turn.

        Args:
            steps: the steps, each of which takes well under a millisecond.
            then: called after the last step, unless True was returned.
            may_go_on: asked before each further turn. If it returns False, it calls its argument later itself.
        """
        if not self._ends_at:
            self._ends_at = time.monotonic() + _SECONDS
            self._schedule()
        for _ in steps:
            if time.monotonic() > self._ends_at:
                go_on = functools.partial(self.wait, functools.partial(self._work_on, steps, then, may_go_on))
                if may_go_on(go_on):
                    go_on()
                return False
        return True

    def _work_on(
        self, steps: Iterator[None], then: Callable[[], None], may_go_on: Callable[[Callable[[], None]], bool]
    ) -> None:
        if self.work(steps, then, may_go_on):
            then()

    def stop(self) -> None:
        """Call nobody back any more, unless `finish` does."""
        if self._handle is not None:
            self._handle.cancel()

    def finish(self) -> None:
        """Call back all who wait, after `stop`, until nobody waits any more. The event loop waits for all of that."""
        while self._waiting:
            self._waiting.popleft()()

    def _schedule(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._work = 0
        self._ends_at = time.monotonic() + _SECONDS
        try:
            while self._waiting:
                self._waiting.popleft()()
                if time.monotonic() > self._ends_at:
                    break
        finally:  # the others go on, too, if one raised
            self._handle = None
            if self._waiting:
                self._schedule()
            else:
                self._ends_at = 0.0
