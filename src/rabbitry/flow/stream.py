"""Streams: values of handlers that yield, on their way to the broker, at most so many of them unconfirmed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry.flow.settle import Pending

MOST: Final = 256
"""Values of one generator that may be unconfirmed. While there are so many, it is not resumed."""
LARGEST: Final = 1 << 20
"""Bytes of their bodies, beyond which none is added."""


class Stream(ABC):
    """The unconfirmed values of one run of a generator.

    `add`, and waiting for room, are for the thread or loop that runs it; `release` is the I/O thread's; `close` is for
    any thread. It is woken when half of the room is free, so that a generator is not resumed for each single confirm.
    """

    def __init__(self) -> None:
        self.is_closed = False
        """Whether the generator has to end: at its next value it is closed, so that its `finally` runs."""
        self.pending: Pending | None = None
        """The settlement of what it made; the I/O thread's."""
        self.is_over = False
        """Whether its input is settled, or given back; the I/O thread's."""
        self._lock = threading.Lock()
        self._count = 0
        self._size = 0
        self._is_waiting = False

    def add(self, size: int) -> None:
        """Count a value of `size` bytes."""
        with self._lock:
            self._count += 1
            self._size += size

    def release(self, size: int) -> None:
        """Take out a value of `size` bytes: it is confirmed, or settled otherwise."""
        with self._lock:
            self._count -= 1
            self._size -= size
            if not self._is_waiting or self._count > MOST // 2 or self._size > LARGEST // 2:
                return
            self._is_waiting = False
        self._wake()

    def close(self) -> None:
        """Have the generator closed at its next value."""
        self.is_closed = True
        self._wake()

    def _has_room(self) -> bool:
        """Return whether a value may be added; where not, `_wake` will be called."""
        with self._lock:
            # Under the lock, so that no release between the look and the note that somebody waits is missed.
            self._is_waiting = self._count >= MOST or self._size >= LARGEST
            return not self._is_waiting

    @abstractmethod
    def _wake(self) -> None:
        """Wake who waits for room; called in any thread."""


class ThreadStream(Stream):
    """A stream of a generator that runs in a thread, or in a process behind one."""

    def __init__(self) -> None:
        super().__init__()
        self._news = threading.Event()

    def wait(self) -> bool:
        """Wait for room. Returns False where the generator has to be closed instead."""
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

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def wait(self) -> bool:
        """Wait for room. Returns False where the generator has to be closed instead."""
        while not self.is_closed:
            self._news.clear()
            if self._has_room():
                break
            await self._news.wait()
        return not self.is_closed

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the generator
            self._loop.call_soon_threadsafe(self._news.set)
