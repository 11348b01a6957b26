"""Text normalised for the index: its length, the comparison of letters, and the hosts of an address as words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

SEARCHED: Final = 200_000
"""Characters of a text that can be found. Longer text is stored and exported whole."""
_MOST_BYTES: Final = 900_000
"""Bytes of a text's words in a tsvector, which may have 1 MiB: the rest is for title, hosts and positions."""
_CERTAIN: Final = 350_000
"""Bytes of words that never take more than _MOST_BYTES: beside its bytes, each different word takes up to six."""
_NO_WORD: Final = re.compile(r"[\W_]+")
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.:-]+(?=/)")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)
"""Matches letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese and Japanese."""
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


class _Letters(dict[int, str]):
    """Maps a letter to the one it is compared as, lower case without diacritics; one to one, so that positions stay."""

    def __missing__(self, code: int) -> str:
        letter = unicodedata.normalize("NFKD", chr(code))[0].lower()
        self[code] = letter = letter if len(letter) == 1 else chr(code)
        return letter


_letters: Final = _Letters()


def clean(text: str) -> str:
    """Return text that both databases can store: without NUL and unpaired surrogates."""
    if "\0" in text:
        text = text.replace("\0", " ")
    return text if text.isascii() else _HALF_PAIR.sub("\ufffd", text)


def folded(text: str) -> str:
    """Return text of the same length in which letters that differ only in case or diacritics are equal."""
    return text.lower() if text.isascii() else text.translate(_letters)


def spaced(text: str) -> str:
    """Return text in which each letter of a script without spaces is a word of its own.

    Both databases would take a whole sentence for one word. A word of such a script is a phrase of its letters.
    """
    return text if text.isascii() else _UNSPACED.sub(lambda letters: f" {' '.join(letters[0])} ", text)


def is_unspaced(letter: str) -> bool:
    """Return whether a letter is of a script without spaces between words."""
    return _UNSPACED.match(letter) is not None


def plain_words(text: str) -> str:
    """Return a text's words, folded and separated by single spaces, for PostgreSQL's parser.

    Its own rules for words (addresses, signed numbers, hyphens) differ from SQLite's.
    """
    if not text.isascii():
        text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return _NO_WORD.sub(" ", text.lower()).strip()


def within_vector(words: str) -> str:
    """Return as many of a text's plain words, from its start, as PostgreSQL stores in a tsvector.

    A text of SEARCHED characters can have too many: `plain_words` makes up to three letters of one in Korean.
    """
    if len(words.encode()) <= _CERTAIN:
        return words
    size = 0
    known: set[str] = set()
    every = words.split(" ")
    for place, word in enumerate(every):
        if word not in known:
            known.add(word)
            size += len(word.encode()) + 6
            if size > _MOST_BYTES:
                return " ".join(every[:place])
    return words


def host_words(url: str) -> str:
    """Return a word for each domain above an address: `site:` searches for one of them.

    They are `h` and hexadecimal digits: no word of a text looks like that, and no parser splits them.
    """
    origin = _ORIGIN.match(url)
    return _host_words(url if origin is None else origin[0])


@lru_cache(5_000)
def _host_words(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    names = [host]
    if not _is_number(host):
        labels = host.split(".")
        names += [".".join(labels[place:]) for place in range(1, len(labels))]
    if port is not None:
        names.append(f"{host}:{port}")
    return " ".join(map(host_word, names))


def host_word(host: str) -> str:
    """Return the word for a host, a domain or `host:port` in the index."""
    return "h" + host.encode("utf-8", "replace").hex() + "h"


def _is_number(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()
