"""The scheduler: clients with much work to do get a limited part of each iteration of the event loop.

A chunk of publishes that each go to a thousand queues takes seconds. If every client with such a chunk were served in
each iteration, a hundred of them would make an iteration a hundred times as long, and any other client would wait for
one iteration at each step. Therefore all of them together get some milliseconds per iteration, one after the other.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

_SECONDS: Final = 0.006
"""Seconds per loop iteration for all waiting clients together; a client served then still ends its step, of up to 8 ms.

More than Python's switch interval of 5 ms (`rabbitry broker` sets it to 1 ms): the loop releases the interpreter at the
end of each iteration and takes it back before the store's thread wakes up, which then waits for another interval. With
4 ms a confirm waited for 0.5 s, with 6 ms for 0.1 s.
"""
_WORK: Final = 3_000
"""Events that clients with large chunks may bring in one iteration before the rest of these clients wait."""


class Shares:
    """The clients that wait for their next step, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._handle: asyncio.Handle | None = None
        self._work = 0
        self._ends_at = 0.0
        """End of this iteration's time budget; 0.0 before any of it is used."""
        self._unfinished = 0
        """The number of operations that have steps left."""
        self._finished = asyncio.Event()
        self._finished.set()

    def may_go_on(self, work: int) -> bool:
        """Return whether a client may process `work` events now: no client waits, and this iteration has room."""
        if self._waiting or self._work > _WORK:
            return False
        self._work += work
        self._schedule()
        return True

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` in its turn, after those that wait already."""
        self._waiting.append(go_on)
        self._schedule()

    def work(
        self, steps: Iterator[None], then: Callable[[], None], may_go_on: Callable[[Callable[[], None]], bool]
    ) -> bool:
        """Run the steps that fit into this iteration. Return True if those were all; otherwise continue in later ones.

        The first step runs at once, even if the iteration's budget is used up.

        Args:
            steps: the steps, each of which takes well under a millisecond.
            then: called after the last step, unless True was returned.
            may_go_on: asked before each further iteration. If it returns False, it calls its argument later itself.
        """
        if self._take(steps, then, may_go_on):
            return True
        self._unfinished += 1
        self._finished.clear()
        return False

    def _take(
        self, steps: Iterator[None], then: Callable[[], None], may_go_on: Callable[[Callable[[], None]], bool]
    ) -> bool:
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
        is_over = True  # also if a step raises
        try:
            is_over = self._take(steps, then, may_go_on)
            if is_over:
                then()
        finally:
            if is_over:
                self._unfinished -= 1
                if not self._unfinished:
                    self._finished.set()

    @property
    def is_working(self) -> bool:
        """Whether an operation has steps left."""
        return bool(self._unfinished)

    async def finished(self) -> None:
        """Wait until no operation has steps left. Cancelling ends the wait, not the operations."""
        await self._finished.wait()

    def stop(self) -> None:
        """Stop calling back, except in `finish`."""
        if self._handle is not None:
            self._handle.cancel()

    def finish(self) -> None:
        """Call back all that wait, after `stop`, until nothing waits any more. The event loop waits for all of that."""
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
        finally:  # the others continue even if one raised
            self._handle = None
            if self._waiting:
                self._schedule()
            else:
                self._ends_at = 0.0


class OneByOne:
    """Operations in steps that run one after the other: each begins once those before it have ended.

    Args:
        work: Runs steps: as many as fit into this iteration of the event loop at once, the others in later ones.
    """

    def __init__(self, work: Callable[[Iterator[None]], None]) -> None:
        self._work = work
        self._waiting: deque[Iterator[None]] = deque()
        self._is_running = False
        self._is_late = False

    @property
    def is_late(self) -> bool:
        """Whether an operation continues in a later iteration of the event loop, and those behind it with it."""
        return self._is_late

    def run(self, steps: Iterator[None]) -> None:
        """Run an operation after those that run or wait."""
        self._waiting.append(steps)
        if not self._is_running:
            self._is_running = True
            self._work(self._running())
            self._is_late = self._is_running

    def _running(self) -> Iterator[None]:
        try:
            while self._waiting:
                yield from self._waiting.popleft()
                if self._waiting:
                    yield  # very many may have gathered behind a long one, each with no step of its own
        finally:  # the others run with the next one even if one raised
            self._is_running = self._is_late = False
