"""The number of messages that a consumer may have in hand, adapted to their sizes.

A prefetch counts messages, and a worker's is for small ones: hundreds of large ones would fill its memory. AMQP's limit
in bytes (basic.qos, prefetch-size) is in no RabbitMQ. Therefore a window begins small. It doubles where it is full of
small messages, shrinks where it holds too many bytes, and is small again after a pause, so that no burst of large
messages meets a large window. A window as large as the prefetch is no limit of its own, and costs the broker nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from rabbitry.amqp.client import Channel
from rabbitry.exceptions import Closed, RequestTimeout

LARGEST: Final = 8 << 20
"""Bytes of the bodies that a consumer has in hand, beyond which its window shrinks."""
FIRST: Final = 16
"""Messages of a window at first."""
PAUSE: Final = 2.0
"""Seconds after which a window that was not full is as at first."""

_logger = logging.getLogger(__name__)


class Window:
    """The window of one consumer, applied to its channel by `run`."""

    def __init__(self, least: int, most: int) -> None:
        """least: messages for which there is room whatever their sizes: those handled at once. most: the prefetch."""
        self.size = self._first = min(most, max(FIRST, least))
        self._least = min(least, most)
        self._most = most
        self._count = 0
        self._bytes = 0
        self._was_full = False
        """Whether it was full since the last pause."""
        self._changed = asyncio.Event()

    @property
    def limit(self) -> int:
        """The limit of the channel: 0 where the prefetch is the only one."""
        return self.size if self.size < self._most else 0

    def take(self, size: int) -> None:
        """Note that a message of so many bytes is in hand."""
        self._count += 1
        self._bytes += size
        if self._bytes > LARGEST:
            self._was_full = True
            self._resize(max(self._least, LARGEST * self._count // self._bytes))
        elif self._count >= self.size:
            self._was_full = True
            if self._bytes <= LARGEST // 2:
                self._resize(2 * self.size)

    def settle(self, size: int) -> None:
        """Note that a message of so many bytes is settled."""
        self._count -= 1
        self._bytes -= size

    def clear(self) -> None:
        """Note that everything in hand was lost."""
        self._count = self._bytes = 0

    async def run(self, channel: Channel, applied: int) -> None:
        """Apply each change to the channel, whose limit is `applied`; to be cancelled."""
        while True:
            limit = self.limit
            if limit == applied:
                await self._wait()
                continue
            try:
                await channel.limit(limit)
            except (Closed, RequestTimeout) as error:
                # Whoever reads the deliveries learns that the channel is gone; a later change may be applied.
                _logger.debug("a window of %d messages is not applied: %s", self.size, error)
                await self._wait()
            else:
                applied = limit

    async def _wait(self) -> None:
        """Wait for a change; make one where the window is larger than at first and was not full for a while."""
        self._changed.clear()
        while not self._changed.is_set():
            try:
                async with asyncio.timeout(PAUSE if self.size > self._first else None):
                    await self._changed.wait()
            except TimeoutError:
                if not self._was_full:
                    # What waits here for the limit of its key stays: a smaller window would let nothing else come.
                    self._resize(min(self.size, self._first + self._count))
                self._was_full = False

    def _resize(self, size: int) -> None:
        size = max(1, min(size, self._most))
        if size != self.size:
            self.size = size
            self._changed.set()
