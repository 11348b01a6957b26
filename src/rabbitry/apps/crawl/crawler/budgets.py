"""A crawler's budgets on its machine: CPU share, bandwidth, and memory for pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_BURST: Final = 0.25
"""Seconds of unused budget that may be used at once."""


class CPU:
    """A share of one core, measured for the whole process with its threads.

    Args:
        share: A fraction of a core, such as 0.25; None for no limit.
        used: Returns the CPU seconds used by the process.
        clock: A monotonic clock.
    """

    def __init__(
        self,
        share: float | None,
        *,
        used: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._used = used
        self._clock = clock
        self._since, self._begun = clock(), used()

    def pause(self) -> float:
        """Return the seconds to wait before the next piece of work to keep to the share."""
        if self._share is None:
            return 0.0
        now, used = self._clock(), self._used()
        ahead = (used - self._begun) - self._share * (now - self._since)
        burst = _BURST * self._share
        if ahead < -burst:
            # Budget that was unused long ago is lost.
            self._since, self._begun = now, used + burst
        return max(0.0, ahead) / self._share


class Bandwidth:
    """Bytes a second over the network.

    Args:
        rate: Bytes a second; None for no limit.
        clock: A monotonic clock.
    """

    def __init__(self, rate: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = clock()
        """When the bytes so far are paid for."""

    def spend(self, size: int) -> None:
        """Count bytes received or sent."""
        if self._rate is not None:
            self._free_at = max(self._free_at, self._clock() - _BURST) + size / self._rate

    def pause(self) -> float:
        """Return the seconds to wait before receiving more."""
        return 0.0 if self._rate is None else max(0.0, self._free_at - self._clock())


class Room:
    """Memory for bodies: those still arriving, and complete ones not confirmed yet.

    If it is full, no request begins, and all bodies wait except the oldest one, which continues while the complete
    bodies alone leave room. Thus one body can always be finished, and the memory never exceeds twice the limit plus one
    body and one piece of each of the others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._coming: dict[object, int] = {}
        """Arriving bodies with their bytes, oldest first."""
        self._complete: dict[object, int] = {}
        self._complete_total = 0
        self._waiting: asyncio.Event | None = None
        """Set at the next change; None if no task waits for it."""
        self.total: int = 0

    @property
    def is_full(self) -> bool:
        """Whether no more requests should begin."""
        return self.total >= self._limit

    def hold(self, body: object, size: int) -> None:
        """Record that an arriving body takes this many bytes."""
        self.total += size - self._coming.get(body, 0)
        self._coming[body] = size

    def may_grow(self, body: object) -> bool:
        """Return whether more of a body may be received."""
        if not self.is_full:
            return True
        return self._complete_total < self._limit and next(iter(self._coming), body) is body

    def came(self, body: object, size: int) -> None:
        """Record that a body is complete, and takes this many bytes until it is released."""
        self.total += size - self._coming.pop(body, 0)
        self._complete_total += size
        self._complete[body] = size
        self._tell()

    def release(self, body: object) -> None:
        """Record that a body is gone; repeated calls have no effect."""
        complete = self._complete.pop(body, 0)
        self._complete_total -= complete
        self.total -= complete + self._coming.pop(body, 0)
        self._tell()

    async def changed(self) -> None:
        """Wait until a body is complete or gone."""
        if self._waiting is None:
            self._waiting = asyncio.Event()
        await self._waiting.wait()

    def _tell(self) -> None:
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None
