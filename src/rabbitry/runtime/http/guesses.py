"""Limits on guessing passwords: how long an address, or a name, has to wait after wrong ones."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5
"""Wrong passwords that an address may send without a pause."""
LONGEST = 60.0
"""Seconds of the longest pause; it is 1 s at first, and twice as long after each further wrong password."""
FORGET_AFTER = 900.0
"""Seconds after an address's last wrong password until it starts anew."""
ADDRESSES = 4096
"""Addresses that are remembered; beyond, the one whose last wrong password is longest ago is forgotten."""


class Guesses:
    """The wrong passwords of each address.

    A right password does not reset the count: somebody else at the same address (behind one router) may be guessing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last one came

    def wait(self, peer: str) -> float:
        """Return the seconds that `peer` still has to wait; 0 if it may try."""
        number, last = self._wrong.get(peer, (0, 0.0))
        if number < FREE:
            return 0.0
        pause = min(2.0 ** min(number - FREE, 32), LONGEST)
        return max(last + pause - self._clock(), 0.0)

    def wrong(self, peer: str) -> None:
        """Count a wrong password."""
        now = self._clock()
        number, last = self._wrong.pop(peer, (0, now))
        self._wrong[peer] = (1 if now - last > FORGET_AFTER else number + 1, now)
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, peer: str) -> None:
        """Uncount a password that was counted as wrong in advance and turned out to be right."""
        number, last = self._wrong.get(peer, (0, 0.0))
        if number > 1:
            self._wrong[peer] = (number - 1, last)
        else:
            self._wrong.pop(peer, None)

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._wrong)
