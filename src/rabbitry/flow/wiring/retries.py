"""Retry queues, in which messages wait on the broker and not in a worker, and the queue of suspects."""

from __future__ import annotations

from typing import Final

from rabbitry.amqp.client import Delivery, Properties
from rabbitry.flow.message import EXCHANGE, ROUTING_KEY, WAIT, Publication, Role, again

RETRY_QUEUES: Final = ((1, "1s"), (5, "5s"), (30, "30s"), (300, "5m"), (3600, "1h"))
"""Seconds of each retry queue, and the end of its name."""


def retry_queue(app: str, suffix: str) -> str:
    """Return the name that a retry queue and its exchange have."""
    return f"{app}.retry.{suffix}"


def suspects_queue(app: str, stage: str) -> str:
    """Return the name of a stage's queue of suspects: messages that a worker was handling when it died.

    Workers take one message at a time from it, so that the next death shows which message was the cause.
    """
    return f"{app}.suspects.{stage}"


def later(app: str, queue: str, delivery: Delivery, attempt: int, delay: float, limit: int) -> Publication:
    """Return the message that is delivered to `queue` again after `delay` seconds, as attempt number `attempt`.

    The delay is rounded up to that of a retry queue. The rest of a delay longer than the longest retry queue's travels
    with the message. limit: bytes that the message's properties may take.
    """
    if delay <= 0:
        return Publication("", queue, delivery.body, again(delivery, attempt, limit), role=Role.AGAIN)
    suffix, rest = _step(delay)
    properties = again(delivery, attempt, limit, wait=rest)
    return Publication(retry_queue(app, suffix), queue, delivery.body, properties, role=Role.AGAIN)


def delayed(app: str, queue: str, message: Publication, delay: float) -> Publication:
    """Return the message that delivers another, which was not published yet, to `queue` after `delay` seconds.

    The delay is rounded up as for `later`.
    """
    properties = message.properties
    assert isinstance(properties, Properties)  # noqa: S101 # made by name; narrows the type
    headers = {**(properties.headers or {}), EXCHANGE: message.exchange, ROUTING_KEY: message.routing_key}
    if delay <= 0:
        return message._replace(exchange="", routing_key=queue, properties=properties._replace(headers=headers))
    suffix, rest = _step(delay)
    if rest > 0:
        headers[WAIT] = rest
    return Publication(
        retry_queue(app, suffix), queue, message.body, properties._replace(headers=headers, expiration=None)
    )


def _step(delay: float) -> tuple[str, float]:
    """Return the end of the name of the retry queue for a delay, and the seconds that are left after it."""
    longest, suffix = RETRY_QUEUES[-1]
    rest = max(0.0, delay - longest)
    if not rest:
        suffix = next(name for seconds, name in RETRY_QUEUES if delay <= seconds)
    return suffix, rest
