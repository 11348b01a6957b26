"""Whether the broker still answers over the connection that delivers batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from rabbitry.exceptions import RabbitryError, RequestTimeout

EVERY: Final = 1.0
"""Seconds between two requests to the broker."""
WITHIN: Final = 2.0
"""Seconds for an answer."""

_logger = logging.getLogger(__name__)


class Line:
    """Tracks whether the broker has answered recently.

    A broker that hears nothing over a connection gives its batches to another crawler after two heartbeats. A crawler
    that gets no answer may be in that state without knowing: its publishes are still confirmed over another connection.
    It requests nothing more from hosts with a delay until there is an answer.
    """

    def __init__(self) -> None:
        self._answers = asyncio.Event()
        self._answers.set()

    @property
    def answers(self) -> bool:
        """Whether the last request was answered, or none was sent yet."""
        return self._answers.is_set()

    async def answered(self) -> None:
        """Wait until `answers`."""
        await self._answers.wait()

    async def watch(self, ask: Callable[[float], Awaitable[None]]) -> None:
        """Send requests until cancelled. ask: raises RabbitryError if no answer comes within so many seconds."""
        while True:
            try:
                await ask(WITHIN)
            except RabbitryError as error:
                if self.answers and isinstance(error, RequestTimeout):  # the worker reports a lost connection
                    _logger.warning("%s; no more requests to hosts with a delay until the broker answers", error)
                self._answers.clear()
            else:
                self._answers.set()
            await asyncio.sleep(EVERY)
