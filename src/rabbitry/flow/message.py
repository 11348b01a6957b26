"""A message's metadata, and the properties of what is published for it."""

from __future__ import annotations

import random
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final, NamedTuple

from rabbitry.amqp.client import Delivery, Properties
from rabbitry.amqp.protocol.properties import EncodedProperties
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.exceptions import ProtocolViolation

ATTEMPT: Final = "x-rabbitry-attempt"
WAIT: Final = "x-rabbitry-wait"
"""Seconds that are left of a delay longer than the ladder's longest rung."""
REASON: Final = "x-rabbitry-reason"
ERROR: Final = "x-rabbitry-error"
TRACEBACK: Final = "x-rabbitry-traceback"
STAGE: Final = "x-rabbitry-stage"
EXCHANGE: Final = "x-rabbitry-exchange"
ROUTING_KEY: Final = "x-rabbitry-routing-key"
QUEUE: Final = "x-rabbitry-queue"
FAILED_AT: Final = "x-rabbitry-failed-at"
NODE: Final = "x-rabbitry-node"
TRACEPARENT: Final = "traceparent"

_MOST_ATTEMPTS: Final = 1 << 31
_LONGEST_ERROR: Final = 2_000
_LONGEST_TRACEBACK: Final = 16_000
# Written by brokers, each in its own way, or read by them as an order to route further copies.
_BROKERS: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "CC", "BCC")


@dataclass(frozen=True, slots=True)
class Message:
    """A message's metadata, for a handler that asks for it by annotation.

    exchange, routing_key: where it was published to first, also where it comes again after a retry.
    attempt: 1 at first. timestamp: when it was published, None where it does not say. headers: all of them.
    """

    id: str
    correlation_id: str
    attempt: int
    stage: str
    queue: str
    exchange: str
    routing_key: str
    timestamp: datetime | None
    type: str | None
    content_type: str | None
    app_id: str | None
    headers: Mapping[str, FieldValue]


class Outgoing(NamedTuple):
    """A message to be published. `product`: made by a handler, so that one nobody takes becomes a dead letter."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties | EncodedProperties
    mandatory: bool = True
    product: bool = False


def properties_of(delivery: Delivery) -> Properties:
    """Give a delivery's properties; none where they are malformed, so that the body at least can be kept."""
    try:
        return delivery.properties
    except ProtocolViolation:
        return Properties()


def attempt_of(properties: Properties) -> int:
    """Say which attempt this is."""
    value = (properties.headers or {}).get(ATTEMPT)
    return min(max(1, value), _MOST_ATTEMPTS) if isinstance(value, int) else 1


def wait_of(properties: Properties) -> float:
    """Seconds that a message which came from the ladder has still to wait."""
    value = (properties.headers or {}).get(WAIT)
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def metadata(delivery: Delivery, stage: str, queue: str) -> Message:
    """Read a delivery's metadata."""
    properties = properties_of(delivery)
    headers = properties.headers or {}
    at = properties.timestamp
    exchange, routing_key = origin(delivery, headers)
    return Message(
        id=properties.message_id or "",
        correlation_id=properties.correlation_id or properties.message_id or "",
        attempt=attempt_of(properties),
        stage=stage,
        queue=queue,
        exchange=exchange,
        routing_key=routing_key,
        timestamp=at if isinstance(at, datetime) else None,
        type=properties.type,
        content_type=properties.content_type,
        app_id=properties.app_id,
        headers=headers,
    )


def origin(delivery: Delivery, headers: Table) -> tuple[str, str]:
    """Exchange and routing key that a message was first published with, before retries sent it to its queue."""
    exchange, key = headers.get(EXCHANGE), headers.get(ROUTING_KEY)
    if isinstance(exchange, str) and isinstance(key, str):
        return exchange, key
    return delivery.exchange, delivery.routing_key


def first_properties(app: str, content_type: str, type_name: str) -> Properties:
    """Properties of a message that begins a chain: its id is the correlation id of all that follow."""
    identity = uuid.uuid4().hex
    return Properties(
        content_type=content_type,
        headers={ATTEMPT: 1, TRACEPARENT: _traceparent()},
        delivery_mode=2,
        correlation_id=identity,
        message_id=identity,
        timestamp=int(time.time()),
        type=type_name,
        app_id=app,
    )


def again(delivery: Delivery, attempt: int, wait: float = 0.0) -> Properties:
    """Properties of the same message, published anew as attempt number `attempt`."""
    properties = properties_of(delivery)
    exchange, key = origin(delivery, properties.headers or {})
    headers = plain_headers(properties) | {ATTEMPT: attempt, EXCHANGE: exchange, ROUTING_KEY: key}
    headers.pop(WAIT, None)
    if wait > 0:
        headers[WAIT] = wait
    return _kept(properties, headers)


def dead_properties(
    properties: Properties,
    *,
    reason: str,
    error: str,
    trace: str,
    stage: str,
    exchange: str,
    routing_key: str,
    queue: str,
    attempt: int,
) -> Properties:
    """Properties of a dead letter. queue: the one that it failed in; empty where it never came to one."""
    headers = plain_headers(properties)
    headers.pop(WAIT, None)
    headers |= {
        ATTEMPT: attempt,
        REASON: reason,
        ERROR: error[:_LONGEST_ERROR],
        TRACEBACK: trace[-_LONGEST_TRACEBACK:],
        STAGE: stage,
        EXCHANGE: exchange,
        ROUTING_KEY: routing_key,
        QUEUE: queue,
        FAILED_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
        NODE: node_name(),
    }
    return _kept(properties, headers)


def plain_headers(properties: Properties) -> dict[str, FieldValue]:
    """Give the headers without those that brokers write or read."""
    return {name: value for name, value in (properties.headers or {}).items() if not name.startswith(_BROKERS)}


def _kept(properties: Properties, headers: Table) -> Properties:
    # A user id other than the connection's is refused, and what waits here must not expire.
    return properties._replace(headers=headers, delivery_mode=2, user_id=None, expiration=None)


@cache
def node_name() -> str:
    """Name this machine."""
    return socket.gethostname()


def _traceparent() -> str:
    """Give a new W3C trace context; neither id may be all zero."""
    return f"00-{random.getrandbits(128) | 1:032x}-{random.getrandbits(64) | 1:016x}-01"
