"""Sorting in steps: sorting very many items at once would block other clients."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator
from typing import Final, TypeVar

T = TypeVar("T")
_RUN: Final = 2_000
"""Items sorted in one step."""


def in_order(
    items: list[T], key: Callable[[T], int | str], *, is_reversed: bool = False
) -> Generator[None, None, Iterator[T]]:
    """Sort items in steps that the caller has to run. Return them in order; the list is empty then.

    Items taken from the result are referenced nowhere else, so they are freed step by step too.
    """
    runs: list[Iterator[T]] = []
    while items:
        runs.append(iter(sorted(items[-_RUN:], key=key, reverse=is_reversed)))
        del items[-_RUN:]
        yield
    return heapq.merge(*runs, key=key, reverse=is_reversed) if len(runs) != 1 else runs[0]
