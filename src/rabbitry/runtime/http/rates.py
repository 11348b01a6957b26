"""A limit on how often each address may do something that costs no password."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

ADDRESSES: Final = 4096
"""Addresses that are remembered; beyond, the one that came longest ago is forgotten."""


class Rates:
    """A token bucket for each address.

    Args:
        burst: How often an address may do it without a pause.
        pause: The seconds after which it may once more.
        clock: Returns seconds.
    """

    def __init__(self, burst: int, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._slack = (burst - 1) * pause
        self._pause = pause
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each address's bucket is full again."""

    def take(self, peer: str) -> float:
        """Return 0 if `peer` may do it now, which is counted; otherwise the seconds until it may."""
        now = self._clock()
        full_at = max(self._full_at.pop(peer, now), now)
        wait = max(full_at - now - self._slack, 0.0)
        self._full_at[peer] = full_at if wait > 0 else full_at + self._pause
        if len(self._full_at) > ADDRESSES:
            self._full_at.popitem(last=False)
        return wait

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._full_at)
