"""Methods as the payloads of method frames, by the wire layouts in methods.py.

This is the plain, complete way; the methods sent once per message also have a fast way in hot.py.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.layouts import BY_SIGNATURE, BY_TYPE, Layout
from rabbitry.amqp.protocol.methods import Method, method_name
from rabbitry.amqp.protocol.tables import (
    decode_table,
    decode_text,
    encode_short,
    encode_table,
    erlang_binary,
    octets,
)
from rabbitry.exceptions import ProtocolViolation, UsageError

_INTEGERS: Final = {
    "o": struct.Struct(">B"),
    "h": struct.Struct(">H"),
    "l": struct.Struct(">I"),
    "q": struct.Struct(">Q"),
}
_RESERVED: Final = {"0": b"\x00\x00", "1": b"\x00", "3": b"\x00\x00\x00\x00"}


def encode_method(method: Method, layouts: Mapping[type, Layout] = BY_TYPE) -> bytes:
    """Encode a method frame's payload: class id, method id, arguments.

    layouts: those of the protocol version in use. Raises UsageError for a value that does not fit its wire type.
    """
    layout = layouts[type(method)]
    parts: list[bytes] = [layout.signature.to_bytes(4, "big")]
    values = iter(method)
    bits: list[bool] = []
    for letter in layout.letters:
        if letter in "b2":
            bits.append(letter == "b" and bool(next(values)))
            continue
        if bits:
            parts.append(_pack_bits(bits))
            bits = []
        parts.append(_RESERVED[letter] if letter in _RESERVED else _encode(letter, next(values), layout))
    if bits:
        parts.append(_pack_bits(bits))
    return b"".join(parts)


def _pack_bits(bits: list[bool]) -> bytes:
    return bytes((sum(bit << index for index, bit in enumerate(bits)),))


def _encode(letter: str, value: object, layout: Layout) -> bytes:
    if letter == "s" and isinstance(value, str):
        return encode_short(value)
    if letter == "S" and isinstance(value, bytes):
        return len(value).to_bytes(4, "big") + value
    if letter == "t" and isinstance(value, Mapping):
        return encode_table(value)
    try:
        return _INTEGERS[letter].pack(value)
    except (struct.error, KeyError) as error:
        name = method_name(layout.class_id, layout.method_id)
        raise UsageError(f"{name}: {value!r} does not fit its wire type") from error


def decode_method(payload: bytes, layouts: Mapping[int, Layout] = BY_SIGNATURE) -> Method:
    """Decode a method frame's payload.

    layouts: those of the protocol version in use. Raises ProtocolViolation: 540 for an unknown method, 501 for
    arguments that are malformed, cut short or longer than the frame, or if class and method are missing.
    """
    if len(payload) < 4:
        text = f"FRAME_ERROR - type 1, {octets(payload)}: unknown_frame"
        raise ProtocolViolation(Reply.FRAME_ERROR, text)
    signature = int.from_bytes(payload[:4], "big")
    layout = layouts.get(signature)
    if layout is None:
        raise ProtocolViolation(
            Reply.NOT_IMPLEMENTED,
            f"NOT_IMPLEMENTED - unknown method {signature >> 16}.{signature & 0xFFFF}",
            signature >> 16,
            signature & 0xFFFF,
        )
    try:
        return _decode_arguments(layout, payload)
    except (IndexError, struct.error, ProtocolViolation) as error:
        text = f"FRAME_ERROR - cannot decode {erlang_binary(payload[4:])}"
        raise ProtocolViolation(Reply.FRAME_ERROR, text, layout.class_id, layout.method_id) from error


def _decode_arguments(layout: Layout, payload: bytes) -> Method:
    values: list[object] = []
    offset = 4
    bit = 0
    for letter in layout.letters:
        if letter in "b2":
            if bit == 0:
                octet = payload[offset]
                offset += 1
            if letter == "b":
                values.append(bool(octet >> bit & 1))
            bit += 1
            continue
        bit = 0
        value, offset = _decode(letter, payload, offset)
        if letter not in _RESERVED:
            values.append(value)
    if offset != len(payload):
        raise IndexError("the arguments do not fill the frame")
    method: Method = layout.make(*values)
    return method


def _decode(letter: str, payload: bytes, offset: int) -> tuple[object, int]:
    if letter in "s1":
        start = offset + 1
        offset = start + payload[offset]
        return decode_text(payload[start:offset]), offset
    if letter in "S3":
        start = offset + 4
        offset = start + struct.unpack_from(">I", payload, offset)[0]
        return payload[start:offset], offset
    if letter == "t":
        return decode_table(payload, offset)
    packed = _INTEGERS["h" if letter == "0" else letter]
    return packed.unpack_from(payload, offset)[0], offset + packed.size
