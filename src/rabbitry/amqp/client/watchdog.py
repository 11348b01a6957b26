"""Tells of an event loop that is blocked longer than its connections' heartbeat, with the stack of what blocks it.

A broker takes a client that is silent for two heartbeats for dead. The loop itself can't say that it is blocked,
so one daemon thread looks whether it still ticks. Nothing here is on the way of a message.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from typing import Final

_log = logging.getLogger(__name__)
_LEAST_PERIOD: Final = 0.05


class _Watched:
    """A loop with open connections: when it last ticked, and whether a stall was told of."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.heartbeats: list[float] = []
        self.ticked = time.monotonic()
        self.told = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def heartbeat(self) -> float:
        """The shortest heartbeat. Never asked of a loop without connections: `unwatch` removes it with the last."""
        return min(self.heartbeats)

    def tick(self) -> None:
        now = time.monotonic()
        if self.told:
            _log.warning("the event loop goes on after %.1f s", now - self.ticked)
            self.told = False
        self.ticked = now
        self.timer = self.loop.call_later(self.heartbeat / 4, self.tick)

    def stalled(self) -> tuple[float, float] | None:
        """Return for how long the loop has been silent and its heartbeat, once for each stall. Under the lock."""
        heartbeat, silent = self.heartbeat, time.monotonic() - self.ticked
        if self.told or silent <= heartbeat:
            return None
        self.told = True
        return silent, heartbeat


_lock = threading.Lock()
_watched: Final[dict[int, _Watched]] = {}
_changed = threading.Event()
_thread: threading.Thread | None = None


def _in_the_child() -> None:
    """Begin anew after fork: the loops and the thread are the parent's, and the lock may have been held."""
    global _lock, _changed, _thread
    _lock, _changed, _thread = threading.Lock(), threading.Event(), None
    _watched.clear()


os.register_at_fork(after_in_child=_in_the_child)


def watch(heartbeat: float) -> None:
    """Watch the running loop for a connection with this heartbeat (seconds); once for each connection."""
    global _thread
    loop = asyncio.get_running_loop()
    with _lock:
        watched = _watched.get(id(loop))
        if watched is None:
            watched = _watched[id(loop)] = _Watched(loop)
        watched.heartbeats.append(heartbeat)
        if watched.timer is None:
            watched.tick()
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_look, name="rabbitry-watchdog", daemon=True)
            _thread.start()
    _changed.set()


def unwatch(heartbeat: float) -> None:
    """Undo `watch`, on the same loop."""
    loop = asyncio.get_running_loop()
    with _lock:
        watched = _watched.get(id(loop))
        if watched is None:
            return
        watched.heartbeats.remove(heartbeat)
        if not watched.heartbeats:
            del _watched[id(loop)]
            if watched.timer is not None:
                watched.timer.cancel()
    _changed.set()


def _look() -> None:
    """Look at every loop, as often as the shortest heartbeat asks for, until there is none."""
    global _thread
    while True:
        with _lock:
            for key in [key for key, watched in _watched.items() if watched.loop.is_closed()]:
                del _watched[key]
            if not _watched:
                _thread = None
                return
            # Under the lock, since a loop that goes on after a stall finds its connections lost and unwatches them.
            stalls = [(watched.thread, stall) for watched in _watched.values() if (stall := watched.stalled())]
            period = max(min(watched.heartbeat for watched in _watched.values()) / 4, _LEAST_PERIOD)
        for thread, (silent, heartbeat) in stalls:
            _tell(thread, silent, heartbeat)
        _changed.wait(period)
        _changed.clear()


def _tell(thread: int, silent: float, heartbeat: float) -> None:
    frame = sys._current_frames().get(thread)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (its thread is gone)\n"
    _log.warning(
        "the event loop is blocked for %.1f s, longer than the heartbeat of %g s: the broker may hang up. "
        "Move what blocks it to a thread (asyncio.to_thread). It is in:\n%s",
        silent,
        heartbeat,
        stack.rstrip(),
    )
