"""Keywords and the fingerprint of a text, from the words of its beginning."""

from __future__ import annotations

import string
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from heapq import nlargest
from itertools import pairwise
from operator import itemgetter
from typing import Final

from stopwordsiso import stopwords

_READ: Final = 5_000
"""Characters of a text that are examined, about 800 words: all of most pages' main text. With 8,000 characters, a long
page would take a tenth more CPU in its processor."""
_MOST_KEYWORDS: Final = 10
_CANDIDATES: Final = 150
_ENOUGH: Final = 60
"""Repeated words examined for keywords: enough that not all of them are common words."""
_TITLE_WEIGHT: Final = 3
_LONGEST_KEYWORD: Final = 40
_PUNCTUATION: Final = string.punctuation + "\u00a0¡§«·»¿‐‑–—‘’‚“”„†•…‹›、。「」『』！（），．：；？"
_FEWEST_WORDS: Final = 10
_LONG_WORDS: Final = 15
"""Mean characters of a word above which a text is in a script without spaces."""
_SIZE: Final = 8
"""Bytes of a hash."""
_ROTATED: Final = 3


class _Hashes(dict[str, bytes]):
    """64-bit hashes of words, cached for later pages; emptied when full. 15 MB at most."""

    def __missing__(self, word: str) -> bytes:
        value = blake2b(word.encode("utf-8", "replace"), digest_size=_SIZE).digest()
        if len(word) <= _LONGEST_KEYWORD:
            if len(self) >= 100_000:
                self.clear()
            self[word] = value
        return value


_hashes: Final = _Hashes()


def words_of(text: str) -> list[str]:
    """Return the words of a text's beginning, in lower case, with their punctuation.

    Single characters if the text's script has no spaces between words.
    """
    text = text[:_READ].lower()
    words = text.split()
    if len(text) > _LONG_WORDS * len(words):
        return [character for character in text if character.isalnum()]
    return words


def fingerprint_of(words: list[str]) -> int:
    """Return the simhash of a text's pairs of words: 64 bits as a signed integer. 0: too few words.

    Texts with most pairs in common differ in few bits. A pair's hash is the first word's XOR that of
    the second, rotated by _ROTATED bytes. The bytes at the same place of all pairs are processed together, as one big
    integer: 1,300 words take 0.1 ms, and would take 2 ms one by one (`benchmarks/extraction.py`).
    """
    pairs = len(words) - 1
    if pairs < _FEWEST_WORDS - 1:
        return 0
    hashes = b"".join(map(_hashes.__getitem__, words))
    places = [hashes[place::_SIZE] for place in range(_SIZE)]
    first_bits = int.from_bytes(b"\1" * pairs, "little")
    masks = [first_bits << bit for bit in range(8)]
    value = 0
    for place, first in enumerate(places):
        second = places[place - _ROTATED]
        together = int.from_bytes(first[:-1], "little") ^ int.from_bytes(second[1:], "little")
        for bit, mask in enumerate(masks):
            if (together & mask).bit_count() * 2 > pairs:
                value |= 1 << (place * 8 + bit)
    return (value - (1 << 64) if value >> 63 else value) or 1


def keywords_of(words: list[str], title: str, language: str) -> list[str]:
    """Return the keywords of a text, best first: frequent words that are not common, preferably those of its title.

    words: from `words_of`. language: ISO 639-1; without a list of stop words for it, common words are not left out.
    """
    if words and len(words[0]) == 1 and all(len(word) == 1 for word in words[:100]):
        words = [first + second for first, second in pairwise(words)]
    common = _common_words(language)
    counts: dict[str, int] = {}
    in_title = Counter(words_of(title))
    found = Counter(words).items()
    # Most words occur once; sorting these too would take most of the time.
    repeated = sorted((item for item in found if item[1] > 1), key=itemgetter(1), reverse=True)[:_CANDIDATES]
    titled = [(word, count * _TITLE_WEIGHT) for word, count in in_title.items()]
    single = [] if len(repeated) >= _ENOUGH else [item for item in found if item[1] == 1][:_ENOUGH]
    for given, count in repeated + single + titled:
        word = given.strip(_PUNCTUATION)
        if 2 < len(word) + (not word.isascii()) <= _LONGEST_KEYWORD and word not in common and not word.isnumeric():
            counts[word] = counts.get(word, 0) + count
    return nlargest(_MOST_KEYWORDS, counts, key=counts.__getitem__)


@lru_cache
def _common_words(language: str) -> frozenset[str]:
    return frozenset(stopwords(language))
