"""Durations in buckets that are the same everywhere, so that those of several nodes can be added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

BUCKETS: Final = 40
"""Bucket number n counts durations below 2**n microseconds and not below half of that; the last all above."""


class Histogram:
    """Counts of durations. counts: one for each of BUCKETS."""

    __slots__ = ("counts",)

    def __init__(self, counts: Sequence[int] = ()) -> None:
        """counts: those of another histogram; missing ones are 0."""
        self.counts = [*counts[:BUCKETS], *[0] * (BUCKETS - len(counts))]

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        number = int(seconds * 1e6).bit_length()
        self.counts[number if number < BUCKETS else -1] += 1

    def __add__(self, other: Self) -> Histogram:
        return Histogram([mine + its for mine, its in zip(self.counts, other.counts, strict=True)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment] # it changes

    def __len__(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the seconds that `share` (0..1) of the durations stay below, at the resolution of the buckets.

        0.0 where nothing was counted.
        """
        wanted = share * len(self)
        seen = 0
        for number, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return float(2**number) / 1e6
        return 0.0

    def trimmed(self) -> list[int]:
        """Return the counts without the zeros at the end, as they travel."""
        counts = list(self.counts)
        while counts and not counts[-1]:
            counts.pop()
        return counts
