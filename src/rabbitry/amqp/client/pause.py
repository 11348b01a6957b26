"""Pauses between attempts."""

import random
from typing import Final

FIRST_PAUSE: Final = 0.2
"""Seconds; the n-th pause is at most twice the one before."""
LONGEST_PAUSE: Final = 15.0


def pause(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, with jitter, so that not all come at once."""
    longest: float = min(FIRST_PAUSE * 2.0 ** min(attempt, 16), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
