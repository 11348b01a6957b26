"""A Bloom filter of the keys of addresses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rabbitry.apps.crawl.keeper.memory import memory_of

_BITS: Final = 12
"""Bits for each key: 2 of 100 keys that were not added seem to have been."""
_SMALLEST: Final = 1 << 14
_LARGEST: Final = 1 << 22
"""Words of 64 bits: 32 MiB at most, for 22 million keys. With more keys it is wrong more often."""


class Filter:
    """A set of keys that may have more keys than were added to it, but not fewer; bounded.

    A key sets three bits of one word, so that a lookup reads memory once. The lower 44 bits of keys must be random, as
    those of `addresses.parse` are.
    """

    def __init__(self, room: int = 0) -> None:
        """Create it, empty. room: the number of keys to expect."""
        count = _SMALLEST
        while count < _LARGEST and count * 64 < room * _BITS:
            count *= 2
        self._words = memory_of(8 * count).cast("Q")
        self._count = 0

    def __len__(self) -> int:
        """Return how many keys were added, counting again those that were added before."""
        return self._count

    @property
    def is_full(self) -> bool:
        """Return whether it should be replaced by one with more room."""
        return self._count * _BITS > len(self._words) * 64 and len(self._words) < _LARGEST

    def add(self, keys: Iterable[int]) -> None:
        """Add keys."""
        words, mask = self._words, len(self._words) - 1
        for key in keys:
            # The upper bits are the host's, and the same for many keys.
            words[(key ^ key >> 44) & mask] |= 1 << (key >> 26 & 63) | 1 << (key >> 32 & 63) | 1 << (key >> 38 & 63)
            self._count += 1

    def may_have(self, keys: Iterable[int]) -> list[int]:
        """Return the keys that may have been added; the others were not."""
        words, mask = self._words, len(self._words) - 1
        return [
            key
            for key in keys
            if (word := words[(key ^ key >> 44) & mask]) >> (key >> 26 & 63) & 1
            and word >> (key >> 32 & 63) & 1
            and word >> (key >> 38 & 63) & 1
        ]
