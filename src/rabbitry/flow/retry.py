"""Retries: the retry queues, where a message waits on the broker and not in a worker, and the queue of suspects."""

from __future__ import annotations

from typing import Final

from rabbitry.amqp.client import Delivery
from rabbitry.flow.message import Publication, Role, again

RUNGS: Final = ((1, "1s"), (5, "5s"), (30, "30s"), (300, "5m"), (3600, "1h"))
"""Seconds of each rung, and the end of its queue's name."""


def rung_name(app: str, suffix: str) -> str:
    """Name the exchange and the queue of a rung."""
    return f"{app}.retry.{suffix}"


def suspects_queue(app: str, stage: str) -> str:
    """Name the queue of a stage's suspects: what may have killed its worker, or only was there when it died.

    Workers take from it one at a time, so the next death tells which it was.
    """
    return f"{app}.suspects.{stage}"


def later(app: str, queue: str, delivery: Delivery, attempt: int, delay: float, limit: int) -> Publication:
    """Make the message that comes to `queue` again after `delay` seconds, as attempt number `attempt`.

    A delay rounds up to a rung. What is left of one longer than the last rung goes with the message. limit: bytes
    that its properties may take.
    """
    if delay <= 0:
        return Publication("", queue, delivery.body, again(delivery, attempt, limit), role=Role.AGAIN)
    longest, suffix = RUNGS[-1]
    rest = max(0.0, delay - longest)
    if not rest:
        suffix = next(name for seconds, name in RUNGS if delay <= seconds)
    properties = again(delivery, attempt, limit, wait=rest)
    return Publication(rung_name(app, suffix), queue, delivery.body, properties, role=Role.AGAIN)
