"""When a page is fetched again: the interval follows how often it changes."""

from __future__ import annotations

from typing import Final

_SHORTER: Final = 0.5
_LONGER: Final = 1.5
_LEAST: Final = 1 / 16
_MOST: Final = 32.0
"""Bounds of the interval, relative to the crawl's first one."""


def next_pause(pause: float, first: float, *, is_changed: bool) -> float:
    """Return the seconds until the next fetch. pause: the previous interval, 0 at first; first: the crawl's."""
    if not pause:
        return first
    return min(max(pause * (_SHORTER if is_changed else _LONGER), first * _LEAST), first * _MOST)
