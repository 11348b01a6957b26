"""A bound on how many submissions of a student are taken within an hour, also where a module has no deadlines."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from rabbitry._words import counted
from rabbitry.apps.grading.deadlines import duration

HOUR: Final = 3600.0
MOST_KEPT: Final = 10_000
"""Students, by module, whose submissions of the last hour are kept; the one who came least recently is forgotten."""


class Floods:
    """The submissions that a role has taken within the last hour, by student and module. For one event loop.

    Args:
        most: How many of a student are taken in a module within an hour; None for any number.
        clock: Returns the time in seconds.
    """

    def __init__(self, most: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._taken: OrderedDict[tuple[str, str], dict[str, float]] = OrderedDict()

    def refusal(self, student: str, module: str, identity: str) -> str | None:
        """Take a submission: return None, or why it is one too many. One that comes again counts once."""
        if self._most is None:
            return None
        now = self._clock()
        taken = self._taken.setdefault((student, module), {})
        self._taken.move_to_end((student, module))
        while len(self._taken) > MOST_KEPT:
            self._taken.popitem(last=False)
        while taken and next(iter(taken.values())) <= now - HOUR:
            del taken[next(iter(taken))]
        if identity in taken:
            return None
        if len(taken) >= self._most:
            return too_many(student, module, self._most, next(iter(taken.values())) + HOUR - now)
        taken[identity] = now
        return None


def too_many(student: str, module: str, most: int, seconds: float) -> str:
    """Return why a submission is one too many. seconds: until another one is taken."""
    where = f" for module {module!r}" if module else ""
    return (
        f"student {student} has handed in {counted(most, 'submission')}{where} within an hour, and more are not taken: "
        f"try again in {duration(seconds)}"
    )
