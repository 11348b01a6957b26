"""Many topic patterns matched at once, in time that does not depend on what they are made of.

The bits of an integer are the places in all patterns, one after the other: a bit is set where the words so far lead to
that place. A word of the routing key so takes a few operations on long integers, for all patterns together.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

_MOST_KEPT: Final = 8 << 20
"""Bytes of masks of words that are kept."""


class Automaton:
    """Patterns as lists of words, of which `*` and `#` have their meaning."""

    def __init__(self, patterns: Iterable[tuple[str, list[str]]]) -> None:
        """Take patterns, each with the name by which `match` tells of it."""
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        self._ends: list[tuple[int, str]] = []
        self._masks: dict[str, int] = {}
        starts = []
        place = 0
        for name, words in patterns:
            starts.append(place)
            last = ""
            for word in words:
                if word != "#" or last != "#":  # two in a row are as good as one
                    self._places[word].append(place)
                    place += 1
                last = word
            self._ends.append((place, name))
            place += 1
        self._size = place // 8 + 1
        self._start = self._bits(starts)
        self._star = self._bits(self._places.pop("*", ()))
        self._hash = self._bits(self._places.pop("#", ()))

    def match(self, words: Iterable[str]) -> Iterator[str]:
        """Name the patterns that match the words of a routing key."""
        hashes = self._hash
        here = self._start
        here |= (here & hashes) << 1
        for word in words:
            here = (here & (self._star | self._mask(word))) << 1 | here & hashes
            here |= (here & hashes) << 1
        reached = here.to_bytes(self._size, "little")
        return (name for place, name in self._ends if reached[place >> 3] >> (place & 7) & 1)

    def _mask(self, word: str) -> int:
        """Return the places that a word leads on from, beside those of a `*`."""
        if word not in self._places:
            return 0
        mask = self._masks.get(word)
        if mask is None:
            if (len(self._masks) + 1) * self._size > _MOST_KEPT:
                self._masks.clear()
            mask = self._masks[word] = self._bits(self._places[word])
        return mask

    def _bits(self, places: Iterable[int]) -> int:
        bits = bytearray(self._size)
        for place in places:
            bits[place >> 3] |= 1 << (place & 7)
        return int.from_bytes(bits, "little")
