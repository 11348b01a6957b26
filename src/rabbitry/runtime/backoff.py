"""Growing pauses between the attempts of something that fails."""

from __future__ import annotations

import os
from typing import Final

from rabbitry._fields import Fields

_MOST_STEPS: Final = 64
"""Growth beyond it would make no difference, and in the end overflow."""


class Backoff(Fields):
    """Pauses that grow from attempt to attempt, with a random part so that programs do not retry in step."""

    first: float
    """Seconds of the longest pause after the first attempt."""
    longest: float
    """Seconds beyond which pauses grow no more."""
    growth: float = 2.0
    """How many times as long as the one before a pause may be."""
    spread: float = 0.5
    """The part of a pause that is left to chance."""

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after the failed attempt of this number, 1 for the first."""
        most = min(self.first * self.growth ** min(attempt - 1, _MOST_STEPS), self.longest)
        chance = int.from_bytes(os.urandom(4), "big") / (1 << 32)  # `random` takes 2 ms to import
        return most * (1 - self.spread * chance)


AGAIN: Final = Backoff(0.4, 15.0)
"""Pauses between attempts to bring back a connection or consumer that was lost."""
AT_START: Final = Backoff(2.0, 30.0, growth=1.5, spread=0.2)
"""Pauses between a program's first attempts to connect: it may have started before its broker."""
