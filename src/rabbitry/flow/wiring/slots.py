"""Slots on the broker: a stage with `total_concurrency=N` has N queues, and each call of its handler holds one of them.

Each queue has a single active consumer. The one that receives a message from it, the token, holds the slot until it
closes its channel. A slot therefore belongs to one worker at a time, and is free again when that worker is gone. No
worker can see whether there is a token, since another one may hold it: each publishes one when it begins to wait, and
the queue keeps no more than one. Tokens that were lost or are there twice change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rabbitry.flow.stage import Argument

_UNUSED: Final = 7 * 86_400_000
"""Milliseconds after which an unused queue is deleted."""


def slot_queues(app: str, stage: str, number: int) -> list[str]:
    """Return the names of the queues of a stage's slots, so many."""
    return [f"{app}.slot.{stage}.{place}" for place in range(1, number + 1)]


def slot_arguments(own: Mapping[str, Argument]) -> dict[str, Argument]:
    """Return the arguments of a slot's queue. own: those of the app's queues."""
    return {**own, "x-single-active-consumer": True, "x-max-length": 1, "x-expires": _UNUSED}
