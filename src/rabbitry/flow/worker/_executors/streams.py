"""Streams: the values of handlers that yield, on their way to the broker, with a bound on unconfirmed ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry.flow.worker._job import Pending

MOST: Final = 256
"""Values of one generator that may be unconfirmed. While there are so many, it is not resumed."""
LARGEST: Final = 1 << 20
"""Bytes of their bodies, beyond which none is added."""
OLDEST: Final = 2.0
"""Seconds that a value may be unconfirmed. While one is for longer, the generator is not resumed: its worker may have
lost the broker without knowing it yet."""
LARGEST_TOGETHER: Final = 4 << 20
"""Bytes of the bodies of all generators of a stage in one worker, beyond which none is added. Threads that look for
room at the same moment may each add one value more, or those of a process that came together."""


class Bound:
    """The unconfirmed bytes of all streams of a stage, which share its lock. waiting: those without room, in line."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 0
        self.waiting: dict[Stream, None] = {}


class Stream(ABC):
    """The unconfirmed values of one run of a generator.

    `add`, and waiting for room, are for the thread or loop that runs the generator; `release` is for the I/O thread;
    `close` is for any thread. The generator is resumed when half of the room is free, and not for each single confirm.
    """

    def __init__(self, bound: Bound) -> None:
        self.is_closed = False
        """Whether the generator has to end: at its next value it is closed, so that its `finally` runs."""
        self.pending: Pending | None = None
        """The settlement of what it made; the I/O thread's."""
        self.is_over = False
        """Whether its input is settled, or given back; the I/O thread's."""
        self._bound = bound
        self._sizes: deque[tuple[int, float]] = deque()
        """Of the unconfirmed values, and when they were added, oldest first."""
        self._size = 0

    def add(self, sizes: Sequence[int]) -> None:
        """Count values of so many bytes each."""
        size, now = sum(sizes), time.monotonic()
        with self._bound.lock:
            self._sizes.extend([(one, now) for one in sizes])
            self._size += size
            self._bound.size += size

    def release(self) -> None:
        """Take out a value: it is confirmed, or settled otherwise.

        Confirms come in any order, and a dead letter in a value's place may have another size, so it is the oldest one
        that is taken out. When all are settled, none is left.
        """
        bound = self._bound
        with bound.lock:
            if not self._sizes:
                return  # a message that was not yielded, such as a dead letter of the input
            size, _ = self._sizes.popleft()
            self._size -= size
            bound.size -= size
            woken = self._next_woken()
        for stream in woken:
            stream._wake()

    def close(self) -> None:
        """Request that the generator is closed at its next value."""
        self.is_closed = True
        with self._bound.lock:
            self._bound.waiting.pop(self, None)
        self._wake()

    def _next_woken(self) -> list[Stream]:
        """Remove and return the waiting streams that may continue: all if half of the common room is free, else one."""
        bound = self._bound
        if not bound.waiting or bound.size >= LARGEST_TOGETHER:
            return []
        ready = (stream for stream in bound.waiting if stream._is_half_free())
        woken = list(ready) if bound.size <= LARGEST_TOGETHER // 2 else list(itertools.islice(ready, 1))
        for stream in woken:
            del bound.waiting[stream]
        return woken

    def _has_room(self) -> bool:
        """Return whether a value may be added; if not, `_wake` will be called."""
        bound = self._bound
        with bound.lock:
            # Under the lock, so that no release between the look and the note that somebody waits is missed.
            is_old = bool(self._sizes) and time.monotonic() - self._sizes[0][1] > OLDEST
            if not is_old and len(self._sizes) < MOST and self._size < LARGEST and bound.size < LARGEST_TOGETHER:
                return True
            bound.waiting[self] = None
            return False

    def _is_half_free(self) -> bool:
        return len(self._sizes) <= MOST // 2 and self._size <= LARGEST // 2

    @abstractmethod
    def _wake(self) -> None:
        """Wake the waiter for room; called in any thread."""


class ThreadStream(Stream):
    """A stream of a generator that runs in a thread, or in a process behind one."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(bound)
        self._news = threading.Event()

    def wait(self) -> bool:
        """Wait for room. Returns False if the generator has to be closed instead."""
        while not self.is_closed:
            self._news.clear()
            # A `close` before the clearing is seen by `is_closed`, and one after it sets the event.
            if self._has_room() or self.is_closed:
                break
            self._news.wait()
        return not self.is_closed

    def _wake(self) -> None:
        self._news.set()


class LoopStream(Stream):
    """A stream of an asynchronous generator. Made in its loop."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(bound)
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def wait(self) -> bool:
        """Wait for room. Returns False if the generator has to be closed instead."""
        while not self.is_closed:
            self._news.clear()
            if self._has_room():
                break
            await self._news.wait()
        return not self.is_closed

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the generator
            self._loop.call_soon_threadsafe(self._news.set)
