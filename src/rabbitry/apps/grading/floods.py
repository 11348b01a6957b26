"""A bound on how many submissions of a student are taken within an hour, also where a module has no deadlines.

The files of as many further ones are kept, so that a coordinator can accept them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rabbitry._words import counted
from rabbitry.apps.grading.deadlines import duration

HOUR: Final = 3600.0
MOST_KEPT: Final = 10_000
"""Students, by module, whose submissions of the last hour are kept; the one who came least recently is forgotten."""


class Refusal(NamedTuple):
    """Why a submission is not taken. is_kept: whether its file is kept."""

    why: str
    is_kept: bool


@dataclass(slots=True)
class _Within:
    """The ids of a student's submissions within an hour, with the time of each, oldest first."""

    taken: dict[str, float] = field(default_factory=dict)
    declined: dict[str, float] = field(default_factory=dict)

    def forget(self, before: float) -> None:
        for known in (self.taken, self.declined):
            while known and next(iter(known.values())) <= before:
                del known[next(iter(known))]


class Floods:
    """The submissions that a role has taken within the last hour, by student and module. For one event loop.

    Args:
        most: How many of a student are taken in a module within an hour; None for any number.
        clock: Returns the time in seconds.
    """

    def __init__(self, most: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._taken: OrderedDict[tuple[str, str], _Within] = OrderedDict()

    def refusal(self, student: str, module: str, identity: str) -> Refusal | None:
        """Take a submission: return None, or why it is one too many. One that comes again counts once."""
        if self._most is None:
            return None
        now = self._clock()
        within = self._taken.setdefault((student, module), _Within())
        self._taken.move_to_end((student, module))
        while len(self._taken) > MOST_KEPT:
            self._taken.popitem(last=False)
        within.forget(now - HOUR)
        if identity in within.taken:
            return None
        if len(within.taken) < self._most:
            within.taken[identity] = now
            return None
        if identity not in within.declined and len(within.declined) < self._most:
            within.declined[identity] = now
        why = too_many(student, module, self._most, next(iter(within.taken.values())) + HOUR - now)
        return Refusal(why, identity in within.declined)


def too_many(student: str, module: str, most: int, seconds: float) -> str:
    """Return why a submission is one too many. seconds: until another one is taken."""
    where = f" for module {module!r}" if module else ""
    return (
        f"student {student} has handed in {counted(most, 'submission')}{where} within an hour, and more are not taken: "
        f"try again in {duration(seconds)}"
    )
