"""Places for work at the same time, given in turn to those who wait, however much each of them has to do."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

NOBODY: Final = ""
"""The name of those who are not told apart: they have their turn as one, and no limit of their own."""


class Places:
    """Places shared by name. Those who wait get a place one name after another. For one event loop."""

    def __init__(self, number: int, *, each: int | None = None) -> None:
        """Share so many places. each: the most that one name holds, even if others are free; None for no limit."""
        self._number = self._free = number
        self._each = number if each is None else each
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> list[str]:
        """The names that wait, the next one first."""
        return [*self._waiting]

    @property
    def present(self) -> int:
        """The number of those who hold a place or wait for one."""
        return self._number - self._free + self._all_waiting

    def present_of(self, who: str) -> int:
        """Return how many of these have a name."""
        return self._held[who] + len(self._waiting.get(who, ()))

    @asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        """Hold a place during the block; wait for the turn of its name before. Raises the errors of `_check`."""
        await self._take(who)
        try:
            yield
        finally:
            self._give_back(who)

    @property
    def _all_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _check(self, who: str) -> None:
        """Raise an error if a name must not wait; called before it does. Here anybody may."""

    def _may_hold(self, who: str) -> bool:
        return who == NOBODY or self._held[who] < self._each

    async def _take(self, who: str) -> None:
        if self._free > 0 and self._may_hold(who):  # then nobody waits who may hold one
            self._hold(who)
            return
        self._check(who)
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._give_back(who)  # cancelled after the place was given
            else:
                self._forget(who, place)
            raise

    def _hold(self, who: str) -> None:
        self._free -= 1
        self._held[who] += 1

    def _give_back(self, who: str) -> None:
        """Free a place, and hand it to whose turn it is."""
        self._free += 1
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        while self._free > 0:
            following = next((one for one in self._waiting if self._may_hold(one)), None)
            if following is None:
                return
            own = self._waiting.pop(following)
            place = own.popleft()
            if own:
                self._waiting[following] = own  # at the end: everybody else comes first
            if not place.done():
                self._hold(following)
                place.set_result(None)

    def _forget(self, who: str, place: asyncio.Future[None]) -> None:
        own = self._waiting.get(who)
        if own is not None and place in own:
            own.remove(place)
            if not own:
                del self._waiting[who]
