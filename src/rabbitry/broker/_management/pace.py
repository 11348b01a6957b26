"""Time slices: the management API runs on the broker's loop and must not block clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from rabbitry.broker._store.journal import Journal

_SLICE: Final = 0.001
"""Seconds of each loop iteration that all long requests together may take."""


class Pace:
    """Runs one long computation at a time, for a slice of each iteration of the event loop.

    An async context manager; call `rest` inside between small steps. Nothing else may be awaited inside.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._ends_at = 0.0

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A request cancelled in `rest` or `go_over` has released the lock already, and another request may hold it.
        if not isinstance(error, asyncio.CancelledError):
            self._lock.release()

    async def _begin(self) -> None:
        await self._lock.acquire()
        self._ends_at = time.monotonic() + _SLICE

    @property
    def is_over(self) -> bool:
        """Whether the slice is used up, so that `rest` would wait."""
        return time.monotonic() > self._ends_at

    async def go_over(self, steps: Iterable[object], journal: Journal) -> None:
        """Run all steps of a change. Rest when a slice is used up, and while too many writes are pending."""
        for _ in steps:
            if journal.is_crowded:
                self._lock.release()
                await journal.taken()
                await self._begin()
            await self.rest()

    async def rest(self) -> None:
        """Yield to the event loop if the slice is used up."""
        if self.is_over:
            self._lock.release()
            await asyncio.sleep(0)
            await self._begin()
