"""Outgoing: a value with a key and properties of its own, wherever a handler returns or yields values."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import Table, encode_short
from rabbitry.exceptions import UsageError
from rabbitry.flow._trail import Given, given_of, with_headers
from rabbitry.flow.key import Key, name_of
from rabbitry.flow.message import check_headers

_PLAIN_INDEX: Final = "index={} is for handlers of batches: this one gets one message"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A value with a routing key and properties of its own, to be returned, yielded or published in its place.

    What AMQP can't carry is an error of the handler that returned it.

    Args:
        value: The body, encoded as any value is; `bytes` go as they are.
        key: The routing key; None for that of the stage's `then`, or of `publish`.
        headers: Of the message. Names of flow's own, such as `x-rabbitry-attempt`, are refused.
        content_type: None for that of the value: JSON, plain text, or bytes.
        content_encoding: Of the body, such as "zstd". The value has to be encoded so already.
        type: The message type's name; None for the name of the value's type.
        expiration: Seconds after which a queue drops the message; None keeps it.
        priority: 0 to 255, for queues with priorities.
        persistent: False lets the broker keep it in memory alone, for what nobody misses after a restart.
        index: In a batch, the index of the message that this one follows from, whose correlation id and trace context
            it carries on. None: a result of several messages begins a chain of its own.
    """

    value: object
    _: KW_ONLY
    key: str | Key[Any] | None = None
    headers: Table | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    type: str | None = None
    expiration: float | None = None
    priority: int | None = None
    persistent: bool = True
    index: int | None = None


class Extra(NamedTuple):
    """Properties that an Outgoing has of its own, and the place in its batch of the message that it follows from."""

    given: Given
    place: int | None


def extra_of(outgoing: Outgoing, places: list[int] | None) -> Extra:
    """Return the properties of an Outgoing.

    Args:
        outgoing: The value with its properties.
        places: For a handler of batches, the place in the batch of each message of its list; None for other handlers.

    Raises:
        UsageError: AMQP can't carry a property.
        IndexError: The batch has no message of this index.
    """
    index, place = outgoing.index, None
    if index is not None:
        if places is None:
            raise UsageError(_PLAIN_INDEX.format(index))
        if not 0 <= index < len(places):
            raise IndexError(f"index={index} is none of the batch's messages: there are {len(places)}")
        place = places[index]
    given = _given_but_headers(outgoing)
    if outgoing.headers:
        check_headers(outgoing.headers)
        given = with_headers(given, outgoing.headers)
    if outgoing.key is not None:
        encode_short(name_of(outgoing.key))
    return Extra(given, place)


def _given_but_headers(outgoing: Outgoing) -> Given:
    values = (
        outgoing.content_type,
        outgoing.content_encoding,
        outgoing.type,
        outgoing.expiration,
        outgoing.priority,
        outgoing.persistent,
    )
    try:
        return _encoded(*values)
    except TypeError:  # a value that can't be hashed can't be carried either: this says which
        return _encoded.__wrapped__(*values)


@lru_cache(maxsize=512, typed=True)
def _encoded(
    content_type: str | None,
    content_encoding: str | None,
    type_: str | None,
    expiration: float | None,
    priority: int | None,
    persistent: bool,  # noqa: FBT001 - a keyword costs the cache half as much time again
) -> Given:
    """Encode properties without headers: a handler gives the same ones to message after message.

    The cache tells 1 from True and 1.0.
    """
    outgoing = Outgoing(
        None,
        content_type=content_type,
        content_encoding=content_encoding,
        type=type_,
        expiration=expiration,
        priority=priority,
        persistent=persistent,
    )
    return given_of(properties_of(outgoing))


def properties_of(outgoing: Outgoing) -> Properties:
    """Return the properties that an Outgoing gives. Raises UsageError."""
    check_headers(outgoing.headers)
    return Properties(
        content_type=outgoing.content_type,
        content_encoding=outgoing.content_encoding,
        headers=outgoing.headers,
        priority=outgoing.priority,
        expiration=_milliseconds(outgoing.expiration),
        type=outgoing.type,
        delivery_mode=None if outgoing.persistent else 1,
    )


def _milliseconds(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if not 0 <= seconds < math.inf:
        raise UsageError(f"expiration is in seconds, and not negative: {seconds!r}")
    return str(round(seconds * 1000))
