"""Retry queues, in which messages wait on the broker and not in a worker, and the queue of suspects."""

from __future__ import annotations

import math
import random
from typing import Final

from rabbitry.amqp.client import Delivery
from rabbitry.flow.message import Publication, Role, again

RETRY_QUEUES: Final = ((1, "1s"), (5, "5s"), (30, "30s"), (300, "5m"), (3600, "1h"))
"""Seconds of each retry queue, and the end of its name."""
_STEPS: Final = 10
"""Over about so many different delays jitter spreads messages."""
_MUCH: Final = 1.1
"""By how much the rest of a delay may be exceeded, as a factor."""


def retry_queue(app: str, suffix: str) -> str:
    """Return the name that a retry queue and its exchange have."""
    return f"{app}.retry.{suffix}"


def suspects_queue(app: str, stage: str) -> str:
    """Return the name of a stage's queue of suspects: messages that a worker was handling when it died.

    Workers take one message at a time from it, so that the next death shows which message was the cause.
    """
    return f"{app}.suspects.{stage}"


def later(
    app: str,
    queue: str,
    delivery: Delivery,
    attempt: int,
    delay: float,
    limit: int,
    *,
    rest: float = 0.0,
    is_counted: bool = True,
) -> Publication:
    """Return the message that is delivered to `queue` again after `delay` seconds, as attempt number `attempt`.

    The delay is rounded up to that of a retry queue. The rest of a delay longer than the longest retry queue's travels
    with the message.

    Args:
        app: The app's name.
        queue: The stage's queue.
        delivery: The message.
        attempt: The number of its next attempt.
        delay: Seconds.
        limit: Bytes that the message's properties may take.
        rest: Seconds to wait beyond that; see `onward`.
        is_counted: False for a retry that is not counted as an attempt.
    """
    if delay <= 0:
        properties = again(delivery, attempt, limit, wait=rest, is_counted=is_counted)
        return Publication("", queue, delivery.body, properties, role=Role.AGAIN)
    suffix, more = _step(delay)
    properties = again(delivery, attempt, limit, wait=more + rest, is_counted=is_counted)
    return Publication(retry_queue(app, suffix), queue, delivery.body, properties, role=Role.AGAIN)


def onward(app: str, queue: str, delivery: Delivery, attempt: int, rest: float, limit: int) -> Publication:
    """Return the message that waits for the rest of its delay: in the longest retry queue that is not longer.

    One that is longer by a tenth at most is taken too; so a message passes through few queues, and is not much late.
    """
    seconds, suffix = next(
        (step for step in reversed(RETRY_QUEUES) if step[0] <= max(1.0, rest * _MUCH)), RETRY_QUEUES[0]
    )
    properties = again(delivery, attempt, limit, wait=max(0.0, rest - seconds))
    return Publication(retry_queue(app, suffix), queue, delivery.body, properties, role=Role.AGAIN)


def _step(delay: float) -> tuple[str, float]:
    """Return the end of the name of the retry queue for a delay, and the seconds that are left after it."""
    longest, suffix = RETRY_QUEUES[-1]
    rest = max(0.0, delay - longest)
    if not rest:
        suffix = next(name for seconds, name in RETRY_QUEUES if delay <= seconds)
    return suffix, rest


def spread(most: float) -> float:
    """Return a number of seconds at random, up to `most` rounded up to whole steps.

    A step is the delay of a retry queue, a tenth of `most` or a second, so that a message passes through few queues.
    """
    step = next((seconds for seconds, _ in reversed(RETRY_QUEUES) if seconds <= most / _STEPS), 1)
    return float(step * random.randint(0, math.ceil(most / step)))  # noqa: S311 # nothing secret
