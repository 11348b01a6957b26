"""Turns: the students whose submissions wait here are marked one after another, however many each has submitted."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

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


class Turns:
    """Places for markings at the same time, given to waiting students in turn. For one event loop.

    A student with many submissions would otherwise hold up all others for as long as it takes to mark them. Only some
    of a student wait here; further ones go to a retry queue and come again, so that those of others behind them in the
    queue are reached.
    """

    def __init__(self, places: int) -> None:
        """Share so many places."""
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._is_closed = False

    @property
    def waiting(self) -> list[str]:
        """The students who wait, the next one first."""
        return [*self._waiting]

    @asynccontextmanager
    async def turn(self, student: str) -> AsyncIterator[None]:
        """Hold a place during the block; wait for the student's turn before.

        Raises:
            Retry: Too many of the student's submissions wait here, or `close` was called.
        """
        await self._take(student)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, student: str) -> None:
        if self._is_closed:
            raise Retry("the demonstrator is stopping", after=1.0, count=False)
        if self._free > 0:  # then nobody waits
            self._free -= 1
            return
        is_crowd = sum(map(len, self._waiting.values())) >= CROWD
        if len(self._waiting.get(student, ())) >= (1 if is_crowd else MOST_WAITING):
            raise Retry(f"other submissions of student {student} wait already", after=LATER, count=False)
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(student, deque()).append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._give_back()  # cancelled after the place was given
            else:
                self._forget(student, place)
            raise

    def _give_back(self) -> None:
        """Hand a place to the student whose turn it is, or free it."""
        while self._waiting:
            student, own = self._waiting.popitem(last=False)
            place = own.popleft()
            if own:
                self._waiting[student] = own  # at the end: everybody else comes first
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _forget(self, student: str, place: asyncio.Future[None]) -> None:
        own = self._waiting.get(student)
        if own is not None and place in own:
            own.remove(place)
            if not own:
                del self._waiting[student]

    def close(self) -> None:
        """Let all that wait go to another demonstrator: this one is stopping. What is being marked goes on."""
        self._is_closed = True
        waiting, self._waiting = self._waiting, OrderedDict()
        for own in waiting.values():
            for place in own:
                if not place.done():
                    place.set_exception(Retry("the demonstrator is stopping", after=1.0, count=False))
