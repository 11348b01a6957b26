"""Limits on guessing passwords: how long an address, or a name, has to wait after wrong ones."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable

FREE = 5
"""Wrong passwords without a pause."""
FREE_TOGETHER = 30
"""Wrong passwords without a pause from an address, behind which a whole class may be, each with a name of their own."""
LONGEST = 60.0
"""Seconds of the longest pause; it is 1 s at first, and twice as long after each further wrong password."""
FORGET_AFTER = 900.0
"""Seconds after an address's last wrong password until it starts anew."""
ADDRESSES = 4096
"""Addresses that are remembered; beyond, the one whose last wrong password is longest ago is forgotten."""


class Guesses:
    """The wrong passwords of each address.

    A right password does not reset the count: somebody else at the same address (behind one router) may be guessing.

    Args:
        clock: A monotonic clock, in seconds.
        free: Wrong passwords without a pause.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, free: int = FREE) -> None:
        self._clock = clock
        self._free = free
        self._trying: Counter[str] = Counter()
        self._tried = asyncio.Event()
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last one came

    def wait(self, peer: str) -> float:
        """Return the seconds that `peer` still has to wait; 0 if it may try."""
        number, last = self._wrong.get(peer, (0, 0.0))
        if number < self._free:
            return 0.0
        pause = min(2.0 ** min(number - self._free, 32), LONGEST)
        return max(last + pause - self._clock(), 0.0)

    def wrong(self, peer: str) -> None:
        """Count a wrong password."""
        now = self._clock()
        number, last = self._wrong.pop(peer, (0, now))
        self._wrong[peer] = (1 if now - last > FORGET_AFTER else number + 1, now)
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    @contextlib.asynccontextmanager
    async def trying(self, peer: str, too_many: Callable[[float], Exception]) -> AsyncIterator[None]:
        """Enter a block that checks a password, and that calls `wrong` if the password is wrong.

        Passwords that come at once can't all pass before the first one has failed: no more are checked at a time than
        may be wrong without a pause. Further ones wait for the outcome of those, and right ones cost nobody a pause.

        Args:
            peer: The address, or the name.
            too_many: Makes the error from the seconds that `peer` has to wait. It is raised instead of entering.
        """
        while True:
            if (seconds := self.wait(peer)) > 0:
                raise too_many(seconds)
            number, _ = self._wrong.get(peer, (0, 0.0))
            if self._trying[peer] < max(self._free - number, 1):
                break
            await self._tried.wait()
        self._trying[peer] += 1
        try:
            yield
        finally:
            self._trying[peer] -= 1
            if not self._trying[peer]:
                del self._trying[peer]
            self._tried.set()
            self._tried.clear()  # those that wait now have been woken

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._wrong)
