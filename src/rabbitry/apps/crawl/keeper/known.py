"""A memory of links that need no lookup: most links of a page lead to known addresses.

A table of 64-bit hashes in memory comes before the database: a lookup costs a tenth of parsing an address, with ten
million addresses as with a hundred thousand (`make bench-crawl ARGS=seen`). It can only forget: a forgotten link is
looked up in the database, which decides. The hashes are Python's string hashes, whose secret differs in each process,
so that no site can craft addresses that collide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rabbitry.apps.crawl.keeper.memory import memory_of
from rabbitry.apps.crawl.messages import Link

SMALLEST: Final = 1 << 14
LARGEST: Final = 1 << 24
"""Hashes in the table, 8 bytes each: 128 MiB at most, room for about 12 million links."""
_FULL: Final = 0.75
_OTHER: Final = 32
"""Bits by which a hash is shifted for its second pair of slots."""
_MOST_MOVES: Final = 8


class Known:
    """Links already handled for a crawl at a depth; bounded.

    A hash has two pairs of slots, and is in one of these four. The table doubles by appending a copy of itself: each
    hash is then found in its new slot, and its other copy, which is in none of its slots, counts as free.
    """

    def __init__(self, smallest: int = SMALLEST, largest: int = LARGEST) -> None:
        """Create an empty table. smallest, largest: its hashes, powers of 2."""
        self._smallest = smallest
        self._largest = largest
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._table = memory_of(8 * self._smallest).cast("q")
        self._count = 0

    def unknown(self, links: Iterable[Link], crawl: int, depth: int) -> list[Link]:
        """Return the links that are not known, and those with a time of change."""
        table, mask, salt = self._table, len(self._table) - 1, hash((crawl, depth))
        return [
            link
            for link in links
            if (
                table[place := (number := hash(link.url) ^ salt) & mask] != number
                and table[place ^ 1] != number
                and table[place := number >> _OTHER & mask] != number
                and table[place ^ 1] != number
            )
            or link.modified is not None
        ]

    def add(self, urls: Sequence[str], crawl: int, depth: int) -> None:
        """Add links that were not known."""
        salt = hash((crawl, depth))
        while self._count + len(urls) > _FULL * len(self._table) and len(self._table) < self._largest:
            self._double()
        table, mask = self._table, len(self._table) - 1
        pair = mask - 1
        for url in urls:
            number = hash(url) ^ salt
            for place in (number & mask, number >> _OTHER & mask):
                there = table[place]
                # A slot is free if it is empty, or holds a copy that is not in its own slot.
                if not there or ((there ^ place) & pair and (there >> _OTHER ^ place) & pair):
                    table[place] = number
                    self._count += 1
                    break
            else:
                self._put(number)

    def forget(self, urls: Iterable[str], crawl: int, depth: int) -> None:
        """Remove links, so that they are looked up again."""
        table, mask, salt = self._table, len(self._table) - 1, hash((crawl, depth))
        for url in urls:
            number = hash(url) ^ salt
            one, two = number & mask, number >> _OTHER & mask
            for place in (one, one ^ 1, two, two ^ 1):
                if table[place] == number:
                    table[place] = 0
                    self._count -= 1

    def _double(self) -> None:
        old = self._table
        self._table = memory_of(2 * old.nbytes).cast("q")
        self._table[: len(old)] = self._table[len(old) :] = old

    def _put(self, number: int) -> None:
        """Store a hash, moving others to their other slots if there is no room; the last one moved may be lost."""
        table, mask = self._table, len(self._table) - 1
        pair = mask - 1
        place, other = number & mask, number >> _OTHER & mask
        places = (place ^ 1, other ^ 1)
        for _ in range(_MOST_MOVES):
            for free in places:
                there = table[free]
                if not there or ((there ^ free) & pair and (there >> _OTHER ^ free) & pair):
                    table[free] = number
                    self._count += 1
                    return
            number, table[place] = table[place], number
            other = number & mask
            if not (other ^ place) & pair:
                other = number >> _OTHER & mask
            places = (other, other ^ 1)
            place = other
