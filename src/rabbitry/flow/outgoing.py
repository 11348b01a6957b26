"""Outgoing: a value with a key and properties of its own, wherever a handler returns or yields values."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, NamedTuple

from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import Table, encode_short
from rabbitry.exceptions import UsageError
from rabbitry.flow._trail import Given, given_of
from rabbitry.flow.key import Key, name_of
from rabbitry.flow.message import check_headers

_NOTHING: Final = given_of(Properties())
_NO_PROPERTIES: Final = (None,) * 5
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
    given = given_of(properties_of(outgoing)) if _gives_properties(outgoing) else _NOTHING
    if outgoing.key is not None:
        encode_short(name_of(outgoing.key))
    return Extra(given, place)


def _gives_properties(outgoing: Outgoing) -> bool:
    return (
        bool(outgoing.headers)
        or not outgoing.persistent
        or (outgoing.content_type, outgoing.content_encoding, outgoing.type, outgoing.expiration, outgoing.priority)
        != _NO_PROPERTIES
    )


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
