"""The hot path alone: decoded and ignored frames; encoders and parsers, compared with the plain ones and pamqp's."""

import struct
from collections.abc import Callable
from typing import Literal

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.events import ACK, DELIVER, PUBLISH, Event
from rabbitry.amqp.protocol.methods import (
    BasicAck,
    BasicDeliver,
    BasicGetOk,
    BasicPublish,
    BasicReturn,
    Method,
)
from rabbitry.amqp.protocol.properties import Properties, encode_header, encode_properties
from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.exceptions import ProtocolViolation
from tests.amqp.protocol import strategies

_tags = st.integers(0, 2**64 - 1)
_BODY = b"body"


def _publish(body: bytes = _BODY, channel: int = 1) -> bytes:
    header = encode_header(Properties(delivery_mode=2), len(body))
    payload = hot.publish_payload(b"\x01e", b"\x01k", mandatory=False)
    return hot.encode_method_frame(channel, payload) + hot.encode_content(channel, header, body, 4088)


def _deliver(body: bytes = _BODY) -> bytes:
    header = encode_header(Properties(), len(body))
    payload = encode_method(BasicDeliver("t", 1, False, "e", "k"))
    return hot.encode_method_frame(1, payload) + hot.encode_content(1, header, body, 4088)


def _scan(
    data: bytes, takes: tuple[int, Literal[1, 2]] = hot.BROKER_TAKES, frame_limit: int = 4088, body_limit: int = 4088
) -> tuple[int, list[Event]]:
    events: list[Event] = []
    return hot.scan(data, 0, frame_limit, body_limit, takes, {1}, events), events


# -- scanning ------------------------------------------------------------------------------------------


def test_complete_messages_are_scanned_in_order() -> None:
    data = _publish() + hot.encode_ack(1, 7, multiple=True) + _publish(b"")
    end, events = _scan(data)
    assert end == len(data)
    assert [event[0] for event in events] == [PUBLISH, ACK, PUBLISH]
    assert events[0][1:] == (1, b"\x00\x00\x01e\x01k\x00", encode_header(Properties(delivery_mode=2), 4), _BODY)
    assert events[1] == (ACK, 1, 7, True)
    assert events[2][4:] == (b"",)


@pytest.mark.parametrize("whole", [_publish(), _publish(b""), hot.encode_ack(1, 1, multiple=False)])
def test_incomplete_messages_are_left(whole: bytes) -> None:
    before = hot.encode_ack(1, 9, multiple=False)
    for cut in range(len(whole)):
        assert _scan(before + whole[:cut]) == (len(before), [(ACK, 1, 9, False)])


@pytest.mark.parametrize(
    ("data", "takes"),
    [
        (_publish(), hot.CLIENT_TAKES),
        (_deliver(), hot.BROKER_TAKES),
        (_publish(channel=2), hot.BROKER_TAKES),
        (hot.encode_method_frame(1, encode_method(BasicGetOk())), hot.CLIENT_TAKES),
        (_publish()[:-1] + b"\x00", hot.BROKER_TAKES),
        (_publish().replace(b"\x02\x00\x01\x00", b"\x02\x00\x02\x00"), hot.BROKER_TAKES),
        (_publish().replace(b"\x03\x00\x01\x00", b"\x03\x00\x02\x00"), hot.BROKER_TAKES),
        (_publish().replace(b"\x00\x04body", b"\x00\x03bod\xce"), hot.BROKER_TAKES),
    ],
)
def test_other_frames_are_left(data: bytes, takes: tuple[int, Literal[1, 2]]) -> None:
    assert _scan(data, takes) == (0, [])


def _message(method: bytes, header: bytes) -> bytes:
    return hot.encode_method_frame(1, method) + hot.encode_content(1, header, _BODY, 4088)


_METHOD = hot.publish_payload(b"\x00", b"\x01k", mandatory=False)
_HEADER = encode_header(Properties(), len(_BODY))


@pytest.mark.parametrize(
    "data",
    [
        _message(_METHOD, b"\x00\x0a" + _HEADER[2:]),
        _message(_METHOD, _HEADER[:13]),
        _message(hot.publish_payload(b"\x00", b"\x50" + b"k" * 80, mandatory=False), _HEADER),
        _message(_METHOD, encode_header(Properties(message_id="m" * 80), len(_BODY))),
    ],
    ids=["class", "short header", "large method", "large header"],
)
def test_a_malformed_header_or_frame_is_left(data: bytes) -> None:
    assert _scan(_message(_METHOD, _HEADER), frame_limit=50)[1]
    assert _scan(data, frame_limit=50) == (0, [])


def test_each_side_scans_its_own_content() -> None:
    assert [event[0] for event in _scan(_deliver(), hot.CLIENT_TAKES)[1]] == [DELIVER]
    assert [event[0] for event in _scan(_publish(), hot.BROKER_TAKES)[1]] == [PUBLISH]


def test_larger_frames_and_bodies_than_allowed_are_left() -> None:
    assert _scan(_publish(b"12345"), body_limit=4) == (0, [])
    assert _scan(_publish(b"1234"), body_limit=4)[1]
    assert _scan(_publish(), frame_limit=10) == (0, [])


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    end, _ = _scan(data)
    assert 0 <= end <= len(data)


@given(st.data())
def test_mutated_messages_never_raise_nor_run_over(draw: st.DataObject) -> None:
    data = bytearray(_publish() + hot.encode_ack(1, 1, multiple=True) + _publish())
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    end, _ = _scan(bytes(data))
    assert 0 <= end <= len(data)


# -- encoders ------------------------------------------------------------------------------------------


@given(st.integers(1, 65535), _tags, st.booleans())
def test_an_ack_equals_the_plain_one_and_pamqps(channel: int, tag: int, multiple: bool) -> None:
    encoded = hot.encode_ack(channel, tag, multiple=multiple)
    assert encoded == hot.encode_method_frame(channel, encode_method(BasicAck(tag, multiple)))
    if tag < 2**63:  # pamqp packs a delivery tag as a signed number
        assert encoded == pamqp.frame.marshal(Basic.Ack(tag, multiple), channel)


@given(strategies.names, strategies.names, st.booleans())
def test_a_publish_equals_the_plain_one(exchange: str, key: str, mandatory: bool) -> None:
    payload = hot.publish_payload(encode_short(exchange), encode_short(key), mandatory=mandatory)
    assert payload == encode_method(BasicPublish(exchange, key, mandatory))
    assert hot.parse_publish(payload[4:]) == (exchange, key, mandatory, False)


def test_a_publish_equals_pamqps() -> None:
    theirs = pamqp.frame.marshal(Basic.Publish(exchange="e", routing_key="k", mandatory=True), 3)
    assert hot.encode_method_frame(3, hot.publish_payload(b"\x01e", b"\x01k", mandatory=True)) == theirs


@given(strategies.names, _tags, st.booleans(), strategies.names, strategies.names)
def test_a_deliver_equals_the_plain_one(tag: str, number: int, redelivered: bool, exchange: str, key: str) -> None:
    payload = encode_method(BasicDeliver(tag, number, redelivered, exchange, key))
    destination = encode_short(exchange) + encode_short(key)
    assert payload == hot.deliver_prefix(encode_short(tag)) + struct.pack(">QB", number, redelivered) + destination


@given(_tags, st.booleans(), strategies.names, st.integers(0, 2**32 - 1))
def test_a_get_ok_equals_the_plain_one(number: int, redelivered: bool, key: str, left: int) -> None:
    payload = hot.get_ok_payload(
        number, redelivered=redelivered, destination=b"\x01e" + encode_short(key), message_count=left
    )
    assert payload == encode_method(BasicGetOk(number, redelivered, "e", key, left))


@given(st.integers(0, 65535), strategies.names, strategies.names, strategies.names)
def test_a_return_is_parsed_as_by_the_plain_way(code: int, text: str, exchange: str, key: str) -> None:
    payload = encode_method(BasicReturn(code, text, exchange, key))
    assert hot.parse_return(payload[4:]) == (code, text, exchange, key)


@given(st.binary(max_size=100), st.integers(1, 30))
def test_a_body_is_split_into_frames_no_larger_than_allowed(body: bytes, limit: int) -> None:
    header = encode_header(Properties(), len(body))
    rest = hot.encode_content(1, header, body, limit)
    found = b""
    channel, kinds = 0, []
    while rest:
        size, channel, value = pamqp.frame.unmarshal(rest)
        kinds.append(rest[0])
        if isinstance(value, ContentHeader):
            assert value.body_size == len(body)
        else:
            assert 0 < size - 8 <= limit
            found += rest[7 : size - 1]
        rest = rest[size:]
    assert found == body
    assert channel == 1
    assert kinds == [2] + [3] * -(-len(body) // limit)


def test_a_header_from_its_parts_equals_the_plain_one() -> None:
    properties = Properties(delivery_mode=2, message_id="m")
    flags, parts = encode_properties(properties)
    assert hot.encode_header(9, flags, b"".join(parts)) == encode_header(properties, 9)


# -- parsers -------------------------------------------------------------------------------------------

_PARSERS: list[tuple[Callable[[bytes], object], Method]] = [
    (hot.parse_publish, BasicPublish("exchange", "key", True, True)),
    (hot.parse_return, BasicReturn(312, "NO_ROUTE", "exchange", "key")),
]


@pytest.mark.parametrize(("parse", "method"), _PARSERS)
def test_arguments_that_are_cut_short_or_too_long_are_a_violation(
    parse: Callable[[bytes], object], method: Method
) -> None:
    arguments = encode_method(method)[4:]
    assert parse(arguments)
    for wrong in [arguments + b"\x00", *(arguments[:cut] for cut in range(len(arguments)))]:
        with pytest.raises(ProtocolViolation, match="502"):
            parse(wrong)


@given(st.binary(max_size=30))
def test_hot_and_plain_refuse_the_same_arguments(arguments: bytes) -> None:
    for parse, method in _PARSERS:
        signature = encode_method(method)[:4]
        plain: tuple[object, ...] | None
        try:
            plain = tuple(decode_method(signature + arguments))
        except ProtocolViolation:
            plain = None
        try:
            found: object = parse(arguments)
        except ProtocolViolation:
            found = None
        assert found == plain


def test_hot_and_plain_refuse_two_zeros_as_a_return() -> None:
    with pytest.raises(ProtocolViolation):
        hot.parse_return(b"\x00\x00")
