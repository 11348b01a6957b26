"""A message's metadata, and the properties of what is published for it."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cache
from typing import Final, NamedTuple

from rabbitry._errors import LONGEST_ERROR, LONGEST_TRACEBACK, sendable
from rabbitry.amqp.client import Delivery, Properties
from rabbitry.amqp.protocol.properties import EncodedProperties, decode_header
from rabbitry.amqp.protocol.tables import FieldValue, LongString, Table, decode_text
from rabbitry.exceptions import ProtocolViolation, UsageError
from rabbitry.flow import _tracing
from rabbitry.flow._fitting import CUT, ERROR, TRACEBACK, fit

ATTEMPT: Final = "x-rabbitry-attempt"
WAIT: Final = "x-rabbitry-wait"
"""Seconds that are left of a delay longer than the longest retry queue's."""
REASON: Final = "x-rabbitry-reason"
STAGE: Final = "x-rabbitry-stage"
EXCHANGE: Final = "x-rabbitry-exchange"
ROUTING_KEY: Final = "x-rabbitry-routing-key"
QUEUE: Final = "x-rabbitry-queue"
FAILED_AT: Final = "x-rabbitry-failed-at"
NODE: Final = "x-rabbitry-node"
INTERRUPTED: Final = "x-rabbitry-interrupted"
"""How often a worker that was told to stop gave the message back while it was handled. No attempt."""

UNCOUNTED: Final = "x-rabbitry-uncounted"
"""How often a handler asked for the message again without counting the attempt."""

REPLAYED: Final = "x-rabbitry-replayed"
"""How often the message was a dead letter and was replayed. Its attempts are counted anew each time."""

PART: Final = "x-rabbitry-part"
"""The place of a part in its job; see `_parts`."""

EXPIRES: Final = "x-rabbitry-expires"
"""When a message that no worker has taken expires; see `timing`."""

VERSION: Final = "x-rabbitry-version"
"""The version of the type of a message, if it is above 1; see `Key`."""

_OWN: Final = frozenset(
    {ATTEMPT, WAIT, REASON, STAGE, EXCHANGE, ROUTING_KEY, QUEUE, FAILED_AT, NODE, INTERRUPTED, UNCOUNTED, REPLAYED,
     PART, EXPIRES, VERSION, ERROR, TRACEBACK, CUT}
)  # fmt: skip
"""Headers that flow writes and reads. Other names that begin so are for the apps of Rabbitry."""
_MOST_ATTEMPTS: Final = 1 << 31
_LONGEST_PAUSE: Final = 30.0
_DOUBLINGS: Final = 5
"""How often the pause of a second before an uncounted retry is doubled: then it is the longest one."""
_LONGEST_NAME: Final = 255
"""Bytes of a routing key, or of the name of an exchange or a queue."""
_LONGEST_REASON: Final = 64
# Written by brokers, each in its own way, or read by them as an order to route further copies.
_BROKERS: Final = frozenset({"x-death", "x-delivery-count", "CC", "BCC"})
_BROKERS_BEGIN: Final = ("x-first-death-", "x-last-death-")


@dataclass(frozen=True, slots=True)
class Message:
    """A message's metadata, passed to a handler that has a parameter of this type.

    exchange, routing_key: where it was published to first, also where it comes again after a retry.
    attempt: 1 at first. timestamp: when it was published, None if it does not say. headers: all of them. type,
    content_type, content_encoding, app_id, reply_to: as the publisher gave them, None if it did not.
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
    content_encoding: str | None = None
    reply_to: str | None = None


class Role(Enum):
    """The kind of a published message; it decides what replaces one that can't be published."""

    FIRST = auto()
    """The first of its chain, published by a program."""
    RESULT = auto()
    """What a handler returned."""
    REPLY = auto()
    """The result of an input, for its caller."""
    ERROR_REPLY = auto()
    """The error of an input, for its caller."""
    NOTICE = auto()
    """What a stage tells the join of its parts."""
    NOTE = auto()
    """A stage's message to itself, by which its store learns that the results are confirmed; see `_gates`."""
    AGAIN = auto()
    """An input that comes again."""
    DEAD_RESULT = auto()
    """The dead letter of a result."""
    DEAD = auto()
    """The dead letter of an input."""
    BARE = auto()
    """The dead letter of an input, without what other programs wrote into its properties."""


# Python 3.11 calls a function for each access to a member of an enumeration: 0.2 µs, several times for each message.
RESULT: Final = Role.RESULT
NOTE: Final = Role.NOTE


class Publication(NamedTuple):
    """A message to be published. also: further routing keys, with each of which a copy of it is published."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties | EncodedProperties
    mandatory: bool = True
    role: Role = Role.FIRST
    also: tuple[str, ...] = ()


class Undecoded(NamedTuple):
    """The metadata of a delivery as it came, for another process. header: the content header's payload."""

    header: bytes
    exchange: str
    routing_key: str

    @property
    def properties(self) -> Properties:
        """The properties, decoded. Raises ProtocolViolation if malformed."""
        return decode_header(self.header)


def properties_of(delivery: Delivery | Undecoded) -> Properties:
    """Return a delivery's properties; none if they are malformed, so that the body at least can be kept."""
    try:
        return delivery.properties
    except ProtocolViolation:
        return Properties()


def attempt_of(properties: Properties) -> int:
    """Return the number of this attempt."""
    value = (properties.headers or {}).get(ATTEMPT)
    return min(max(1, value), _MOST_ATTEMPTS) if isinstance(value, int) else 1


def wait_of(properties: Properties) -> float:
    """Return the seconds that a message which came from a retry queue has still to wait."""
    value = (properties.headers or {}).get(WAIT)
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def metadata(delivery: Delivery | Undecoded, stage: str, queue: str) -> Message:
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
        content_encoding=properties.content_encoding,
        reply_to=properties.reply_to,
        app_id=properties.app_id,
        headers=headers,
    )


def text_header(headers: Table, name: str) -> str | None:
    """Return a header that holds text; bytes that are no UTF-8 (of a routing key) come back as the name they were."""
    value = headers.get(name)
    if isinstance(value, LongString):
        return decode_text(value)
    return value if isinstance(value, str) else None


def origin(delivery: Delivery | Undecoded, headers: Table) -> tuple[str, str]:
    """Return exchange and routing key that a message was first published with, before retries sent it to its queue."""
    exchange, key = text_header(headers, EXCHANGE), text_header(headers, ROUTING_KEY)
    # Other programs may write anything into these headers; a longer text is no name.
    if exchange is not None and key is not None and max(len(exchange), len(key)) <= _LONGEST_NAME:
        return exchange, key
    return delivery.exchange, delivery.routing_key


def check_headers(headers: Table | None) -> None:
    """Raise UsageError for a header of flow's own among those that a user gives."""
    if headers and not _OWN.isdisjoint(headers):
        own = next(name for name in headers if name in _OWN)
        raise UsageError(f"header {own!r} can't be given: it is one of Rabbitry's own")


def first_properties(app: str, content_type: str, type_name: str, headers: Table | None = None) -> Properties:
    """Return the properties of a message that begins a chain: its id is the correlation id of all that follow.

    Args:
        app: The app's name.
        content_type: The content type of the body.
        type_name: The name of the value's type.
        headers: The caller's headers. They replace the trace context of the current span.

    Raises:
        UsageError: One of the headers is Rabbitry's own.
    """
    check_headers(headers)
    identity = uuid.uuid4().hex
    return Properties(
        content_type=content_type,
        headers={ATTEMPT: 1, **_tracing.current(), **(headers or {})},
        delivery_mode=2,
        correlation_id=identity,
        message_id=identity,
        timestamp=int(time.time()),
        type=sendable(type_name[:60])[:60],
        app_id=app,
    )


def with_given(properties: Properties, given: Properties) -> Properties:
    """Put the properties that a user gives in place of Rabbitry's; headers are merged."""
    replaced = {name: value for name, value in given._asdict().items() if value is not None}
    if given.headers:
        replaced["headers"] = {**(properties.headers or {}), **given.headers}
    return properties._replace(**replaced)


def uncounted_of(properties: Properties) -> int:
    """Return how many retries of a message were not counted."""
    return count_in(properties.headers or {}, UNCOUNTED)


def uncounted_pause(number: int) -> float:
    """Return the seconds until an uncounted retry that comes after `number` others: 1, 2, 4, … 30."""
    return min(2.0 ** min(number, _DOUBLINGS), _LONGEST_PAUSE)


def count_in(headers: Table, name: str) -> int:
    """Return the count in a header, which any program may have written; 0 if it holds none."""
    value = headers.get(name)
    return min(max(0, value), _MOST_ATTEMPTS) if isinstance(value, int) else 0


def again(
    delivery: Delivery,
    attempt: int,
    limit: int,
    *,
    wait: float = 0.0,
    is_interrupted: bool = False,
    is_counted: bool = True,
) -> Properties:
    """Return the properties of the same message, published anew as attempt number `attempt`.

    Args:
        delivery: The delivery to publish again.
        attempt: The number of the attempt.
        limit: Bytes that the properties may take. Headers of other programs that do not fit are cut.
        wait: Seconds of the delay that are left after the retry queue.
        is_interrupted: Whether a worker that had to stop gave the message back.
        is_counted: False for a retry that is not counted as an attempt.
    """
    properties = properties_of(delivery)
    headers = plain_headers(properties)
    exchange, key = origin(delivery, headers)
    own: dict[str, FieldValue] = {ATTEMPT: attempt, EXCHANGE: exchange, ROUTING_KEY: key}
    headers.pop(WAIT, None)
    headers.pop(EXPIRES, None)  # a worker has taken it
    if wait > 0:
        own[WAIT] = float(wait)
    if is_interrupted:
        own[INTERRUPTED] = 1 + count_in(headers, INTERRUPTED)
    if not is_counted:
        own[UNCOUNTED] = 1 + count_in(headers, UNCOUNTED)
    return fit(_kept(properties), headers, own, limit)


def version_of(headers: Table) -> int:
    """Return the version of a message's type."""
    return max(1, count_in(headers, VERSION))


class Death(NamedTuple):
    """Why and where a message became a dead letter. queue: empty if it never reached a queue."""

    reason: str
    error: str
    trace: str
    stage: str
    exchange: str
    routing_key: str
    queue: str
    attempt: int


def dead_properties(properties: Properties, death: Death, limit: int) -> Properties:
    """Return the properties of a dead letter, which take at most `limit` bytes; see `fit`."""
    headers = plain_headers(properties)
    headers.pop(WAIT, None)
    headers.pop(EXPIRES, None)
    own: dict[str, FieldValue] = {
        ATTEMPT: death.attempt,
        REASON: sendable(str(death.reason)[:_LONGEST_REASON])[:_LONGEST_REASON],
        STAGE: death.stage,
        EXCHANGE: death.exchange,
        ROUTING_KEY: death.routing_key,
        QUEUE: death.queue,
        FAILED_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
        NODE: node_name(),
    }
    return fit(
        _kept(properties),
        headers,
        own,
        limit,
        error=sendable(death.error[:LONGEST_ERROR]),
        trace=sendable(death.trace[-LONGEST_TRACEBACK:]),
    )


def plain_headers(properties: Properties) -> dict[str, FieldValue]:
    """Return the headers without those that brokers write or read."""
    return {
        name: value
        for name, value in (properties.headers or {}).items()
        if name not in _BROKERS and not name.startswith(_BROKERS_BEGIN)
    }


def _kept(properties: Properties) -> Properties:
    # A user id other than the connection's is refused, and what waits here must not expire.
    return properties._replace(delivery_mode=2, user_id=None, expiration=None)


@cache
def node_name() -> str:
    """Return this machine's name."""
    return socket.gethostname()
