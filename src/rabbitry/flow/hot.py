"""The properties of messages that stages pass on, read and written as bytes, since every message pays for them.

By name they took 15 of a worker's 34 µs a message (`make bench-flow`). `read` knows the layout of what
`next_properties` and `Publisher` write; whatever else comes is read by name. Nothing is refused here.
"""

from __future__ import annotations

import random
import struct
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rabbitry.amqp.protocol.properties import (
    FLAG_APP_ID,
    FLAG_CONTENT_TYPE,
    FLAG_CORRELATION_ID,
    FLAG_DELIVERY_MODE,
    FLAG_HEADERS,
    FLAG_MESSAGE_ID,
    FLAG_TIMESTAMP,
    FLAG_TYPE,
    PROPERTIES_AT,
    EncodedProperties,
)
from rabbitry.amqp.protocol.tables import encode_short, encode_table, encode_text
from rabbitry.flow.codec import BYTES, JSON, TEXT
from rabbitry.flow.message import ATTEMPT, TRACEPARENT, attempt_of, properties_of, wait_of

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery

_TRACE_SIZE: Final = 55
_PERSISTENT: Final = b"\x02"
_LONGEST_TYPE: Final = 60  # characters, which fit a short string however they are encoded
_FLAGS: Final = (
    FLAG_CONTENT_TYPE | FLAG_HEADERS | FLAG_DELIVERY_MODE | FLAG_MESSAGE_ID | FLAG_TIMESTAMP | FLAG_TYPE | FLAG_APP_ID
)
_WITH_CORRELATION: Final = _FLAGS | FLAG_CORRELATION_ID
_FLAG_BYTES: Final = _WITH_CORRELATION.to_bytes(2, "big")
_FLAGS_AT: Final = PROPERTIES_AT - 2
_TIMESTAMP: Final = struct.Struct(">Q")


class Trail(NamedTuple):
    """What a worker must know of a message to pass it on.

    wait: seconds that it has still to wait. correlation: the id of the first message of its chain. trace: its
    W3C trace context, empty where it has none.
    """

    attempt: int
    wait: float
    correlation: bytes
    trace: bytes


@lru_cache
def _head(content_type: str) -> bytes:
    """Encode the content type and the headers up to the trace context, which comes last in them."""
    return encode_short(content_type) + encode_table({ATTEMPT: 1, TRACEPARENT: "0" * _TRACE_SIZE})[:-_TRACE_SIZE]


_HEADS: Final = tuple(_head(content_type) for content_type in (JSON, TEXT, BYTES))


def read(delivery: Delivery) -> Trail:
    """Read what must be known of a delivery; what is malformed counts as a first attempt of its own."""
    header = delivery.header
    if header[_FLAGS_AT:PROPERTIES_AT] == _FLAG_BYTES:
        for head in _HEADS:
            if header.startswith(head, PROPERTIES_AT):
                trace_at = PROPERTIES_AT + len(head)
                at = trace_at + _TRACE_SIZE + 2  # the delivery mode, and the length of the correlation id
                if at < len(header) and header[at - 1]:
                    return Trail(1, 0.0, header[at : at + header[at - 1]], header[trace_at : trace_at + _TRACE_SIZE])
    return _read_by_name(delivery)


def _read_by_name(delivery: Delivery) -> Trail:
    properties = properties_of(delivery)
    trace = (properties.headers or {}).get(TRACEPARENT)
    return Trail(
        attempt_of(properties),
        wait_of(properties),
        encode_text(properties.correlation_id or properties.message_id or ""),
        encode_text(trace) if isinstance(trace, str) else b"",
    )


def next_properties(app: str, cause: Trail, content_type: str, type_name: str) -> EncodedProperties:
    """Give the properties of what a stage makes of a message; the client gives the id."""
    span = random.getrandbits(64) | 1  # not all zero, which the standard forbids
    trace = cause.trace
    if len(trace) == _TRACE_SIZE and trace.startswith(b"00-"):
        trace = b"%b%016x%b" % (trace[:36], span, trace[52:])
    else:
        trace = b"00-%032x-%016x-01" % (random.getrandbits(128) | 1, span)
    after = _TIMESTAMP.pack(int(time.time())) + _tail(type_name, app)
    if not cause.correlation:
        return EncodedProperties(_FLAGS, _head(content_type) + trace + _PERSISTENT, after)
    correlation = b"%c%b" % (len(cause.correlation), cause.correlation)
    return EncodedProperties(_WITH_CORRELATION, _head(content_type) + trace + _PERSISTENT + correlation, after)


@lru_cache
def _tail(type_name: str, app: str) -> bytes:
    return encode_short(type_name[:_LONGEST_TYPE]) + encode_short(app)
