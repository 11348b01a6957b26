"""The share of the calls that may run at once of a stage with limits by key that do run, on average."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, NoReturn

_LOOK: Final = 0.25
"""Seconds between two looks, on average. After the same time each, they could always come just after `Keyed` has
returned messages at one of its own looks: these are in hand until they are published, and no handler has them."""
_WEIGHT: Final = 1 / 16
"""Of each look in the average, which follows a change within some four seconds."""


class Load:
    """How busy the handlers of a stage are in this worker; on the I/O thread."""

    def __init__(self, handled: Callable[[], float], most: int) -> None:
        """Create a load of 0.

        Args:
            handled: Returns how many messages wait for no limit, so that they are handled, or about to be.
            most: How many may be handled at once.
        """
        self._handled = handled
        self._most = most
        self._busy = 0.0

    def busy(self) -> float:
        """Return the average of the last seconds: 0 if no handler ran, 1 if always as many as may."""
        return round(self._busy, 3)

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK * random.uniform(0.5, 1.5))  # noqa: S311 # nothing secret
            self._busy += (min(1.0, self._handled() / self._most) - self._busy) * _WEIGHT
