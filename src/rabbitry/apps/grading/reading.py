"""Turns at reading submitted files for the page: each takes a process with limits, or a thread for seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from rabbitry.apps.grading.exceptions import ReadingBusy

AT_ONCE: Final = 2
"""Files that are read at once: each takes a process and up to some seconds of CPU time."""
MOST: Final = 64
"""Files that are read or wait; further ones are refused. A browser asks for six pictures at once."""

_T = TypeVar("_T")


class Reading:
    """The files that are read now, and those that wait for their turn."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._present = 0

    async def run(self, function: Callable[[], _T]) -> _T:
        """Return what a function that blocks returns, called in a thread. Cancelling leaves it running there.

        Raises:
            ReadingBusy: Too many wait already.
        """
        if self._present >= MOST:
            raise ReadingBusy(f"{self._present} submitted files are being read for others: try again in a moment")
        self._present += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(function)
        finally:
            self._present -= 1
