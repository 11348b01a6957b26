"""Field tables: every type RabbitMQ reads and writes, with tags that survive a round trip.

Types and tags are those of RabbitMQ (its "AMQP 0-9-1 errata", section 3), which differ from the specification's. Small
subclasses keep what Python's own types can't express: an integer with another tag than Python's default is a
`TaggedInt`, a single-precision float a `Float32`, a long string that is not UTF-8 a `LongString`. Decoding and encoding
again therefore returns the same bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from rabbitry.exceptions import ProtocolViolation, UsageError

if TYPE_CHECKING:
    # When the program runs, they are imported by the functions that need them: few tables hold a date or a decimal,
    # and the two modules took a tenth of what importing the client costs beyond asyncio (benchmarks/importing.py).
    from datetime import datetime
    from decimal import Decimal

_ERLANG_ESCAPES: Final = {
    **{code: b"\\" + bytes((letter,)) for code, letter in zip(b"\b\t\n\v\f\r\x1b", b"btnvfre", strict=True)},
    **{code: b"\\" + bytes((code,)) for code in b'"\\'},
}
"""Byte → the escape sequence that Erlang prints for it."""

MAX_DEPTH: Final = 64
"""Tables and arrays nested deeper than this are refused, in both directions."""


class TaggedInt(int):
    """An integer that travels with the type tag `tag` (one of b B s u I i l L T), not the default one."""

    tag: bytes

    def __new__(cls, value: int, tag: bytes) -> TaggedInt:
        """Create an integer with a tag. Raises UsageError if the tag is not an integer's."""
        if tag not in _INTEGER_TAGS:
            raise UsageError(f"{tag!r} is not a type tag of an integer")
        self = super().__new__(cls, value)
        self.tag = tag
        return self

    def __reduce__(self) -> tuple[type[TaggedInt], tuple[int, bytes]]:
        return TaggedInt, (int(self), self.tag)  # copies and pickles keep the tag


class Float32(float):
    """A float that travels in single precision (tag f)."""


class LongString(bytes):
    """A long string (tag S) that is not UTF-8; plain `bytes` travel as a byte array (tag x)."""


FieldValue: TypeAlias = (
    "bool | int | float | Decimal | str | bytes | datetime | Mapping[str, FieldValue] | Sequence[FieldValue] | None"
)
Table: TypeAlias = Mapping[str, FieldValue]

_U32 = struct.Struct(">I")
_S32 = struct.Struct(">i")
_U64 = struct.Struct(">Q")
_STRING_HEAD = struct.Struct(">cI")
_INTEGER = struct.Struct(">ci")
_INTEGERS: Final = {
    ord(tag): (tag.encode(), struct.Struct(">" + code))
    for tag, code in {
        "b": "b",
        "B": "B",
        "s": "h",
        "u": "H",
        "I": "i",
        "i": "I",
        "l": "q",
        "L": "q",
    }.items()
}
_INTEGER_NAMES: Final = {
    b"b": "byte",
    b"B": "unsignedbyte",
    b"s": "short",
    b"u": "unsignedshort",
    b"I": "signedint",
    b"i": "unsignedint",
    b"l": "long",
    b"L": "long",
    b"T": "timestamp",
}
_INTEGER_TAGS: Final = frozenset([*(tag for tag, _ in _INTEGERS.values()), b"T"])
_FLOAT = struct.Struct(">f")
_DOUBLE = struct.Struct(">d")
_STRING: Final = ord("S")
_SIGNED: Final = ord("I")
_VOID: Final = ord("V")
_BOOLEAN: Final = ord("t")
_FINITE: Final = frozenset({str, int, bool, bytes, type(None)})
"""Types of values that are never NaN or infinite."""
_ARRAY: Final = (list, tuple)
_TABLE: Final = (dict, Mapping)
_LAST_SECOND: Final = 253402300799
"""The end of the year 9999 in POSIX seconds."""


def decode_text(raw: bytes) -> str:
    """Decode a name. RabbitMQ accepts any bytes; those that are not UTF-8 survive decoding and encoding unchanged."""
    return raw.decode("utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """Encode a name; the opposite of `decode_text`.

    Raises:
        UsageError: The text can't be encoded.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"{text[:40]!r} can't be encoded in UTF-8: {error.reason}") from error
    except AttributeError as error:
        raise UsageError(f"a name must be text, not {type(text).__name__}") from error


def encode_short(text: str) -> bytes:
    """Encode a short string: a length octet, then at most 255 bytes.

    Raises:
        UsageError: The text is longer.
    """
    raw = encode_text(text)
    if len(raw) > 255:
        raise UsageError(f"{text[:40]!r}… has {len(raw)} bytes in UTF-8; AMQP allows 255")
    return bytes((len(raw),)) + raw


def decode_table(data: bytes, offset: int = 0) -> tuple[dict[str, FieldValue], int]:
    """Decode the table at `offset`, length included, and return the table and the offset behind it.

    Raises ProtocolViolation (502) for anything malformed.
    """
    try:
        return _read_table(data, offset, 0)
    except (struct.error, IndexError) as error:
        raise _malformed("is cut short") from error


def encode_table(table: Table) -> bytes:
    """Encode `table`, length included.

    str → S, bytes → x, bool → t, int → I, or l if 32 bits are too few, float → d, Decimal → D, datetime → T (whole
    seconds; one without a zone is taken as UTC), None → V, mapping → F, sequence → A.

    Raises:
        UsageError: A value has another type or is out of range; the text names its key. NaN and infinity are out of
            range, since RabbitMQ closes a connection on which one arrives.
    """
    return _write_table(table, 0)


def type_name(value: FieldValue) -> str:
    """Return the AMQP type of a value, in RabbitMQ's words."""
    match value:
        case None:
            return "void"
        case bool():
            return "bool"
        case int():
            tag = value.tag if isinstance(value, TaggedInt) else _default_tag(value)
            return _INTEGER_NAMES[tag]
        case float():
            return "float" if isinstance(value, Float32) else "double"
        case str() | LongString():
            return "longstr"
        case bytes():
            return "binary"
        case Mapping():
            return "table"
        case Sequence():
            return "array"
    from decimal import Decimal

    return "decimal" if isinstance(value, Decimal) else "timestamp"


def is_finite(value: FieldValue) -> bool:
    """Return whether a decoded value, with everything inside it, has no NaN and no infinity."""
    if type(value) in _FINITE:
        return True  # the case of nearly all values
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, _ARRAY):
        return _FINITE.issuperset(map(type, value)) or all(map(is_finite, value))
    if isinstance(value, _TABLE):  # checks dict first: testing for Mapping takes ten times as long
        return all(map(is_finite, value.values()))
    return True


def erlang_characters(data: bytes) -> str | None:
    """Return what Erlang's ~p prints between quotes for bytes that are all printable in Latin-1; None for others.

    RabbitMQ sends each character as one byte, so that its clients read bytes that are UTF-8 as such.
    """
    if data and all(32 <= octet <= 126 or octet >= 160 or octet in _ERLANG_ESCAPES for octet in data):
        return b"".join(_ERLANG_ESCAPES.get(octet) or bytes((octet,)) for octet in data).decode(
            "utf-8", "surrogateescape"
        )
    return None


def erlang_binary(data: bytes) -> str:
    """Return bytes as RabbitMQ prints them in its error texts."""
    text = erlang_characters(data)
    return f"<<{','.join(map(str, data))}>>" if text is None else f'<<"{text}">>'


def octets(payload: bytes) -> str:
    """Return a frame's payload as RabbitMQ prints it when it refuses the frame: all of it, or its first 16 bytes."""
    return f"{'all' if len(payload) <= 16 else 'first 16'} octets = {erlang_binary(payload[:16])}"


def _malformed(what: str) -> ProtocolViolation:
    return ProtocolViolation(502, f"SYNTAX_ERROR - a field table {what}")


def _read_table(data: bytes, offset: int, depth: int) -> tuple[dict[str, FieldValue], int]:
    if depth > MAX_DEPTH:
        raise _malformed(f"is nested deeper than {MAX_DEPTH}")
    (size,) = _U32.unpack_from(data, offset)
    offset += 4
    end = offset + size
    if end > len(data):
        raise _malformed("is longer than its frame")
    table: dict[str, FieldValue] = {}
    while offset < end:
        start = offset + 1
        offset = start + data[offset]
        key = data[start:offset].decode("utf-8", "surrogateescape")
        # Strings and 32-bit integers, which most headers are, take half the time here that `_read_value` needs.
        tag = data[offset]
        if tag == _STRING:
            start = offset + 5
            offset = start + _U32.unpack_from(data, offset + 1)[0]
            if offset > len(data):
                raise _malformed("holds a string that is longer than it")
            value: FieldValue = _long_string(data[start:offset])
        elif tag == _SIGNED:
            value = _S32.unpack_from(data, offset + 1)[0]
            offset += 5
        else:
            value, offset = _read_value(data, offset, depth)
        table.setdefault(key, value)  # of two fields with one name RabbitMQ uses the first
    if offset != end:
        raise _malformed("overruns its length")
    return table, end


def _read_array(data: bytes, offset: int, depth: int) -> tuple[list[FieldValue], int]:
    if depth > MAX_DEPTH:
        raise _malformed(f"is nested deeper than {MAX_DEPTH}")
    (size,) = _U32.unpack_from(data, offset)
    offset += 4
    end = offset + size
    if end > len(data):
        raise _malformed("holds an array that is longer than it")
    items: list[FieldValue] = []
    while offset < end:
        tag = data[offset]
        # A frame can hold a hundred thousand of the shortest values: they take half the time that `_read_value` needs.
        if tag == _VOID:
            items.append(None)
            offset += 1
        elif tag == _BOOLEAN:
            items.append(data[offset + 1] != 0)
            offset += 2
        else:
            value, offset = _read_value(data, offset, depth)
            items.append(value)
    if offset != end:
        raise _malformed("holds an array that overruns its length")
    return items, end


def _read_value(data: bytes, offset: int, depth: int) -> tuple[FieldValue, int]:
    tag = data[offset]
    offset += 1
    integer = _INTEGERS.get(tag)
    if integer is not None:
        letter, packed = integer
        (number,) = packed.unpack_from(data, offset)
        return _untag(number, letter), offset + packed.size
    match tag:
        case 0x53 | 0x78:  # S, x
            (size,) = _U32.unpack_from(data, offset)
            start, offset = offset + 4, offset + 4 + size
            if offset > len(data):
                raise _malformed("holds a string that is longer than it")
            raw = data[start:offset]
            return (raw if tag == 0x78 else _long_string(raw)), offset
        case 0x74:  # t
            return data[offset] != 0, offset + 1
        case 0x56:  # V
            return None, offset
        case 0x46:  # F
            return _read_table(data, offset, depth + 1)
        case 0x41:  # A
            return _read_array(data, offset, depth + 1)
        case 0x54:  # T
            (seconds,) = _U64.unpack_from(data, offset)
            return decode_timestamp(seconds), offset + 8
        case 0x64:  # d
            return _DOUBLE.unpack_from(data, offset)[0], offset + 8
        case 0x66:  # f
            return Float32(_FLOAT.unpack_from(data, offset)[0]), offset + 4
        case 0x44:  # D
            scale = data[offset]
            (number,) = _S32.unpack_from(data, offset + 1)
            from decimal import Decimal

            digits = Decimal(abs(number)).as_tuple().digits  # arithmetic would round to the caller's context
            return Decimal((int(number < 0), digits, -scale)), offset + 5
    raise _malformed(f"holds a value of the unknown type {chr(tag)!r}")


def _untag(number: int, letter: bytes) -> int:
    return number if letter == _default_tag(number) else TaggedInt(number, letter)


def _default_tag(number: int) -> bytes:
    return b"I" if -0x80000000 <= number <= 0x7FFFFFFF else b"l"


def _long_string(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return LongString(raw)


@lru_cache(maxsize=128)
def decode_timestamp(seconds: int) -> datetime | int:
    """Return the time for POSIX `seconds`; beyond the year 9999 a TaggedInt that travels unchanged.

    From a cache: messages that come together were published within few seconds.
    """
    if seconds > _LAST_SECOND:
        return TaggedInt(seconds, b"T")
    from datetime import UTC, datetime, timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def encode_timestamp(value: object) -> int:
    """Return POSIX seconds, of an int or a datetime. A datetime without a zone is taken as UTC. Raises TypeError."""
    if isinstance(value, int):
        return value
    from datetime import UTC, datetime, timedelta

    if not isinstance(value, datetime):
        raise TypeError("it must be a datetime")
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def _write_table(table: Table, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise UsageError(f"a table is nested deeper than {MAX_DEPTH}")
    parts: list[bytes] = []
    for key, value in table.items():
        if not isinstance(key, str):
            raise UsageError(f"table key {key!r} is not a string")
        parts.append(_encoded_key(key))
        try:
            kind = type(value)
            # As in `_read_table`: most headers are one of these, for which `_write_value` needs twice the time.
            if kind is str:
                raw = encode_text(value)  # type: ignore[arg-type] # as its type says
                parts += (_STRING_HEAD.pack(b"S", len(raw)), raw)
            elif kind is int and -0x80000000 <= value <= 0x7FFFFFFF:  # type: ignore[operator] # as its type says
                parts.append(_INTEGER.pack(b"I", value))
            elif kind is dict:
                parts += (b"F", _write_table(value, depth + 1))  # type: ignore[arg-type] # as its type says
            else:
                _write_value(value, parts, depth)
        except (struct.error, OverflowError) as error:
            raise UsageError(f"table field {key!r}: {value!r} does not fit its AMQP type: {error}") from error
        except TypeError as error:
            raise UsageError(f"table field {key!r}: {error}") from error
    packed = b"".join(parts)
    return _U32.pack(len(packed)) + packed


@lru_cache(maxsize=512)
def _encoded_key(key: str) -> bytes:
    """Encode a key, from a cache: messages of one kind have the same keys."""
    return encode_short(key)


def _write_value(value: FieldValue, parts: list[bytes], depth: int) -> None:
    if isinstance(value, str):
        raw = encode_text(value)
        parts += (b"S", _U32.pack(len(raw)), raw)
    elif isinstance(value, bool):
        parts.append(b"t\x01" if value else b"t\x00")
    elif isinstance(value, int):
        parts += _tagged(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        parts += (b"S" if isinstance(value, LongString) else b"x", _U32.pack(len(raw)), raw)
    elif value is None:
        parts.append(b"V")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} can't be sent: RabbitMQ accepts finite numbers only; use None or a string")
        parts += (b"f", _FLOAT.pack(value)) if isinstance(value, Float32) else (b"d", _DOUBLE.pack(value))
    elif isinstance(value, Mapping):
        parts += (b"F", _write_table(value, depth + 1))
    elif isinstance(value, Sequence):
        parts += (b"A", _write_array(value, depth + 1))
    else:
        parts.append(_date_or_decimal(value))


def _tagged(value: int) -> tuple[bytes, bytes]:
    tag = value.tag if isinstance(value, TaggedInt) else _default_tag(value)
    packed = _U64 if tag == b"T" else _INTEGERS[tag[0]][1]
    return tag, packed.pack(value)


def _write_array(items: Sequence[FieldValue], depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise UsageError(f"an array is nested deeper than {MAX_DEPTH}")
    parts: list[bytes] = []
    for item in items:
        _write_value(item, parts, depth)
    packed = b"".join(parts)
    return _U32.pack(len(packed)) + packed


def _date_or_decimal(value: FieldValue) -> bytes:
    from datetime import datetime
    from decimal import Decimal

    if isinstance(value, datetime):
        return b"T" + _U64.pack(encode_timestamp(value))
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} has no AMQP type")
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 9:
        raise TypeError(f"{value} is a decimal that AMQP can't carry")
    number = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
    return b"D" + bytes((max(-exponent, 0),)) + _S32.pack(-number if sign else number)
