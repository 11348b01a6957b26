"""Turns at reading submitted files for the page: each takes a process with limits, or a thread for seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from rabbitry.apps.grading.exceptions import ReadingBusy

AT_ONCE: Final = 2
"""Files that are read at once: each takes a process and up to some seconds of CPU time."""
MOST: Final = 64
"""Files that are read or wait; further ones are refused. A browser asks for six pictures at once."""

MOST_EACH: Final = 16
"""Of these the files that one student may have: else one who asks without end would shut out the others."""

_T = TypeVar("_T")


class Reading:
    """The files that are read now, and those that wait for their turn."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._present = 0
        self._of_students: Counter[str] = Counter()

    async def run(self, function: Callable[[], _T], *, student: str | None = None) -> _T:
        """Return what a function that blocks returns, called in a thread. Cancelling leaves it running there.

        Args:
            function: Reads a file.
            student: The student who asks; None for others.

        Raises:
            ReadingBusy: Too many wait already, or too many of this student.
        """
        if self._present >= MOST:
            raise ReadingBusy(f"{self._present} submitted files are being read for others: try again in a moment")
        if student is not None and self._of_students[student] >= MOST_EACH:
            raise ReadingBusy(f"{MOST_EACH} files are being read for student {student}: try again in a moment")
        self._present += 1
        if student is not None:
            self._of_students[student] += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(function)
        finally:
            self._present -= 1
            if student is not None:
                self._of_students[student] -= 1
                if not self._of_students[student]:
                    del self._of_students[student]
