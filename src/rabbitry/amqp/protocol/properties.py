"""The 14 properties of a message (AMQP 0-9-1, section 1.8.3) and the content header that carries them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rabbitry._fields import Fields
from rabbitry.amqp.protocol.tables import (
    FieldValue,
    Table,
    decode_table,
    decode_timestamp,
    encode_short,
    encode_table,
    encode_timestamp,
)
from rabbitry.exceptions import ProtocolViolation, UsageError

if TYPE_CHECKING:
    from datetime import datetime  # see tables.py

CONTENT_HEADER: Final = struct.Struct(">HHQH")
"""Start of every content header: class, weight, body size, property flags."""
PROPERTIES_AT: Final = CONTENT_HEADER.size
FLAG_CONTENT_TYPE: Final = 1 << 15
FLAG_CONTENT_ENCODING: Final = 1 << 14
FLAG_HEADERS: Final = 1 << 13
FLAG_DELIVERY_MODE: Final = 1 << 12
FLAG_PRIORITY: Final = 1 << 11
FLAG_CORRELATION_ID: Final = 1 << 10
FLAG_REPLY_TO: Final = 1 << 9
FLAG_EXPIRATION: Final = 1 << 8
FLAG_MESSAGE_ID: Final = 1 << 7
FLAG_TIMESTAMP: Final = 1 << 6
FLAG_TYPE: Final = 1 << 5
FLAG_USER_ID: Final = 1 << 4
FLAG_APP_ID: Final = 1 << 3


class Properties(Fields):
    """A message's properties; None for one that is absent.

    delivery_mode: 1 transient, 2 persistent. priority: 0 to 255. expiration: milliseconds, as a string.
    timestamp: whole seconds, with zone (an int only beyond the year 9999). headers: a field table.
    The others are strings of at most 255 bytes.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


class EncodedProperties(Fields):
    """Encoded properties, except for the message id.

    flags: include the flag of the message id. before, after: the properties before and after it on the wire.
    message_id: 1 to 255 bytes; None if the client sets one.
    """

    flags: int
    before: bytes
    after: bytes
    message_id: bytes | None = None

    def decoded(self) -> Properties:
        """Return the properties by name, without a message id if the client sets one."""
        if self.message_id is not None:
            identity = b"%c%b" % (len(self.message_id), self.message_id)
            return decode_header(CONTENT_HEADER.pack(60, 0, 0, self.flags) + self.before + identity + self.after)
        flags = self.flags & ~FLAG_MESSAGE_ID
        return decode_header(CONTENT_HEADER.pack(60, 0, 0, flags) + self.before + self.after)


if not TYPE_CHECKING:  # the constructor of `Fields` takes three times as long, and each message may have properties

    def _properties(  # noqa: PLR0913 - all properties of AMQP
        cls,
        content_type=None,
        content_encoding=None,
        headers=None,
        delivery_mode=None,
        priority=None,
        correlation_id=None,
        reply_to=None,
        expiration=None,
        message_id=None,
        timestamp=None,
        type=None,
        user_id=None,
        app_id=None,
        cluster_id=None,
    ):
        values = (
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            type,
            user_id,
            app_id,
            cluster_id,
        )
        return tuple.__new__(cls, values)

    def _encoded_properties(cls, flags, before, after, message_id=None):
        return tuple.__new__(cls, (flags, before, after, message_id))

    Properties.__new__, EncodedProperties.__new__ = _properties, _encoded_properties
    _properties.__qualname__ = "Properties.__new__"  # errors about its arguments begin with that
    _encoded_properties.__qualname__ = "EncodedProperties.__new__"

_NAMES: Final = Properties._fields
_FLAGS: Final = tuple(1 << (15 - index) for index in range(len(_NAMES)))
_NOT_TEXT: Final = frozenset({"headers", "delivery_mode", "priority", "timestamp"})


def encode_properties(properties: Properties) -> tuple[int, list[bytes]]:
    """Return the property flags and the encoded properties that are set, one item each, in wire order.

    Raises:
        UsageError: AMQP can't carry a value.
    """
    flags = 0
    parts: list[bytes] = []
    for name, flag, value in zip(_NAMES, _FLAGS, properties, strict=True):
        if value is None:
            continue
        flags |= flag
        try:
            parts.append(_encode(name, value))
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"property {name} can't be {value!r}: {error}") from error
    return flags, parts


def encode_header(properties: Properties, body_size: int) -> bytes:
    """Encode a content header's payload for a body of `body_size` bytes."""
    flags, parts = encode_properties(properties)
    return CONTENT_HEADER.pack(60, 0, body_size, flags) + b"".join(parts)


def header_size(properties: Properties) -> int:
    """Return the size in bytes of the content header's payload, which must fit into one frame (section 4.2.6.1).

    Raises:
        UsageError: AMQP can't carry a value.
    """
    return PROPERTIES_AT + sum(map(len, encode_properties(properties)[1]))


def _encode(name: str, value: FieldValue) -> bytes:
    if name == "headers":
        if isinstance(value, Mapping):
            return encode_table(value)
        raise TypeError("headers must be a mapping")
    if name in ("delivery_mode", "priority"):
        if isinstance(value, int):
            return bytes((value,))
        raise TypeError("it must be an integer from 0 to 255")
    if name == "timestamp":
        return encode_timestamp(value).to_bytes(8, "big")
    if isinstance(value, str):
        return encode_short(value)
    if name == "expiration":
        raise TypeError("it must be the milliseconds as a string, such as '60000'")
    raise TypeError("it must be a string")


def decode_header(payload: bytes) -> Properties:
    """Decode a content header's payload.

    Raises:
        ProtocolViolation: The payload is malformed.
    """
    flags = int.from_bytes(payload[12:14], "big")
    if flags & 3:
        raise ProtocolViolation(502, "SYNTAX_ERROR - a content header flags unknown properties")
    offset = PROPERTIES_AT
    values: list[FieldValue] = [None] * len(_NAMES)
    try:
        for index, name in _present(flags):
            if name is None:  # a short string, as most are: a call for each took half of the time
                start = offset + 1
                offset = start + payload[offset]
                if offset > len(payload):
                    raise IndexError
                values[index] = payload[start:offset].decode("utf-8", "surrogateescape")
            else:
                values[index], offset = _decode(name, payload, offset)
    except IndexError as error:
        raise ProtocolViolation(502, "SYNTAX_ERROR - a content header is cut short") from error
    if offset != len(payload):
        raise ProtocolViolation(502, "SYNTAX_ERROR - a content header does not end with its properties")
    return Properties._make(values)


@lru_cache(maxsize=512)
def _present(flags: int) -> tuple[tuple[int, str | None], ...]:
    """Return the indexes of the properties that are flagged, in wire order, and the names of those that are no text."""
    named = zip(_NAMES, _FLAGS, strict=True)
    return tuple(
        (index, name if name in _NOT_TEXT else None) for index, (name, flag) in enumerate(named) if flags & flag
    )


def _decode(name: str, payload: bytes, offset: int) -> tuple[FieldValue, int]:
    if name == "headers":
        return decode_table(payload, offset)
    if name in ("delivery_mode", "priority"):
        return payload[offset], offset + 1
    if offset + 8 > len(payload):
        raise IndexError
    return decode_timestamp(int.from_bytes(payload[offset : offset + 8], "big")), offset + 8
