"""Topic patterns with `#` anywhere, matched many at a time.

A pattern of n words is an automaton of n + 1 states: the number of its words matched so far. The states of several
patterns are the bits of one integer, so a word of a routing key advances all of them with a few integer operations (the
algorithm known as Shift-And). The time per message grows with the length of its key and of all patterns, never with the
number of ways in which a pattern can match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rabbitry.broker._exchanges.exchange import Binding, Destination

_STATES: Final = 4096
"""States of a block above which patterns go to the next block: each word has a 512-byte mask in each block."""


class _Block:
    """The states of some patterns, as bit masks: starts and ends of patterns, and the words that lead to each state."""

    def __init__(self) -> None:
        self.size = 0
        self.used = 0
        """States of patterns that are still bound; the others are removed when the block is rebuilt."""
        self.ends: dict[int, tuple[tuple[str, ...], dict[tuple[int, str, bytes], Destination]]] = {}
        """The last state of a pattern → the pattern, and its destinations by their bindings' identities."""
        self._begins = self._accepts = self._hashes = self._stars = 0
        self._masks: dict[str, int] = {}

    def add(self, pattern: tuple[str, ...]) -> int:
        """Add a pattern; return its last state."""
        first, last = self.size, self.size + len(pattern)
        self._begins |= 1 << first
        for state, word in enumerate(pattern, first):
            if word == "#":
                self._hashes |= 1 << state
            elif word == "*":
                self._stars |= 1 << state
            else:
                self._masks[word] = self._masks.get(word, 0) | 1 << state
        self._accepts |= 1 << last
        self.ends[last] = pattern, {}
        self.size = last + 1
        self.used += len(pattern) + 1
        return last

    def remove(self, last: int) -> None:
        """Remove the pattern with this last state; its states stay, unused, until the block is rebuilt."""
        pattern, _ = self.ends.pop(last)
        self._begins &= ~(1 << last - len(pattern))
        self._accepts &= ~(1 << last)
        self.used -= len(pattern) + 1

    def match(self, words: Sequence[str], found: list[Destination]) -> None:
        """Add the destinations of all patterns that match."""
        hashes, stars, masks = self._hashes, self._stars, self._masks
        active = self._begins
        active |= (active & hashes) << 1  # a # may match no word; no # follows another
        for word in words:
            active = ((active & (masks.get(word, 0) | stars)) << 1) | (active & hashes)
            if not active:
                return
            active |= (active & hashes) << 1
        active &= self._accepts
        while active:
            last = active & -active
            active ^= last
            found += self.ends[last.bit_length() - 1][1].values()


class Automata:
    """Patterns in which no `#` follows another, in blocks."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._places: dict[tuple[str, ...], tuple[_Block, int]] = {}

    def match(self, words: Sequence[str], found: list[Destination]) -> None:
        """Add the destinations of all patterns that match a routing key of these words."""
        for block in self._blocks:
            block.match(words, found)

    def add(self, words: Sequence[str], binding: Binding) -> None:
        """Add a binding."""
        pattern = tuple(words)
        block, last = self._places.get(pattern) or self._add_pattern(pattern)
        block.ends[last][1][binding.identity] = binding.destination

    def remove(self, words: Sequence[str], binding: Binding) -> None:
        """Remove a binding, and its pattern if no other binding has it."""
        pattern = tuple(words)
        block, last = self._places[pattern]
        bound = block.ends[last][1]
        del bound[binding.identity]
        if bound:
            return
        del self._places[pattern]
        block.remove(last)
        if block.used * 2 < block.size:
            # The amortised cost of a removed state is moving one state.
            self._blocks.remove(block)
            for known, destinations in block.ends.values():
                moved, end = self._add_pattern(known)
                moved.ends[end][1].update(destinations)

    def _add_pattern(self, pattern: tuple[str, ...]) -> tuple[_Block, int]:
        if not self._blocks or self._blocks[-1].size >= _STATES:
            self._blocks.append(_Block())
        block = self._blocks[-1]
        self._places[pattern] = block, block.add(pattern)
        return self._places[pattern]
