"""Message properties: every combination of flags against pamqp, hostile headers, and values that AMQP can't carry."""

from datetime import UTC, datetime
from typing import Any

import pamqp.header
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from rabbitry.amqp.protocol.properties import (
    CONTENT_HEADER,
    FLAG_DELIVERY_MODE,
    FLAG_EXPIRATION,
    FLAG_HEADERS,
    FLAG_MESSAGE_ID,
    FLAG_PRIORITY,
    FLAG_USER_ID,
    Properties,
    decode_header,
    encode_header,
)
from rabbitry.exceptions import ProtocolViolation, UsageError
from tests.amqp.protocol import strategies

_FULL = Properties(
    content_type="application/json",
    content_encoding="gzip",
    headers={"attempt": 2**40, "who": "é"},
    delivery_mode=2,
    priority=9,
    correlation_id="c",
    reply_to="r",
    expiration="1000",
    message_id="m",
    timestamp=datetime(2024, 2, 29, 12, 30, 45, tzinfo=UTC),
    type="t",
    user_id="guest",
    app_id="rabbitry",
    cluster_id="x",
)
_properties = st.builds(
    Properties,
    headers=st.none() | strategies.tables,
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    timestamp=st.none() | strategies.timestamps,
    **{
        name: st.none() | strategies.names
        for name in Properties._fields
        if name not in ("headers", "delivery_mode", "priority", "timestamp")
    },
)


@given(_properties, st.integers(0, 2**64 - 1))
def test_decoding_reverses_encoding(properties: Properties, size: int) -> None:
    encoded = encode_header(properties, size)
    assert decode_header(encoded) == properties
    assert CONTENT_HEADER.unpack_from(encoded)[:3] == (60, 0, size)


def test_every_combination_of_flags_equals_pamqps() -> None:
    # pamqp does not support cluster_id, which is last in a header.
    for chosen in range(1 << len(Properties._fields) - 1):
        present: dict[str, Any] = {
            name: value
            for bit, (name, value) in enumerate(zip(Properties._fields, _FULL, strict=True))
            if chosen >> bit & 1
        }
        theirs = {("message_type" if name == "type" else name): value for name, value in present.items()}
        properties = Properties(**present)
        encoded = encode_header(properties, 5)
        assert encoded == pamqp.header.ContentHeader(body_size=5, properties=Basic.Properties(**theirs)).marshal()
        assert decode_header(encoded) == properties

        with_cluster_id = encode_header(properties._replace(cluster_id="x"), 5)
        assert with_cluster_id[14:] == encoded[14:] + b"\x01x"
        assert with_cluster_id[13] == encoded[13] | 4
        assert decode_header(with_cluster_id) == properties._replace(cluster_id="x")


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        (FLAG_HEADERS, "headers"),
        (FLAG_DELIVERY_MODE, "delivery_mode"),
        (FLAG_PRIORITY, "priority"),
        (FLAG_EXPIRATION, "expiration"),
        (FLAG_MESSAGE_ID, "message_id"),
        (FLAG_USER_ID, "user_id"),
    ],
)
def test_flags_by_name(flag: int, name: str) -> None:
    encoded = encode_header(Properties(**{name: getattr(_FULL, name)}), 0)
    assert int.from_bytes(encoded[12:14], "big") == flag


@given(st.binary(max_size=80), st.integers(0, 2**16 - 1))
def test_hostile_bytes_are_a_violation(rest: bytes, flags: int) -> None:
    try:
        properties = decode_header(CONTENT_HEADER.pack(60, 0, 0, flags) + rest)
    except ProtocolViolation as violation:
        assert violation.reply_code == 502  # noqa: PT017 - either outcome is right
    else:
        encode_header(properties, 0)


@given(_properties, st.data())
def test_a_header_that_is_cut_short_or_too_long_is_a_violation(properties: Properties, data: st.DataObject) -> None:
    encoded = encode_header(properties, 0)
    with pytest.raises(ProtocolViolation, match="does not end"):
        decode_header(encoded + b"\x00")
    with pytest.raises(ProtocolViolation):
        decode_header(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize("flags", [1, 2])
def test_unknown_flags_are_refused(flags: int) -> None:
    with pytest.raises(ProtocolViolation, match="unknown properties"):
        decode_header(CONTENT_HEADER.pack(60, 0, 0, flags))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content_type", 5), ("content_type", b"text/plain"), ("message_id", "x" * 256), ("message_id", "\ud800"),
        ("message_id", datetime(2024, 1, 1, tzinfo=UTC)), ("expiration", 1000), ("headers", "x"), ("headers", 1),
        ("headers", [1]), ("headers", {1: 2}), ("headers", {"k": object()}), ("headers", {"k": 2**64}),
        ("delivery_mode", "2"), ("delivery_mode", 256), ("priority", -1), ("priority", {}),
        ("timestamp", "now"), ("timestamp", 1.5), ("timestamp", -1), ("timestamp", datetime(1969, 1, 1, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_raise_a_usage_error(name: str, value: object) -> None:
    with pytest.raises(UsageError):
        encode_header(Properties(**{name: value}), 0)  # type: ignore[arg-type] # on purpose


def test_an_expiration_that_is_a_number_is_refused_with_its_unit() -> None:
    with pytest.raises(UsageError, match="expiration can't be 60: it must be the milliseconds as a string, such as '6"):
        encode_header(Properties(expiration=60), 0)  # type: ignore[arg-type] # as in a program ported from aio-pika
