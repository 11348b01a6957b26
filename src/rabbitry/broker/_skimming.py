"""Reading what the broker needs of a publish with properties without decoding the others.

Nearly all messages of `rabbitry.flow` have headers, and lines of a log expire: decoding all of their properties took
40 % of the broker's time in a crawl (`make bench-crawl`). Skimming takes a quarter of that.
"""

from __future__ import annotations

import struct
from typing import Final

from rabbitry.amqp.protocol.properties import (
    FLAG_APP_ID,
    FLAG_CONTENT_ENCODING,
    FLAG_CONTENT_TYPE,
    FLAG_CORRELATION_ID,
    FLAG_DELIVERY_MODE,
    FLAG_EXPIRATION,
    FLAG_HEADERS,
    FLAG_MESSAGE_ID,
    FLAG_PRIORITY,
    FLAG_REPLY_TO,
    FLAG_TIMESTAMP,
    FLAG_TYPE,
    FLAG_USER_ID,
    PROPERTIES_AT,
)
from rabbitry.broker.message import Message

LONGEST: Final = 2_000
"""Bytes of a content header that is skimmed: many short headers would take long."""
_DECODED: Final = FLAG_REPLY_TO | FLAG_USER_ID | 3
"""Flags of properties that are checked or replaced by value, and of unknown ones."""
_MOST_DIGITS: Final = 9
"""Digits of an expiration that is valid whatever they are."""
_DEEPEST: Final = 3
_SIZES: Final = {ord("I"): 5, ord("l"): 9, ord("t"): 2, ord("V"): 1}
"""Tags of values of a fixed size, and their sizes with the tag."""
_STRING: Final = ord("S")
_DOUBLE: Final = ord("d")
_NOT_FINITE: Final = 0x7FF0
"""The exponent of a double that is NaN or infinite, in its first two bytes."""
_TABLE: Final = ord("F")
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_BEFORE: Final = (FLAG_CONTENT_TYPE, FLAG_CONTENT_ENCODING)
_AFTER: Final = (FLAG_MESSAGE_ID, FLAG_TIMESTAMP, FLAG_TYPE, FLAG_APP_ID, 1 << 2)  # the last one is cluster_id


def skimmed(destination: bytes, header: bytes, body: bytes, flags: int) -> Message | None:
    """Return the message of a publish, whose properties change neither its route nor themselves.

    None if it must be decoded: it may be malformed, have copies (CC, BCC) or deaths, or be a reply.
    """
    if flags & _DECODED or len(header) > LONGEST:
        return None
    mode, priority, expiration = 1, 0, None
    at = PROPERTIES_AT
    try:
        for flag in _BEFORE:
            if flags & flag:
                at += 1 + header[at]
        if flags & FLAG_HEADERS:
            (size,) = _U32.unpack_from(header, at)
            end = at + 4 + size
            if header.find(b"CC", at, end) >= 0 or header.find(b"x-death", at, end) >= 0:
                return None
            if not _is_table(header, at + 4, end, 0):
                return None
            at = end
        if flags & FLAG_DELIVERY_MODE:
            mode = header[at]
            at += 1
        if flags & FLAG_PRIORITY:
            priority = header[at]
            at += 1
        if flags & FLAG_CORRELATION_ID:
            at += 1 + header[at]
        if flags & FLAG_EXPIRATION:
            start, at = at + 1, at + 1 + header[at]
            digits = header[start:at]
            if len(digits) > _MOST_DIGITS or not digits.isdigit() or (digits[0] == 48 and digits != b"0"):
                return None
            expiration = int(digits)
        for flag in _AFTER:
            if flags & flag:
                at += 8 if flag == FLAG_TIMESTAMP else 1 + header[at]
    except (IndexError, struct.error):
        return None
    if at != len(header) or mode not in (1, 2):
        return None
    return Message(destination, header, body, mode == 2, expiration, priority)


def _is_table(header: bytes, at: int, end: int, depth: int) -> bool:
    """Return whether the fields of a table, of the most common types, end where it ends."""
    while at < end:
        at += 1 + header[at]
        tag = header[at]
        if tag == _STRING:
            at += 5 + _U32.unpack_from(header, at + 1)[0]
        elif tag in _SIZES:
            at += _SIZES[tag]
        elif tag == _DOUBLE and _U16.unpack_from(header, at + 1)[0] & _NOT_FINITE != _NOT_FINITE:
            at += 9
        elif tag == _TABLE and depth < _DEEPEST:
            start = at + 5
            at = start + _U32.unpack_from(header, at + 1)[0]
            if not _is_table(header, start, at, depth + 1):
                return False
        else:
            return False
    return at == end
