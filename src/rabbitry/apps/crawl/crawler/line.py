"""The line to the broker: whether it still answers over the connection that batches come over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from rabbitry.exceptions import RabbitryError, RequestTimeout

EVERY: Final = 1.0
"""Seconds between two questions to the broker."""
WITHIN: Final = 2.0
"""Seconds for an answer."""

_logger = logging.getLogger(__name__)


class Line:
    """Whether the broker has answered lately.

    A broker that hears nothing over a connection gives its batches to another crawler; that takes it two heartbeats.
    A crawler that gets no answer may be such a one without knowing it, though what it publishes is confirmed: that goes
    over another connection. It asks hosts with a delay for nothing more until there is an answer.
    """

    def __init__(self) -> None:
        self._answers = asyncio.Event()
        self._answers.set()

    @property
    def answers(self) -> bool:
        """Whether the last question was answered, or none was asked yet."""
        return self._answers.is_set()

    async def answered(self) -> None:
        """Wait until `answers`."""
        await self._answers.wait()

    async def watch(self, ask: Callable[[float], Awaitable[None]]) -> None:
        """Ask again and again, until cancelled. ask: raises RabbitryError if no answer comes in so many seconds."""
        while True:
            try:
                await ask(WITHIN)
            except RabbitryError as error:
                if self.answers and isinstance(error, RequestTimeout):  # of a connection that is lost the worker tells
                    _logger.warning("%s; hosts with a delay are asked for nothing more until the broker answers", error)
                self._answers.clear()
            else:
                self._answers.set()
            await asyncio.sleep(EVERY)
