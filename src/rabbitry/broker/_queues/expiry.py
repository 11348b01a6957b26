"""Times-to-live: when messages expire, and timers for it (RabbitMQ's docs/ttl)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from rabbitry.broker.message import Message

LONGEST_WAIT: Final = 3600.0
"""Longest wait, in seconds, before a queue checks again for expired messages."""


def expires_at(message: Message, queue_ttl: int | None) -> float:
    """Return when a message that arrives now expires, in POSIX seconds; 0.0 for never.

    The smaller of the queue's and the message's time-to-live applies, both in milliseconds.
    """
    ttl = message.expiration
    if ttl is None or (queue_ttl is not None and queue_ttl < ttl):
        ttl = queue_ttl
    return time.time() + ttl / 1000 if ttl is not None else 0.0


class Timer:
    """A timer with at most one pending call."""

    __slots__ = ("_handle",)

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after `seconds`, replacing the pending call."""
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, callback)

    def stop(self) -> None:
        """Cancel the pending call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
