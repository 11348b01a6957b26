"""Turns at reading submitted files for the page: each takes a process with limits, or a thread for seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from rabbitry.apps.grading.exceptions import ReadingBusy
from rabbitry.apps.grading.places import NOBODY, Places

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
        # One at a time of a student: 16 archives of one would otherwise hold up the others for a minute.
        self._places = Places(AT_ONCE, each=1)

    @property
    def present(self) -> int:
        """The files that are read or wait."""
        return self._places.present

    async def run(self, function: Callable[[], _T], *, student: str | None = None) -> _T:
        """Return what a function that blocks returns, called in a thread. Cancelling leaves it running there.

        Students have their turns one after another, and all others have theirs as one student has.

        Args:
            function: Reads a file.
            student: The student who asks; None for others.

        Raises:
            ReadingBusy: Too many wait already, or too many of this student.
        """
        if self.present >= MOST:
            raise ReadingBusy(f"{self.present} submitted files are being read for others: try again in a moment")
        if student is not None and self._places.present_of(student) >= MOST_EACH:
            raise ReadingBusy(f"{MOST_EACH} files are being read for student {student}: try again in a moment")
        async with self._places.turn(NOBODY if student is None else student):
            return await asyncio.to_thread(function)
