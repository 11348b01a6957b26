"""Field tables: against pamqp, round trips that keep every tag, and hostile bytes."""

import copy
import decimal
import math
import pickle
import re
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import cast

import pamqp.decode
import pamqp.encode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.protocol.tables import (
    MAX_DEPTH,
    FieldValue,
    Float32,
    LongString,
    Table,
    TaggedInt,
    decode_table,
    decode_text,
    encode_short,
    encode_table,
    encode_text,
)
from rabbitry.exceptions import ProtocolViolation, UsageError
from tests.amqp.protocol import strategies


def table_bytes(fields: bytes) -> bytes:
    return struct.pack(">I", len(fields)) + fields


def one_field(value: bytes) -> bytes:
    return table_bytes(b"\x01k" + value)


def the_value(fields: bytes) -> FieldValue:
    return decode_table(one_field(fields))[0]["k"]


# -- round trips ---------------------------------------------------------------------------------------


@given(strategies.tables)
def test_decoding_reverses_encoding(table: Table) -> None:
    encoded = encode_table(table)
    decoded, end = decode_table(encoded)
    assert end == len(encoded)
    assert decoded == table
    assert encode_table(decoded) == encoded


@given(strategies.tables, st.binary(max_size=8), st.binary(max_size=8))
def test_a_table_within_other_bytes(table: Table, before: bytes, after: bytes) -> None:
    encoded = encode_table(table)
    assert decode_table(before + encoded + after, len(before)) == (table, len(before) + len(encoded))


@pytest.mark.parametrize(
    "value",
    [
        b"t\x00", b"t\x01", b"b\xff", b"B\xff", b"s\xff\xfe", b"u\xff\xfe", b"I\x00\x00\x00\x01",
        b"i\x00\x00\x00\x01", b"l\x00\x00\x00\x00\x00\x00\x00\x01", b"L\x00\x00\x00\x00\x00\x00\x00\x01",
        b"l\x80\x00\x00\x00\x00\x00\x00\x00", b"f\x3f\x80\x00\x00", b"d\x3f\xf0\x00\x00\x00\x00\x00\x00",
        b"d\x7f\xef\xff\xff\xff\xff\xff\xff", b"D\x02\x00\x00\x30\x39", b"D\xff\xff\xff\xff\xff",
        b"D\x00\x80\x00\x00\x00",
        b"D\x05\x00\x00\x00\x00",
        b"S\x00\x00\x00\x02hi", b"S\x00\x00\x00\x01\xff", b"x\x00\x00\x00\x02hi", b"x\x00\x00\x00\x00",
        b"T\x00\x00\x00\x00\x65\xe0\x78\x95", b"T\xff\xff\xff\xff\xff\xff\xff\xff", b"V",
        b"F\x00\x00\x00\x00", b"F\x00\x00\x00\x04\x01kB\x07", b"A\x00\x00\x00\x00", b"A\x00\x00\x00\x04b\x01B\x01",
    ],
)  # fmt: skip
def test_every_type_keeps_its_bytes(value: bytes) -> None:
    encoded = one_field(value)
    assert encode_table(decode_table(encoded)[0]) == encoded


def test_names_and_strings_that_are_not_utf8_keep_their_bytes() -> None:
    encoded = table_bytes(b"\x02\xff\xfeS\x00\x00\x00\x02\xc3\x28")
    decoded, _ = decode_table(encoded)
    assert decoded == {"\udcff\udcfe": LongString(b"\xc3\x28")}
    assert encode_table(decoded) == encoded


@given(st.binary(max_size=60))
def test_any_bytes_are_a_name(raw: bytes) -> None:
    assert encode_text(decode_text(raw)) == raw


def test_decoded_types() -> None:
    assert the_value(b"l\x00\x00\x00\x00\x00\x00\x00\x01") == 1
    assert type(the_value(b"I\x00\x00\x00\x01")) is int
    assert type(the_value(b"l\x00\x00\x00\x01\x00\x00\x00\x00")) is int
    assert the_value(b"D\x02\x00\x00\x30\x39") == Decimal("123.45")
    assert the_value(b"T\x00\x00\x00\x00\x00\x00\x00\x3c") == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    beyond = the_value(b"T\xff\xff\xff\xff\xff\xff\xff\xff")
    assert isinstance(beyond, TaggedInt)
    assert (beyond, beyond.tag) == (2**64 - 1, b"T")
    assert isinstance(the_value(b"f\x3f\x80\x00\x00"), Float32)
    assert type(the_value(b"x\x00\x00\x00\x01\xff")) is bytes


def test_decimals_are_exact_in_any_context() -> None:
    with decimal.localcontext(prec=3):
        assert str(the_value(b"D\x02\x7f\xff\xff\xff")) == "21474836.47"


def test_a_timestamp_in_another_zone_and_without_one() -> None:
    elsewhere = datetime(2024, 2, 29, 13, 30, 45, tzinfo=timezone(timedelta(hours=1)))
    naive = datetime(2024, 2, 29, 12, 30, 45)  # noqa: DTZ001 # what is tested
    assert encode_table({"t": elsewhere}) == encode_table({"t": naive})
    assert decode_table(encode_table({"t": naive}))[0] == {"t": naive.replace(tzinfo=UTC)}


def test_tagged_integers_survive_copies_and_pickles() -> None:
    value = TaggedInt(7, b"s")
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):  # noqa: S301 # our own bytes
        assert (other, other.tag) == (7, b"s")


# -- against pamqp -------------------------------------------------------------------------------------


@given(strategies.plain_tables)
def test_encoding_equals_pamqps(table: Table) -> None:
    # pamqp sorts the keys.
    ordered = dict(sorted(table.items()))
    assert encode_table(ordered) == pamqp.encode.field_table(ordered)  # type: ignore[arg-type] # a dict of its values


@given(strategies.plain_tables)
def test_decoding_equals_pamqps(table: Table) -> None:
    encoded = encode_table(table)
    assert decode_table(encoded) == pamqp.decode.field_table(encoded)[::-1]


def test_pamqp_loses_the_tag_of_l_holding_1() -> None:
    encoded = one_field(b"l\x00\x00\x00\x00\x00\x00\x00\x01")
    _, theirs = pamqp.decode.field_table(encoded)
    assert pamqp.encode.field_table(theirs) == one_field(b"b\x01")
    assert encode_table(decode_table(encoded)[0]) == encoded


def test_pamqp_refuses_a_name_that_is_not_utf8() -> None:
    encoded = table_bytes(b"\x01\xffV")
    with pytest.raises(UnicodeDecodeError):
        pamqp.decode.field_table(encoded)
    assert encode_table(decode_table(encoded)[0]) == encoded


# -- hostile bytes -------------------------------------------------------------------------------------


def decodes_or_violates(data: bytes) -> None:
    try:
        table, end = decode_table(data)
    except ProtocolViolation as violation:
        assert violation.reply_code == 502  # noqa: PT017 - either outcome is right, and each has its check
        return
    assert 4 <= end <= len(data)
    encode_table(table)


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    decodes_or_violates(data)


@given(st.binary(max_size=60))
def test_random_fields(fields: bytes) -> None:
    decodes_or_violates(table_bytes(fields))


@given(strategies.tables, st.data())
def test_mutated_tables(table: Table, data: st.DataObject) -> None:
    encoded = bytearray(encode_table(table))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_violates(bytes(encoded))


@given(strategies.tables, st.data())
def test_every_truncation_is_a_violation(table: Table, data: st.DataObject) -> None:
    encoded = encode_table(table)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ProtocolViolation):
        decode_table(encoded[:cut])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short"),
        (b"\x00\x00\x00\x05\x01kV", "longer than its frame"),
        (b"\x00\x00\x00\x03\x01kB\x01", "overruns its length"),
        (one_field(b"?"), "unknown type '\\?'"),
        (one_field(b"S\xff\xff\xff\xff"), "string that is longer"),
        (one_field(b"A\xff\xff\xff\xff"), "array that is longer"),
        (one_field(b"A\x00\x00\x00\x01B\x01"), "array that overruns"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolViolation, match=words):
        decode_table(data)


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_deep_nesting_is_refused_both_ways(kind: bytes) -> None:
    packed = table_bytes(b"")
    value: FieldValue = {} if kind == b"F" else []
    for _ in range(MAX_DEPTH - 1):
        packed = table_bytes((b"\x01k" if kind == b"F" else b"") + kind + packed)
        value = {"k": value} if kind == b"F" else [value]
    allowed, refused = {"k": value}, {"k": {"k": value} if kind == b"F" else [value]}
    assert decode_table(one_field(kind + packed))[0] == allowed
    assert encode_table(cast("Table", allowed)) == one_field(kind + packed)
    with pytest.raises(ProtocolViolation, match="nested deeper"):
        decode_table(one_field(kind + table_bytes((b"\x01k" if kind == b"F" else b"") + kind + packed)))
    with pytest.raises(UsageError, match="nested deeper"):
        encode_table(cast("Table", refused))


def test_very_deep_nesting_is_a_violation_too() -> None:
    packed = b""
    for _ in range(20_000):
        packed = b"A" + table_bytes(packed)
    with pytest.raises(ProtocolViolation, match="nested deeper"):
        decode_table(one_field(packed))


# -- values that AMQP can't carry ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, 1j, 2**63, -(2**63) - 1, TaggedInt(256, b"B"), TaggedInt(-1, b"T"), Float32(1e300),
        Decimal("1E+999999999"), Decimal("1E-256"), Decimal("NaN"), Decimal("Infinity"), Decimal(2**31),
        datetime(1969, 12, 31, tzinfo=UTC), "\ud800", [object()], {"deep": object()}, {1: "no string"},
        math.nan, math.inf, -math.inf, Float32(math.nan), Float32(math.inf), [1.0, math.nan], {"deep": [math.inf]},
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)  # fmt: skip
def test_values_without_an_amqp_type_raise_a_usage_error(value: object) -> None:
    with pytest.raises(UsageError):
        encode_table({"k": value})  # type: ignore[dict-item] # what is tested


def test_nan_of_other_software_is_read() -> None:
    assert math.isnan(cast("float", the_value(b"d\x7f\xf8\x00\x00\x00\x00\x00\x01")))


def test_the_error_names_the_key() -> None:
    with pytest.raises(UsageError, match="'x-message-ttl'"):
        encode_table({"x-message-ttl": 2**70})


def test_short_strings_end_at_255_bytes() -> None:
    assert encode_short("é" * 127) == b"\xfe" + "é".encode() * 127
    with pytest.raises(UsageError, match="256 bytes"):
        encode_short("é" * 128)
    with pytest.raises(UsageError):
        encode_table({"k" * 256: 1})


def test_integers_have_ten_tags() -> None:
    with pytest.raises(UsageError, match="not a type tag"):
        TaggedInt(1, b"x")
