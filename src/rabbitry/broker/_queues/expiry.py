"""Times-to-live: when a message expires, and waiting for the next one to expire (RabbitMQ's docs/ttl)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from rabbitry.broker.message import Message

LONGEST_WAIT: Final = 3600.0
"""Seconds after which a queue looks again for the next message that expires."""


def expires_at(message: Message, queue_ttl: int | None) -> float:
    """Return when a message expires that comes now, in POSIX seconds; 0.0 for never.

    The smaller of the queue's and the message's own time-to-live counts, both in milliseconds.
    """
    ttl = message.expiration
    if ttl is None or (queue_ttl is not None and queue_ttl < ttl):
        ttl = queue_ttl
    return time.time() + ttl / 1000 if ttl is not None else 0.0


class Timer:
    """One call that is to come, at most."""

    __slots__ = ("_handle",)

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after `seconds`, in place of the call that was to come."""
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, callback)

    def stop(self) -> None:
        """Call nobody back."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
