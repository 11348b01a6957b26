"""How many worker processes run: the range that the user gives, and the rules that choose a number within it.

The rules see two figures at each look: the messages that wait, and the seconds since a queue with waiting messages was
last seen empty. No message can have waited for longer than that. Reading the age of the oldest one from the broker
would need a management API, or taking the message out and returning it, which marks it as redelivered.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from rabbitry.exceptions import UsageError

MOST: Final = 1000
"""The greatest number of worker processes."""
_LONGEST_QUIET: Final = 16
"""How many times as long as at first the quiet time before a step down may become."""
_GAP: Final = 10.0
"""Seconds between two looks after which nothing is known of the time between them."""


class Range(NamedTuple):
    """The least and the greatest number of worker processes."""

    least: int
    most: int


class Backlog(NamedTuple):
    """What waits in the queues of an app's stages."""

    waiting: int
    """Messages that no worker has taken yet."""
    age: float
    """Seconds since a queue that has waiting messages was last seen empty, of the queue where it is longest."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the number of processes changes."""

    backlog: int
    """Waiting messages for each process, beyond which there are more processes."""
    age: float
    """Seconds without an empty queue after which there is one more process."""
    quiet: float
    """Seconds in which fewer processes would have done, after which there is one less."""


class Step(NamedTuple):
    """A change of the number of processes, and its reason."""

    size: int
    why: str


def parse_range(text: str) -> Range:
    """Return the range of `N` or `MIN:MAX`.

    Raises:
        UsageError: It is neither, or not between 1 and MOST.
    """
    found = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", text)
    if found is None:
        raise UsageError(f"--processes {text!r} is no number of processes: give N or MIN:MAX, e.g. 4 or 1:8")
    least, most = int(found[1]), int(found[2] or found[1])
    if least < 1 or most > MOST:
        raise UsageError(f"--processes {text!r} is out of range: give numbers from 1 to {MOST}")
    if least > most:
        raise UsageError(f"--processes {text!r} has the greater number first: give MIN:MAX, e.g. {most}:{least}")
    return Range(least, most)


class Rules:
    """Decide about the number of processes at each look.

    Up at once: to as many as the backlog asks for, or by one if the age is beyond its bound, at most once in that time.
    Down by one after the quiet time. A step down that has to be undone before that time is over again was wrong, and
    doubles the quiet time; two steps down in a row set it back.
    """

    def __init__(self, size: Range, bounds: Bounds) -> None:
        self._size = size
        self._bounds = bounds
        self._quiet = bounds.quiet
        self._looked: float | None = None
        self._grew = 0.0
        self._shrank: float | None = None
        """When it stepped down, unless it has grown since."""
        self._busy = 0.0
        """The last look at which all processes were needed, or which followed a change."""

    def decide(self, now: float, running: int, backlog: Backlog) -> Step | None:
        """Return the change to make, or None.

        Args:
            now: The time of the look, in seconds of any clock that only goes forward.
            running: The number of processes now.
            backlog: What was seen.
        """
        if self._looked is None:
            self._grew = now  # the first processes need time too
        if self._looked is None or now - self._looked > _GAP:
            self._busy = now
        self._looked = now
        needed = math.ceil(backlog.waiting / self._bounds.backlog)
        is_late = backlog.age > self._bounds.age
        if needed >= running or is_late:
            self._busy = now
        if running < self._size.most:
            if needed > running:
                return self._grow(now, min(needed, self._size.most), f"messages waiting: {backlog.waiting}")
            if is_late and now - self._grew > self._bounds.age:
                return self._grow(now, running + 1, f"a queue has not been empty for {backlog.age:.0f} s")
        if running > self._size.least and now - self._busy >= self._quiet:
            return self._shrink(now, running - 1)
        return None

    def _grow(self, now: float, size: int, why: str) -> Step:
        if self._shrank is not None and now - self._shrank < self._quiet:
            self._quiet = min(2 * self._quiet, _LONGEST_QUIET * self._bounds.quiet)
        self._grew, self._shrank = now, None
        return Step(size, why)

    def _shrink(self, now: float, size: int) -> Step:
        why = f"fewer were enough for {now - self._busy:.0f} s"
        if self._shrank is not None:
            self._quiet = self._bounds.quiet
        self._shrank = self._busy = now
        return Step(size, why)
