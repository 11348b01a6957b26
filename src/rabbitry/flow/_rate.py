"""Rates of stages: the messages that all workers of a stage together may begin in a time."""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

MOST: Final = 1000.0
"""The highest rate, in messages a second: the broker carries one token for each."""
_LEAST: Final = 1 / 86_400
_AHEAD: Final = 60.0
"""Seconds of which a worker may hold the messages that wait for their tokens."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WRITTEN: Final = re.compile(r"(\d{1,9})/([smhd])", re.ASCII)


class Rate(NamedTuple):
    """A rate. text: as it was written. per_second: messages a second."""

    text: str
    per_second: float

    @property
    def burst(self) -> int:
        """The most tokens that wait to be used: those of a second, and at least one."""
        return max(1, math.ceil(self.per_second))

    @property
    def ahead(self) -> int:
        """The most messages that a worker holds without need: those of a minute, and at least one."""
        return max(1, math.ceil(self.per_second * _AHEAD))


def parse_rate(text: str) -> Rate:
    """Read a rate such as '10/s', '100/m', '5000/h' or '1/d'. Raises ValueError for anything else."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rate")
    per_second = int(found[1]) / _SECONDS[found[2]]
    if not _LEAST <= per_second <= MOST:
        raise ValueError(f"{text!r} is not between 1/d and {MOST:g}/s")
    return Rate(text, per_second)
