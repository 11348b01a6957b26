"""Histograms of durations with fixed buckets, so that those of several nodes can be added up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

BUCKETS: Final = 40
"""Bucket number n counts durations below 2**n microseconds and not below half of that; the last all above."""
_BOUNDS: Final = tuple(2**number / 1e6 for number in range(BUCKETS - 1))
"""The seconds at which each bucket but the last ends."""


class Histogram:
    """Counts of durations, one for each of BUCKETS."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * BUCKETS
        self.seconds = 0.0
        """The sum of all durations."""

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_right(_BOUNDS, seconds)] += 1
        self.seconds += seconds

    def __len__(self) -> int:
        """Return how many durations were counted."""
        return sum(self.counts)

    def trimmed(self) -> list[int]:
        """Return the counts without the zeros at the end, for a report."""
        counts = list(self.counts)
        while counts and not counts[-1]:
            counts.pop()
        return counts


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds below which a share of the counted ones lies; None if none was counted.

    The bucket is exact, and its durations differ by a factor of two; the value within it is estimated.

    Args:
        counts: The counts of a `Histogram`, by bucket.
        share: The share, such as 0.95.
    """
    total = sum(counts)
    wanted, before = share * total, 0
    for number, count in enumerate(counts):
        if count and before + count >= wanted:
            lower = 0.0 if number == 0 else 2.0 ** (number - 1)
            return float(lower + (2.0**number - lower) * max(0.0, wanted - before) / count) / 1e6
        before += count
    return None
