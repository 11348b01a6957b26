"""Skimming beside decoding: it finds the same, and leaves everything doubtful to decoding."""

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.broker._errors import Refusal
from rabbitry.broker._publishing import _read, read_expiration
from rabbitry.broker._skimming import LONGEST, skimmed
from rabbitry.broker.message import Message
from rabbitry.exceptions import ProtocolViolation
from tests.amqp.protocol import strategies

_LINE = Properties(
    content_type="text/plain",
    headers={"x-rabbitry-attempt": 1, "x-rabbitry-took": 0.25, "origin": {"etag": '"1"', "known": True, "age": None}},
    delivery_mode=1,
    priority=3,
    correlation_id="c",
    expiration="60000",
    message_id="m",
    timestamp=datetime(2026, 11, 28, tzinfo=UTC),
    type="Line",
    app_id="crawl",
    cluster_id="x",
)
_HEADER = encode_header(_LINE, 4)


def skim(header: bytes) -> Message | None:
    return skimmed(b"route", header, b"body", int.from_bytes(header[12:14], "big"))


def test_a_usual_message_is_skimmed() -> None:
    message = skim(_HEADER)
    assert message is not None
    assert (message.expiration, message.priority, message.persistent) == (60_000, 3, False)
    assert (message.destination, message.header, message.body) == (b"route", _HEADER, b"body")


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"CC": ["a"]}},
        {"headers": {"BCC": ["a"]}},
        {"headers": {"x-death": []}},
        {"headers": {"list": ["a"]}},
        {"headers": {"a": {"b": {"c": {"d": {"e": 1}}}}}},
        {"headers": {"long": "x" * LONGEST}},
        {"reply_to": "amq.rabbitmq.reply-to"},
        {"user_id": "guest"},
        {"delivery_mode": 3},
        *({"expiration": text} for text in ("", "abc", "-1", "+1", "01", "1 ", "1.5", "²", "9" * 10)),
    ],
)
def test_a_message_that_the_broker_changes_or_checks_is_decoded(given: dict[str, Any]) -> None:
    assert skim(encode_header(_LINE._replace(**given), 4)) is None


def test_numbers_that_are_not_finite_are_left_to_decoding() -> None:
    for number in (float("nan"), float("inf"), float("-inf")):
        assert skim(_HEADER.replace(struct.pack(">d", 0.25), struct.pack(">d", number))) is None
    for number in (-0.0, 1.7e308, -5e-324):
        assert skim(_HEADER.replace(struct.pack(">d", 0.25), struct.pack(">d", number))) is not None


_properties = st.builds(
    Properties,
    headers=st.none() | strategies.tables | strategies.plain_tables,
    delivery_mode=st.sampled_from((None, 1, 2)),
    priority=st.none() | st.integers(0, 255),
    expiration=st.none() | st.integers(0, 10**11).map(str),
    timestamp=st.none() | strategies.timestamps,
    **{
        name: st.none() | strategies.names
        for name in ("content_type", "content_encoding", "correlation_id", "message_id", "type", "app_id", "cluster_id")
    },
)


@given(st.just(_LINE) | _properties, st.lists(st.tuples(st.integers(12, 400), st.integers(0, 255)), max_size=3))
def test_it_finds_what_decoding_finds_and_takes_nothing_that_decoding_refuses(
    properties: Properties, changes: list[tuple[int, int]]
) -> None:
    header = bytearray(encode_header(properties, 4))
    for place, octet in changes:
        header[12 + (place - 12) % (len(header) - 12)] = octet
    message = skim(bytes(header))
    if message is None:
        return
    try:
        decoded = _read(bytes(header))
        expiration = None if decoded.expiration is None else read_expiration(decoded.expiration)
    except (ProtocolViolation, Refusal) as error:
        pytest.fail(f"decoding refuses it: {error}")
    assert message.expiration == expiration
    assert (None if expiration is None else str(expiration)) == decoded.expiration
    assert message.priority == (decoded.priority or 0)
    assert message.persistent == (decoded.delivery_mode == 2)
    assert decoded.reply_to is decoded.user_id is None
    assert not {"CC", "BCC", "x-death"} & set(decoded.headers or {})


@given(st.integers(0, len(_HEADER)))
def test_a_header_that_is_cut_short_is_left_to_decoding(size: int) -> None:
    header = _HEADER[: max(14, size)]
    assert skim(header) is None or len(header) == len(_HEADER)
