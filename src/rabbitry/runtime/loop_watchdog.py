"""A watchdog that reports when an event loop is blocked too long, with the stack of the code that blocks it.

A blocked loop can't report that itself, so one daemon thread checks whether the watched loops still tick.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from rabbitry._fields import Fields

_LEAST_PERIOD: Final = 0.05


class Alarm(Fields):
    """The functions that are called when a loop is blocked, once each time."""

    blocked: Callable[[float, float, str], None]
    """Called on the watchdog's thread: the seconds for which the loop is blocked, the limit, and the loop's stack."""
    resumed: Callable[[float], None]
    """Called on the loop when it goes on: the seconds for which it was blocked."""


class _Watched:
    """A loop that is watched for one alarm: when it last ticked, and whether the alarm was raised since."""

    def __init__(self, loop: asyncio.AbstractEventLoop, alarm: Alarm) -> None:
        self.loop = loop
        self.alarm = alarm
        self.thread = threading.get_ident()
        self.limits: list[float] = []
        self.ticked = time.monotonic()
        self.told = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> float:
        """The shortest limit. Never asked of a loop without one: the last `Watch` that stops removes the loop."""
        return min(self.limits)

    def tick(self) -> None:
        if self.told:
            self.alarm.resumed(time.monotonic() - self.ticked)
            self.told = False
        self.schedule()

    def schedule(self) -> None:
        """Count the loop as running now, and look again within the shortest limit."""
        if self.timer is not None:
            self.timer.cancel()
        self.ticked = time.monotonic()
        self.timer = self.loop.call_later(self.limit / 4, self.tick)

    def stalled(self) -> tuple[float, float] | None:
        """Return for how long the loop has been silent and its limit, once for each stall. Under the lock."""
        limit, silent = self.limit, time.monotonic() - self.ticked
        if self.told or silent <= limit:
            return None
        self.told = True
        return silent, limit


_lock = threading.Lock()
_watched: Final[dict[tuple[int, Alarm], _Watched]] = {}
_changed = threading.Event()
_thread: threading.Thread | None = None


def _in_the_child() -> None:
    """Begin anew after fork: the loops and the thread are the parent's, and the lock may have been held."""
    global _lock, _changed, _thread
    _lock, _changed, _thread = threading.Lock(), threading.Event(), None
    _watched.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_the_child)


class Watch:
    """A running loop that is watched, until `stop`."""

    def __init__(self, limit: float, alarm: Alarm) -> None:
        """Watch the running loop.

        Args:
            limit: Seconds after which `alarm` is raised. Of several watches of one loop and alarm, the shortest counts.
            alarm: What to call when the loop is blocked and when it goes on.
        """
        global _thread
        loop = asyncio.get_running_loop()
        self._limit = limit
        self._key = id(loop), alarm
        with _lock:
            watched = _watched.get(self._key)
            if watched is None:
                watched = _watched[self._key] = _Watched(loop, alarm)
            watched.limits.append(limit)
            if watched.limit == limit:  # the next tick may be too late for a shorter limit than before
                watched.schedule()
            if _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_look, name="rabbitry-watchdog", daemon=True)
                _thread.start()
        self._watched: _Watched | None = watched
        _changed.set()

    def stop(self) -> None:
        """Stop watching, on the same loop; has no effect the second time."""
        watched, self._watched = self._watched, None
        if watched is None:
            return
        with _lock:
            watched.limits.remove(self._limit)
            if not watched.limits:
                if _watched.get(self._key) is watched:  # not in a child made by fork
                    del _watched[self._key]
                if watched.timer is not None:
                    watched.timer.cancel()
        _changed.set()


def stack_of(thread: int | None) -> str:
    """Return the stack of a thread, innermost last; empty if it has ended."""
    frame = sys._current_frames().get(thread or 0)
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


def _look() -> None:
    """Check every loop, as often as the shortest limit requires, until no loop is left."""
    global _thread
    while True:
        with _lock:
            for key in [key for key, watched in _watched.items() if watched.loop.is_closed()]:
                del _watched[key]
            if not _watched:
                _thread = None
                return
            # Under the lock: a loop that goes on after a stall finds its connections lost, and their watches stop.
            stalls = [(watched, stall) for watched in _watched.values() if (stall := watched.stalled())]
            period = max(min(watched.limit for watched in _watched.values()) / 4, _LEAST_PERIOD)
        for watched, (silent, limit) in stalls:
            watched.alarm.blocked(silent, limit, stack_of(watched.thread) or "  (its thread is gone)")
        _changed.wait(period)
        _changed.clear()
