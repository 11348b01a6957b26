"""Pairs of documents that share fingerprints, and the parts of two documents that match."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from rabbitry.apps.grading.similar.documents import Document
from rabbitry.apps.grading.similar.fingerprints import RUN, Lexed, lexed, runs

COMMON_SHARE: Final = 0.2
"""The share of all documents that may share a fingerprint before it counts as common, and is left out."""
COMMON: Final = range(10, 201)
"""The fewest and the most documents that this may be. The most bounds the time."""
MOST_PAIRS: Final = 500
"""Pairs that are returned, the most similar ones."""
_FEWEST: Final = 4
"""Shared fingerprints of a pair that is worth a look."""
_LOOKED_AT: Final = 16
"""Places in the other document at which a match of one run is sought."""


class Pair(NamedTuple):
    """Two documents by their places in the list, and how similar they are.

    similarity: the share of their fingerprints that both have, 0 to 1. contained: the share of the one with fewer.
    """

    one: int
    other: int
    similarity: float
    contained: float
    shared: int


class Part(NamedTuple):
    """A part of a document's text. block: the number of the match that it is a part of; None if it matches nothing."""

    text: str
    block: int | None


def pairs(fingerprints: Sequence[Sequence[int]], *, least: float, common: int | None = None) -> list[Pair]:
    """Return the pairs that are similar, the most similar ones first, at most MOST_PAIRS.

    Time and memory grow with the number of documents times their fingerprints: a fingerprint that more documents have
    than `common` is no sign of copying, and is left out.

    Args:
        fingerprints: Of each document.
        least: The least similarity, 0 to 1.
        common: How many documents may have a fingerprint; None for a fifth of them, 10 to 200.
    """
    share = int(len(fingerprints) * COMMON_SHARE)
    most = min(max(COMMON[0], share), COMMON[-1]) if common is None else common
    found: defaultdict[int, array[int]] = defaultdict(lambda: array("l"))
    for number, own in enumerate(fingerprints):
        for one in own:
            found[one].append(number)
    places = {one: at for one, at in found.items() if len(at) <= most}
    del found
    # The sizes are without what is common: else two programs that are mostly such code would be like none.
    sizes = [sum(one in places for one in own) for own in fingerprints]
    best: list[tuple[float, float, int, int, int]] = []
    for number, own in enumerate(fingerprints):
        shared: Counter[int] = Counter()
        for one in own:
            shared.update(places.get(one, ()))
        for other, count in shared.items():
            similarity = 2 * count / (sizes[number] + sizes[other])
            if other <= number or count < _FEWEST or similarity < least:
                continue
            entry = (similarity, count / min(sizes[number], sizes[other]), number, other, count)
            if len(best) < MOST_PAIRS:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
    ordered = sorted(best, key=lambda entry: (-entry[0], entry[2], entry[3]))
    return [Pair(one, other, similarity, contained, shared) for similarity, contained, one, other, shared in ordered]


def parts(one: Document, other: Document, known: Collection[int] = ()) -> tuple[list[Part], list[Part]]:
    """Return both texts in parts, those that match with the number of their match.

    Args:
        one: A document.
        other: Another one.
        known: Hashes of runs that don't count, those of starter code.
    """
    ours, theirs = lexed(one), lexed(other)
    blocks = list(_blocks(ours, theirs, known))
    left = [(ours, begin, length, number) for number, (begin, _, length) in enumerate(blocks, 1)]
    right = [(theirs, begin, length, number) for number, (_, begin, length) in enumerate(blocks, 1)]
    return _cut(one.text, left), _cut(other.text, right)


def _blocks(ours: Lexed, theirs: Lexed, known: Collection[int]) -> Iterator[tuple[int, int, int]]:
    """Yield matches, the first of ours first: where they begin in both, and how many tokens they have."""
    at: defaultdict[int, list[int]] = defaultdict(list)
    for begin, found in runs(theirs):
        if found not in known and len(at[found]) < _LOOKED_AT:
            at[found].append(begin)
    taken, used = _covered(ours, known), _covered(theirs, known)
    end = 0
    for begin, found in runs(ours):
        if begin < end:
            continue
        lengths = [(_length(ours, theirs, begin, place, taken, used), -place) for place in at.get(found, ())]
        length, place = max(lengths, default=(0, 0))
        if length >= RUN:
            used[-place : -place + length] = b"\1" * length
            end = begin + length
            yield begin, -place, length


def _covered(tokens: Lexed, known: Collection[int]) -> bytearray:
    """Return for each token whether it is part of a run of starter code."""
    covered = bytearray(len(tokens.kinds))
    for begin, found in runs(tokens) if known else ():
        if found in known:
            covered[begin : begin + RUN] = b"\1" * RUN
    return covered


def _length(ours: Lexed, theirs: Lexed, begin: int, place: int, taken: bytearray, used: bytearray) -> int:
    """Return how many tokens are equal from two places on, within a file and not taken or used by another match."""
    most = min(_end(ours, begin) - begin, _end(theirs, place) - place)
    for length in range(most):
        if taken[begin + length] or used[place + length] or ours.kinds[begin + length] != theirs.kinds[place + length]:
            return length
    return most


def _end(tokens: Lexed, place: int) -> int:
    """Return where the file of a token ends."""
    after = bisect_right(tokens.files, place)
    return tokens.files[after] if after < len(tokens.files) else len(tokens.kinds)


def _cut(text: str, matches: Sequence[tuple[Lexed, int, int, int]]) -> list[Part]:
    found, last = [], 0
    for tokens, begin, length, number in sorted(matches, key=lambda match: match[1]):
        first, end = tokens.begins[begin], tokens.ends[begin + length - 1]
        found += [Part(text[last:first], None), Part(text[first:end], number)]
        last = end
    return [part for part in [*found, Part(text[last:], None)] if part.text]
