"""The numbers that represent outcomes in the database. They never change; a new outcome gets a new one."""

from __future__ import annotations

from typing import Final

NUMBERS: Final[dict[str, int]] = {
    "queued": 1,
    "sent": 2,
    "page": 3,
    "unchanged": 4,
    "redirect": 5,
    "robots": 6,
    "client-error": 7,
    "server-error": 8,
    "slow-down": 9,
    "not-text": 10,
    "too-large": 11,
    "bomb": 12,
    "broken-encoding": 13,
    "too-slow": 14,
    "header-too-large": 15,
    "no-such-host": 16,
    "no-connection": 17,
    "bad-certificate": 18,
    "private": 19,
    "no-contact": 20,
    "bad-answer": 21,
    "document": 22,
    "unreadable": 23,
    "extractor-died": 24,
    "bad-address": 25,
    "bad-scheme": 26,
    "too-long": 27,
    "out-of-scope": 28,
    "too-deep": 29,
    "limit": 30,
    "disallowed": 31,
    "trap": 32,
    "duplicate": 33,
    "noindex": 34,
    "given-up": 35,
    "sitemap": 36,
    "no-content": 37,
}
WORDS: Final[dict[int, str]] = {number: word for word, number in NUMBERS.items()}

_BEGIN: Final = 1_767_225_600
"""The first second of 2026."""
_SLOT: Final = 600
_ROOM: Final = 64


def refusal(word: str, at: float) -> int:
    """Encode an address's refusal for the seen set: a number below 0, three bytes long until the middle of 2028.

    It contains the outcome, and the time in steps of ten minutes.
    """
    return -(max(0, int(at) - _BEGIN) // _SLOT * _ROOM + NUMBERS[word])


def refused(ref: int) -> tuple[str, float]:
    """Return the outcome's word and the time encoded by `refusal`."""
    slot, number = divmod(-ref, _ROOM)
    return WORDS[number], float(_BEGIN + slot * _SLOT)


ONCE_MORE: Final = frozenset({"server-error", "too-slow", "bad-answer"})
"""Outcomes of an address after which it is tried again."""
OF_THE_HOST: Final = frozenset({"no-such-host", "no-connection", "slow-down"})
"""Outcomes for which a host is left alone for a while, and its addresses wait."""
ALL_ALIKE: Final = frozenset({"private", "no-contact", "bad-certificate"})
"""Outcomes of a host for good: if its robots.txt has one, so do all its addresses."""
FETCHED: Final = frozenset(
    NUMBERS[word]
    for word in ("page", "unchanged", "document", "sitemap", "duplicate", "noindex", "unreadable", "extractor-died")
)
"""Numbers of the outcomes of an address with a page."""
