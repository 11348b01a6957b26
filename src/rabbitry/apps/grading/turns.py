"""Turns: the students whose submissions wait here are marked one after another, however many each has submitted."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from rabbitry.apps.grading.places import Places
from rabbitry.flow.exceptions import Retry

MOST_WAITING: Final = 10
"""A student's submissions that wait here at a time."""
CROWD: Final = 25
"""Waiting submissions from which on no student has more than one among them."""
IN_HAND: Final = 50
"""Submissions that a demonstrator has in hand: each is in memory with its file."""
PUT_OFF: Final = 100_000
"""How often a submission may be put off; each time costs a millisecond or two."""
LATER: Final = 5.0
"""Seconds after which a further one comes again."""


class Turns(Places):
    """Places for markings at the same time, given to waiting students in turn.

    A student with many submissions would otherwise hold up all others for as long as it takes to mark them. Only some
    of a student wait here; further ones go to a retry queue and come again, so that those of others behind them in the
    queue are reached: `turn` raises Retry for them, and for all once `close` was called.
    """

    _is_closed = False

    async def _take(self, who: str) -> None:
        if self._is_closed:
            raise _stopping()
        await super()._take(who)

    def _check(self, who: str) -> None:
        is_crowd = self._all_waiting >= CROWD
        if len(self._waiting.get(who, ())) >= (1 if is_crowd else MOST_WAITING):
            raise Retry(f"other submissions of student {who} wait already", after=LATER, count=False)

    def close(self) -> None:
        """Let all that wait go to another demonstrator: this one is stopping. What is being marked goes on."""
        self._is_closed = True
        waiting, self._waiting = self._waiting, OrderedDict()
        for own in waiting.values():
            for place in own:
                if not place.done():
                    place.set_exception(_stopping())


def _stopping() -> Retry:
    return Retry("the demonstrator is stopping", after=1.0, count=False)
