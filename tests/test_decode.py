"""Input from outside, wrong in every way that is known, ends in one kind of error."""

import codecs
import struct
from collections.abc import Callable

import msgspec
import pytest

from rabbitry._decode import (
    MAX_DEPTH,
    decode_json,
    decode_object,
    decode_text,
    decode_toml,
    flattened,
    is_deeper_than,
)
from rabbitry.exceptions import Undecodable
from rabbitry.flow.codec import Codec
from rabbitry.telemetry import decode_report


class Named(msgspec.Struct):
    """A type with one field."""

    name: str


NO_JSON = [
    (b"", "truncated"),
    (b"hello", "malformed"),
    (b'{"name": "x"', "truncated"),
    (b'{"name": "x",}', "trailing comma"),
    (b'{"name": "x"} x', "trailing"),
    (b'{"name": "caf\xe9"}', "not UTF-8 text: byte 0xe9"),
    (b'{"name": "\xed\xa0\x80"}', "not UTF-8 text"),
    (b'{"name": "\xc0\x80"}', "not UTF-8 text"),
    (b'{"name": "\\ud800"}', "half of a surrogate pair"),
    (b'{"name": "\\udc00x"}', "."),
    (b'{"name": "\\ud800\\ud800"}', "."),
    (b'{"name": "a\nb"}', "invalid character"),
    (b'{"name": NaN}', "."),
    (b'{"name": -Infinity}', "."),
    (b'{"name": ' + b"[" * 100_000, "."),
    (b'{"name": ' + b'{"a":' * 100_000, "."),
    (b"\x00" * 8, "invalid character"),
    ('{"name": "x"}'.encode("utf-16"), "invalid character"),
    (codecs.BOM_UTF8, "truncated"),
    (codecs.BOM_UTF8 + b'{"name": "\xff"}', "not UTF-8 text"),
    (codecs.BOM_UTF8 * 2 + b'{"name": "x"}', "invalid character"),
    (struct.pack(">I", 12) + b'{"name":"x"}', "invalid character"),
    (b"[]", "Expected `object`"),
    (b'"name"', "Expected `object`"),
    (b"null", "Expected `object`"),
    (b"1" * 50, "Expected `object`"),
]


@pytest.mark.parametrize(("body", "why"), NO_JSON, ids=range(len(NO_JSON)))
def test_an_object_of_another_type_is_undecodable(body: bytes, why: str) -> None:
    with pytest.raises(Undecodable, match=why) as raised:
        decode_json(body, Named)
    assert "\n" not in str(raised.value)


DEEP_OR_LARGE = [b'{"name": ' + b"[" * 100_000, b'{"name": 1e999}', b'{"name": ' + b"9" * 5000 + b"}"]
DECODERS: list[Callable[[bytes], object]] = [decode_object, Codec(dict).decode, Codec(object).decode, decode_report]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("body", [*(body for body, _ in NO_JSON[:13]), *DEEP_OR_LARGE], ids=range(16))
def test_every_decoder_raises_the_same_error(decode: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(body)


def test_a_byte_order_mark_is_skipped() -> None:
    body = codecs.BOM_UTF8 + b'{"name": "caf\xc3\xa9"}'
    assert decode_json(body, Named) == Named("café")
    assert decode_object(body) == {"name": "café"}
    assert Codec(Named).decode(body) == Named("café")
    assert decode_text(body).startswith("{")
    assert decode_toml(codecs.BOM_UTF8 + b'a = "x"\r\n') == {"a": "x"}


def test_the_last_of_equal_keys_counts_and_large_integers_are_kept() -> None:
    assert decode_object(b'{"status": "confirmed", "status": "submitted"}') == {"status": "submitted"}
    large = 10**400
    assert msgspec.json.encode(decode_object(b'{"a": %d}' % large)) == b'{"a":%d}' % large


@pytest.mark.parametrize(
    "document", [b"a = ", b"a = '\xff'", b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000, b"\xff\xfea\x00"]
)
def test_invalid_toml_is_undecodable(document: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_toml(document)


def test_invalid_text_is_not_shown() -> None:
    with pytest.raises(Undecodable) as raised:
        decode_text(b"secret\xff")
    assert str(raised.value) == "not UTF-8 text: byte 0xff at position 6"


def test_depth_is_measured_over_lists_and_objects() -> None:
    deep: object = 1
    for level in range(5):
        deep = [deep] if level % 2 else {"a": deep}
    assert is_deeper_than(deep, 4)
    assert not is_deeper_than(deep, 5)
    assert not is_deeper_than("text", 0)


@pytest.mark.parametrize("levels", [0, 1, 61, 62, 63, 64, 10_000])
def test_what_is_nested_too_deeply_is_left_out_and_all_else_stays(levels: int) -> None:
    body = b'[{"a": "[{\\"}]\\\\", "b": %b"c"%b, "d": [[1], {"e": 2}]}, 3]' % (b"[" * levels, b"]" * levels)
    found = decode_json(flattened(body), list[object])
    assert not is_deeper_than(found, MAX_DEPTH)
    first = found[0]
    assert isinstance(first, dict)
    assert (first["a"], first["d"], found[1]) == ('[{"}]\\', [[1], {"e": 2}], 3)
    if levels <= MAX_DEPTH - 2:
        assert found == decode_json(body, list[object])
    else:
        assert flattened(body).count(b"null") == 1
