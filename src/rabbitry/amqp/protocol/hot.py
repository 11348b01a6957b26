"""The frames sent once per message: publish, deliver, ack, and a content of one header and one body frame.

All other frames are processed the plain way (connection.py with methods.py and properties.py), and so are these
frames in any unusual form: `scan` stops in front of them. The same tests run against both ways. No name is decoded,
and no object is created except the tuple and the slices that are kept.

Measured on a 2-core machine with Python 3.11 (`benchmarks/protocol.py`): reading a publish or a deliver of 200
bytes takes 0.46 µs here, 4.5 µs the plain way and 5.9 µs in pamqp; writing a publish 1.4, 5.2 and 5.9 µs.
Worst case: input of cold frames only, where each costs one call of `scan` for nothing (0.3 µs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal

from rabbitry.amqp.protocol.constants import FRAME_END
from rabbitry.amqp.protocol.events import ACK, DELIVER, PUBLISH, Event
from rabbitry.amqp.protocol.tables import decode_text
from rabbitry.exceptions import ProtocolViolation

_METHOD_FRAME = struct.Struct(">BHII")  # type, channel, size, class and method
_HEADER_FRAME = struct.Struct(">BHIIQ")  # type, channel, size, class and weight, body size
_BASIC_WITHOUT_WEIGHT = 60 << 16
_FRAME = struct.Struct(">BHI")
_ACK = struct.Struct(">QB")
_ACK_FRAME = struct.Struct(">BHIIQBB")
_DELIVER_MIDDLE = struct.Struct(">QB")

PUBLISH_SIGNATURE: Final = 60 << 16 | 40
DELIVER_SIGNATURE: Final = 60 << 16 | 60
ACK_SIGNATURE: Final = 60 << 16 | 80
NACK_SIGNATURE: Final = 60 << 16 | 120

BROKER_TAKES: Final = PUBLISH_SIGNATURE, PUBLISH
"""The method whose content a broker receives, and the event of that."""
CLIENT_TAKES: Final = DELIVER_SIGNATURE, DELIVER
"""The same for a client."""


def scan(
    data: bytes,
    start: int,
    frame_limit: int,
    body_limit: int,
    takes: tuple[int, Literal[1, 2]],
    ready: set[int],
    events: list[Event],
) -> int:
    """Append the events of the hot frames in `data` from `start` on, and return the offset of the first other frame.

    `ready` are the channels that are open and not within a content. `frame_limit` is the largest payload allowed,
    `body_limit` the largest body to process here, `takes` the content that this side receives: BROKER_TAKES or
    CLIENT_TAKES. Only whole messages are processed: a publish whose body is incomplete is left.
    """
    end = len(data)
    taken, event = takes
    method_frame = _METHOD_FRAME.unpack_from
    header_frame = _HEADER_FRAME.unpack_from
    frame = _FRAME.unpack_from
    append = events.append
    offset = start
    while end - offset >= 21:  # the size of an ack, the smallest
        kind, channel, size, signature = method_frame(data, offset)
        stop = offset + 7 + size
        if kind != 1 or channel not in ready or size > frame_limit or stop >= end or data[stop] != FRAME_END:
            return offset
        # No table, which all threads would share: without the interpreter's lock, each look for an integer among its
        # keys takes the table's lock (benchmarks/threads.py).
        if signature != taken:
            if signature != ACK_SIGNATURE or size != 13:
                return offset
            tag, bits = _ACK.unpack_from(data, offset + 11)
            append((ACK, channel, tag, bits & 1 == 1))
            offset = stop + 1
            continue
        at = stop + 1
        if end - at < 22:
            return offset
        kind, header_channel, size, class_and_weight, body_size = header_frame(data, at)
        header_stop = at + 7 + size
        if (
            kind != 2
            or header_channel != channel
            or class_and_weight != _BASIC_WITHOUT_WEIGHT
            or size < 14
            or size > frame_limit
            or header_stop >= end
            or data[header_stop] != FRAME_END
        ):
            return offset
        arguments = data[offset + 11 : stop]
        header = data[at + 7 : header_stop]
        at = header_stop + 1
        if body_size:
            if end - at < 8:
                return offset
            kind, body_channel, size = frame(data, at)
            body_stop = at + 7 + size
            if (
                kind != 3
                or body_channel != channel
                or size != body_size
                or size > body_limit
                or body_stop >= end
                or data[body_stop] != FRAME_END
            ):
                return offset
            append((event, channel, arguments, header, data[at + 7 : body_stop]))
            offset = body_stop + 1
        else:
            append((event, channel, arguments, header, b""))
            offset = at
    return offset


def scan_bodies(data: bytes, start: int, channel: int, limit: int, missing: int, parts: list[bytes]) -> int:
    """Take whole body frames of a channel that follow each other from `start` on, and append their payloads.

    Frames of more than `limit` bytes, and bytes beyond the `missing` bytes of the body, are left. Return the offset of
    the first frame that is left.
    """
    end = len(data)
    frame = _FRAME.unpack_from
    offset = start
    while missing and end - offset >= 8:
        kind, number, size = frame(data, offset)
        stop = offset + 7 + size
        if kind != 3 or number != channel or size > limit or size > missing or stop >= end or data[stop] != FRAME_END:
            break
        if size:  # an empty frame is legal, but would only fill the list
            parts.append(data[offset + 7 : stop])
            missing -= size
        offset = stop + 1
    return offset


def encode_ack(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """Encode a whole basic.ack frame."""
    return _ACK_FRAME.pack(1, channel, 13, ACK_SIGNATURE, delivery_tag, multiple, FRAME_END)


def encode_nack(channel: int, delivery_tag: int) -> bytes:
    """Encode a whole basic.nack frame for one publish."""
    return _ACK_FRAME.pack(1, channel, 13, NACK_SIGNATURE, delivery_tag, 0, FRAME_END)


def encode_method_frame(channel: int, payload: bytes) -> bytes:
    """Put a method's payload into its frame."""
    return b"%b%b\xce" % (_FRAME.pack(1, channel, len(payload)), payload)


def encode_content(channel: int, header: bytes, body: bytes, frame_limit: int) -> bytes:
    """Encode the content header frame with payload `header`, and the body in frames of at most `frame_limit`."""
    size = len(body)
    if not size:
        return b"%b%b\xce" % (_FRAME.pack(2, channel, len(header)), header)
    if size > frame_limit:
        return b"".join(content_frames(channel, header, body, frame_limit))
    return b"%b%b\xce%b%b\xce" % (
        _FRAME.pack(2, channel, len(header)),
        header,
        _FRAME.pack(3, channel, size),
        body,
    )


def encode_message(channel: int, payload: bytes, header: bytes, body: bytes) -> bytes:
    """Encode a method with payload `payload` and its content, if the body goes into one frame."""
    if not body:
        return encode_method_frame(channel, payload) + encode_content(channel, header, body, 0)
    pack = _FRAME.pack
    return b"%b%b\xce%b%b\xce%b%b\xce" % (
        pack(1, channel, len(payload)),
        payload,
        pack(2, channel, len(header)),
        header,
        pack(3, channel, len(body)),
        body,
    )


def content_frames(channel: int, header: bytes, body: bytes, frame_limit: int) -> Iterator[bytes]:
    """Encode a content frame by frame: a large body is copied once, in pieces that memory is kept for."""
    yield b"%b%b\xce" % (_FRAME.pack(2, channel, len(header)), header)
    view = memoryview(body)
    for offset in range(0, len(body), frame_limit):
        piece = view[offset : offset + frame_limit]
        yield b"".join((_FRAME.pack(3, channel, len(piece)), piece, b"\xce"))


def encode_header(body_size: int, flags: int, properties: bytes) -> bytes:
    """Encode a content header's payload from property flags and encoded properties."""
    return struct.pack(">HHQH", 60, 0, body_size, flags) + properties


def publish_payload(exchange: bytes, routing_key: bytes, *, mandatory: bool) -> bytes:
    """Encode a basic.publish method's payload; `exchange` and `routing_key` are short strings, length included."""
    return b"\x00\x3c\x00\x28\x00\x00%b%b%c" % (exchange, routing_key, mandatory)


def deliver_prefix(consumer_tag: bytes) -> bytes:
    """Return the start of a basic.deliver payload for a consumer; `consumer_tag` includes its length octet."""
    return b"\x00\x3c\x00\x3c" + consumer_tag


def get_ok_payload(delivery_tag: int, *, redelivered: bool, destination: bytes, message_count: int) -> bytes:
    """Encode a basic.get-ok payload; `message_count` is how many are left."""
    return b"\x00\x3c\x00\x47%b%b%b" % (
        _DELIVER_MIDDLE.pack(delivery_tag, redelivered),
        destination,
        message_count.to_bytes(4, "big"),
    )


def parse_publish(arguments: bytes) -> tuple[str, str, bool, bool]:
    """Return exchange, routing key, mandatory, immediate. Raises ProtocolViolation (502) if malformed."""
    try:
        middle = 3 + arguments[2]
        end = middle + 1 + arguments[middle]
        bits = arguments[end]
    except IndexError:
        raise _malformed("basic.publish", 40) from None
    if end + 1 != len(arguments):
        raise _malformed("basic.publish", 40)
    exchange, routing_key = decode_text(arguments[3:middle]), decode_text(arguments[middle + 1 : end])
    return exchange, routing_key, bits & 1 == 1, bits & 2 == 2


def parse_return(arguments: bytes) -> tuple[int, str, str, str]:
    """Return reply code, reply text, exchange, routing key. Raises ProtocolViolation (502) if malformed."""
    try:
        text_end = 3 + arguments[2]
        exchange_end = text_end + 1 + arguments[text_end]
        key_end = exchange_end + 1 + arguments[exchange_end]
    except IndexError:
        raise _malformed("basic.return", 50) from None
    if key_end != len(arguments):
        raise _malformed("basic.return", 50)
    return (
        int.from_bytes(arguments[:2], "big"),
        decode_text(arguments[3:text_end]),
        decode_text(arguments[text_end + 1 : exchange_end]),
        decode_text(arguments[exchange_end + 1 : key_end]),
    )


def _malformed(method: str, method_id: int) -> ProtocolViolation:
    return ProtocolViolation(502, f"SYNTAX_ERROR - the arguments of {method} are malformed", 60, method_id)
