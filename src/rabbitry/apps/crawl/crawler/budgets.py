"""Budgets of a crawler on its machine: a share of a core, bytes a second, bytes of pages in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_BURST: Final = 0.25
"""Seconds of unused budget that may be used at once."""


class CPU:
    """A share of one core, measured over the whole process with its threads.

    Args:
        share: Of a core, such as 0.25; None for as much as there is.
        used: Returns the seconds of CPU that the process has used.
        clock: Returns seconds that pass.
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
        """Return the seconds to wait before the next piece of work, so that the share is kept."""
        if self._share is None:
            return 0.0
        now, used = self._clock(), self._used()
        ahead = (used - self._begun) - self._share * (now - self._since)
        burst = _BURST * self._share
        if ahead < -burst:
            # What was not used long ago can't be made up for.
            self._since, self._begun = now, used + burst
        return max(0.0, ahead) / self._share


class Bandwidth:
    """Bytes a second over the network.

    Args:
        rate: Bytes a second; None for as many as there are.
        clock: Returns seconds that pass.
    """

    def __init__(self, rate: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = clock()
        """When all that has come is paid for."""

    def spend(self, size: int) -> None:
        """Count bytes that came or were sent."""
        if self._rate is not None:
            self._free_at = max(self._free_at, self._clock() - _BURST) + size / self._rate

    def pause(self) -> float:
        """Return the seconds to wait before more may come."""
        return 0.0 if self._rate is None else max(0.0, self._free_at - self._clock())


class Room:
    """Bytes of bodies in memory: those that come, and those that are complete and wait to be confirmed.

    If there is no room, nothing is begun, and all bodies wait but the oldest one, which goes on as long as the
    complete ones alone leave room. So one can always be ended, and there are never more bytes than twice the limit, one
    body, and a piece of each of the others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._coming: dict[object, int] = {}
        """Bodies that still come, oldest first, and their bytes."""
        self._complete: dict[object, int] = {}
        self._complete_total = 0
        self._waiting: asyncio.Event | None = None
        """Set at the next change, if anybody waits for it."""
        self.total: int = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be begun."""
        return self.total >= self._limit

    def hold(self, body: object, size: int) -> None:
        """Note that a body that comes takes this many bytes."""
        self.total += size - self._coming.get(body, 0)
        self._coming[body] = size

    def may_grow(self, body: object) -> bool:
        """Return whether more of a body may come."""
        if not self.is_full:
            return True
        return self._complete_total < self._limit and next(iter(self._coming), body) is body

    def came(self, body: object, size: int) -> None:
        """Note that a body is complete, and takes this many bytes until it is released."""
        self.total += size - self._coming.pop(body, 0)
        self._complete_total += size
        self._complete[body] = size
        self._tell()

    def release(self, body: object) -> None:
        """Note that a body is gone; one that is gone already changes nothing."""
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
