"""The dispatcher: delivers from the queues that may have something to deliver, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from rabbitry.broker._shares import Shares

_LONGEST_DISPATCH: Final = 0.01
"""Seconds after which touched queues, and dead letters on their way from queue to queue, let other work go first."""


class Dispatching(Protocol):
    """An object that delivers in its turn: a queue, or a consumer of direct replies."""

    def dispatch(self) -> None:
        """Deliver ready messages to consumers with room."""


class Dispatcher:
    """The queues touched since the last round, in that order.

    Args:
        shares: Schedules rounds that take long.
    """

    def __init__(self, shares: Shares) -> None:
        self.touched: dict[Dispatching, None] = {}
        self._shares = shares
        self._is_waiting = self._is_coming = False
        self._late: dict[Dispatching, None] = {}
        """Touched queues left for a later loop iteration, since those before them took long."""

    def touch(self, queue: Dispatching) -> None:
        """Record that a queue may have something to deliver."""
        self.touched[queue] = None

    def dispatch(self) -> None:
        """Deliver from every touched queue, in order.

        If that takes long, dead letters from queue to queue included, the rest is left for later iterations of the
        loop.
        """
        ends_at = 0.0
        while self.touched:
            touched, self.touched = self.touched, {}
            if not ends_at and len(touched) > 1:
                ends_at = time.monotonic() + _LONGEST_DISPATCH
            waiting = iter(touched)
            for queue in waiting:
                queue.dispatch()
                if ends_at and time.monotonic() > ends_at:
                    self._late.update(dict.fromkeys(waiting))
            if not self.touched and not self._late:
                return
            now = time.monotonic()
            if not ends_at:
                ends_at = now + _LONGEST_DISPATCH
            elif now > ends_at:
                self._late.update(self.touched)
                self.touched = {}
                self.dispatch_later()
                return

    def dispatch_soon(self) -> None:
        """Deliver from every touched queue in the next iteration of the loop, once for all that ask for it."""
        if not self._is_coming:
            self._is_coming = True
            asyncio.get_running_loop().call_soon(self._dispatch_soon)

    def _dispatch_soon(self) -> None:
        self._is_coming = False
        self.dispatch()

    def dispatch_later(self) -> None:
        """Deliver from every touched queue when the scheduler allows long work."""
        if not self._is_waiting:
            self._is_waiting = True
            self._shares.wait(self._dispatch_on)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call a queue back when the scheduler allows long work."""
        self._shares.wait(go_on)

    def _dispatch_on(self) -> None:
        self._is_waiting = False
        late, self._late = self._late, {}
        self.touched = {**late, **self.touched}
        self.dispatch()
