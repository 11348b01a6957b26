"""Pauses between attempts."""

import random
from typing import Final

FIRST_PAUSE: Final = 0.2
"""Seconds; the n-th pause is at most twice the one before."""
LONGEST_PAUSE: Final = 15.0
FIRST_START_PAUSE: Final = 2.0
"""Seconds between the first two attempts of a program that starts before its broker; each later pause is half as long
again."""
LONGEST_START_PAUSE: Final = 30.0


def pause(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, with jitter, so that not all come at once."""
    longest: float = min(FIRST_PAUSE * 2.0 ** min(attempt, 16), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def start_pause(attempt: int) -> float:
    """Return the seconds to wait after the failed attempt number `attempt` to connect for the first time."""
    longest: float = min(FIRST_START_PAUSE * 1.5 ** min(attempt - 1, 16), LONGEST_START_PAUSE)
    return longest * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load, guards nothing
