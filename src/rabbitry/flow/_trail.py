"""The properties of messages that stages pass on, read and written as bytes, since this is done for every message.

Decoding them by name took 15 of a worker's 34 µs a message (`make bench-flow`). `read` knows the layout that
`next_properties` and `Publisher` write; other layouts are read by name. Nothing is refused here.
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rabbitry._errors import sendable
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.properties import (
    FLAG_APP_ID,
    FLAG_CONTENT_ENCODING,
    FLAG_CONTENT_TYPE,
    FLAG_CORRELATION_ID,
    FLAG_DELIVERY_MODE,
    FLAG_HEADERS,
    FLAG_MESSAGE_ID,
    FLAG_PRIORITY,
    FLAG_TIMESTAMP,
    FLAG_TYPE,
    PROPERTIES_AT,
    EncodedProperties,
    encode_properties,
)
from rabbitry.amqp.protocol.tables import Table, encode_short, encode_table, encode_text
from rabbitry.flow import _tracing
from rabbitry.flow.codec import BYTES, JSON, TEXT
from rabbitry.flow.message import (
    ATTEMPT,
    EXPIRES,
    PART,
    VERSION,
    WAIT,
    attempt_of,
    properties_of,
    text_header,
    version_of,
    wait_of,
)

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery

_ATTEMPT_FIELD: Final = encode_table({ATTEMPT: 1})[4:]
_TRACE_SIZE: Final = 55
_TRACE_NAME: Final = encode_table({_tracing.TRACEPARENT: "0" * _TRACE_SIZE})[4:-_TRACE_SIZE]
_TRACE_FIELD_SIZE: Final = len(_TRACE_NAME) + _TRACE_SIZE
_PERSISTENT: Final = b"\x02"
_LONGEST_TYPE: Final = 60  # characters, which fit a short string however they are encoded
_FLAGS: Final = (
    FLAG_CONTENT_TYPE | FLAG_HEADERS | FLAG_DELIVERY_MODE | FLAG_MESSAGE_ID | FLAG_TIMESTAMP | FLAG_TYPE | FLAG_APP_ID
)
_WITH_CORRELATION: Final = _FLAGS | FLAG_CORRELATION_ID
_FLAG_BYTES: Final = _WITH_CORRELATION.to_bytes(2, "big")
_FLAGS_AT: Final = PROPERTIES_AT - 2
_NEEDED: Final = FLAG_CONTENT_TYPE | FLAG_HEADERS | FLAG_DELIVERY_MODE | FLAG_CORRELATION_ID
_READ_NAMES: Final = tuple(
    name.encode() for name in (ATTEMPT, WAIT, PART, EXPIRES, VERSION, _tracing.TRACEPARENT, _tracing.TRACESTATE)
)
_TIMESTAMP: Final = struct.Struct(">Q")
_SIZE: Final = struct.Struct(">I")


class Trail(NamedTuple):
    """The properties of a message that a worker needs to pass it on.

    wait: seconds that it has still to wait. correlation: the id of the first message of its chain. trace: its
    W3C trace context, as the fields of a table; empty if it has none. part: the header that makes it a part of a job;
    empty if it is none. expires: the header that says when it expires; empty if it never does. version: that of its
    type.
    """

    attempt: int
    wait: float
    correlation: bytes
    trace: bytes
    part: str = ""
    expires: str = ""
    version: int = 1


@lru_cache
def _head(content_type: str, trace_size: int) -> bytes:
    """Encode the content type and the headers up to the trace context, which comes last in them."""
    return encode_short(content_type) + _SIZE.pack(len(_ATTEMPT_FIELD) + trace_size) + _ATTEMPT_FIELD


_HEADS: Final = tuple(
    (head + name, len(head), len(name) and _TRACE_FIELD_SIZE)
    for content_type in (JSON, TEXT, BYTES)
    for name in (b"", _TRACE_NAME)
    for head in (_head(content_type, len(name) and _TRACE_FIELD_SIZE),)
)
"""What such a message begins with, where its trace context begins then, and how many bytes that has."""


def read(delivery: Delivery) -> Trail:
    """Read what must be known of a delivery; what is malformed counts as a first attempt of its own."""
    header = delivery.header
    if header[_FLAGS_AT:PROPERTIES_AT] == _FLAG_BYTES:
        for head, size, trace_size in _HEADS:
            if header.startswith(head, PROPERTIES_AT):
                trace_at = PROPERTIES_AT + size
                trace_end = trace_at + trace_size
                at = trace_end + 2  # the delivery mode, and the length of the correlation id
                if at < len(header) and header[at - 1]:
                    return Trail(1, 0.0, header[at : at + header[at - 1]], header[trace_at:trace_end])
    return _read_given(header) or _read_by_name(delivery)


def _read_given(header: bytes) -> Trail | None:
    """Read what `next_properties_with` writes, whatever properties it was given; None for what may be something else.

    By name it takes 14 µs for the headers of a crawled page.
    """
    flags = int.from_bytes(header[_FLAGS_AT:PROPERTIES_AT], "big")
    if flags & _NEEDED != _NEEDED or flags & 3:
        return None
    try:
        at = PROPERTIES_AT + 1 + header[PROPERTIES_AT]
        if flags & FLAG_CONTENT_ENCODING:
            at += 1 + header[at]
        trace_at = at + _SIZE.size + len(_ATTEMPT_FIELD)
        end = at + _SIZE.size + _SIZE.unpack_from(header, at)[0]
        trace_end = trace_at + (_TRACE_FIELD_SIZE if header.startswith(_TRACE_NAME, trace_at) else 0)
        if not header.startswith(_ATTEMPT_FIELD, at + _SIZE.size) or trace_end > end:
            return None
        if any(header.find(name, trace_end, end) >= 0 for name in _READ_NAMES):
            return None  # an attempt, a delay or a trace context of another form, or a text with such a name in it
        at = end + (2 if flags & FLAG_PRIORITY else 1)
        correlation = header[at + 1 : at + 1 + header[at]]
    except (IndexError, struct.error):
        return None
    return Trail(1, 0.0, correlation, header[trace_at:trace_end]) if len(correlation) == header[at] > 0 else None


def _read_by_name(delivery: Delivery) -> Trail:
    properties = properties_of(delivery)
    headers = properties.headers or {}
    return Trail(
        attempt_of(properties),
        wait_of(properties),
        encode_text(properties.correlation_id or properties.message_id or ""),
        trace_fields(_tracing.carried(headers)),
        text_header(headers, PART) or "",
        text_header(headers, EXPIRES) or "",
        version_of(headers),
    )


def trace_fields(headers: Table) -> bytes:
    """Encode headers as the fields of a table, without its length."""
    return encode_table(headers)[4:]


def next_properties(
    app: str, cause: Trail, content_type: str, type_name: str, trace: bytes | None = None, version: int = 1
) -> EncodedProperties:
    """Return the properties of what a stage makes of a message; the client gives the id.

    trace: the trace context in the handler at its end, None if that is the message's. version: of the result's type.
    """
    trace = cause.trace if trace is None else trace
    if cause.part:
        trace += trace_fields({PART: cause.part})
    if version > 1:
        trace += trace_fields({VERSION: version})
    before = _head(content_type, len(trace)) + trace + _PERSISTENT
    after = _TIMESTAMP.pack(int(time.time())) + _tail(type_name, app)
    if not cause.correlation:
        return EncodedProperties(_FLAGS, before, after)
    return EncodedProperties(_WITH_CORRELATION, b"%b%c%b" % (before, len(cause.correlation), cause.correlation), after)


class Given(NamedTuple):
    """Properties that a handler gives, encoded; empty if it gives none.

    flags: of those that `next_properties` does not have. has_trace: whether a trace context is among the headers.
    """

    flags: int
    content_type: bytes
    content_encoding: bytes
    headers: bytes
    delivery_mode: bytes
    priority: bytes
    expiration: bytes
    type: bytes
    has_trace: bool


def given_of(properties: Properties) -> Given:
    """Encode what a handler gives. Raises UsageError for what AMQP can't carry."""
    headers = properties.headers
    others = properties._replace(headers=None)
    flags, parts = encode_properties(others)
    present = [name for name, value in zip(Properties._fields, others, strict=True) if value is not None]
    encoded = dict(zip(present, parts, strict=True))
    given = Given(
        flags,
        encoded.get("content_type", b""),
        encoded.get("content_encoding", b""),
        b"",
        encoded.get("delivery_mode", b""),
        encoded.get("priority", b""),
        encoded.get("expiration", b""),
        encoded.get("type", b""),
        has_trace=False,
    )
    return given if headers is None else with_headers(given, headers)


def with_headers(given: Given, headers: Table) -> Given:
    """Return what a handler gives with these headers too. Raises UsageError for what AMQP can't carry."""
    return Given(
        given.flags | FLAG_HEADERS,
        given.content_type,
        given.content_encoding,
        trace_fields(headers),
        given.delivery_mode,
        given.priority,
        given.expiration,
        given.type,
        has_trace=_tracing.TRACEPARENT in headers or _tracing.TRACESTATE in headers,
    )


def next_properties_with(
    app: str,
    cause: Trail,
    content_type: str,
    type_name: str,
    given: Given,
    trace: bytes | None = None,
    version: int = 1,
) -> EncodedProperties:
    """Return the properties of a value for which its handler gives some; see `next_properties`.

    By name this took 60 of the 500 µs that a crawler has for a page and its line of the log (`make bench-crawl`).
    """
    own = b"" if given.has_trace else cause.trace if trace is None else trace
    fields = _ATTEMPT_FIELD + own + given.headers
    if cause.part:
        fields += trace_fields({PART: cause.part})
    if version > 1:
        fields += trace_fields({VERSION: version})
    correlation = b"%c%b" % (len(cause.correlation), cause.correlation) if cause.correlation else b""
    before = b"".join(
        (
            given.content_type or encode_short(content_type),
            given.content_encoding,
            _SIZE.pack(len(fields)),
            fields,
            given.delivery_mode or _PERSISTENT,
            given.priority,
            correlation,
            given.expiration,
        )
    )
    kind = given.type or encode_short(sendable(type_name[:_LONGEST_TYPE])[:_LONGEST_TYPE])
    after = _TIMESTAMP.pack(int(time.time())) + kind + encode_short(app)
    return EncodedProperties((_WITH_CORRELATION if correlation else _FLAGS) | given.flags, before, after)


@lru_cache
def _tail(type_name: str, app: str) -> bytes:
    return encode_short(sendable(type_name[:_LONGEST_TYPE])[:_LONGEST_TYPE]) + encode_short(app)
