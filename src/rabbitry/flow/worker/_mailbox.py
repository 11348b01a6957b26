"""Mailboxes: they carry batches between the loop of the handlers and that of the I/O thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """Carries items to a loop in batches: all items since the loop's last look are one batch.

    `put` is for any thread. Its users bound it: the items belong to unsettled deliveries, and prefetch bounds those.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[list[_T]], None]) -> None:
        self._loop = loop
        self._take = take
        self._items: deque[_T] = deque()
        self._is_scheduled = False

    def put(self, item: _T) -> None:
        """Put an item in. The item is dropped if the loop is closed."""
        self._items.append(item)
        # `_empty` resets the flag before it looks, so an item put in after its look schedules the next one.
        if not self._is_scheduled:
            self._is_scheduled = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_scheduled = False
        items = self._items
        batch = [items.popleft() for _ in range(len(items))]
        if batch:
            self._take(batch)
