"""Decoding input from outside: bodies of messages, HTTP requests and responses, files that people wrote.

Every error in such input is an `Undecodable` with one line of text: invalid JSON, a type other than expected, invalid
UTF-8, half of a surrogate pair, a number out of range, NaN (which JSON does not have), nesting beyond the stack. A
UTF-8 byte order mark at the beginning is skipped (RFC 8259, section 8.1). Of equal keys the last one counts.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from rabbitry.exceptions import Undecodable

T = TypeVar("T")

MAX_DEPTH: Final = 64
"""Levels of nesting beyond which data can't safely be printed or encoded again on a deeper stack."""
_BOM: Final = codecs.BOM_UTF8
_HALF_PAIR: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}]', re.DOTALL)
_WRONG: Final = (ValueError, RecursionError, OverflowError)
"""What decoders raise: msgspec.DecodeError, UnicodeDecodeError and TOMLDecodeError are ValueErrors."""


def json_decoder(
    type_: type[T], dec_hook: Callable[[type, Any], Any] | None = None
) -> Callable[[bytes | bytearray | memoryview], T]:
    """Make a function that decodes JSON to a type, as `msgspec.json.Decoder` does, and raises Undecodable alone.

    It costs no more than msgspec's decoder if the input is good.
    """
    decoder = msgspec.json.Decoder(type_, dec_hook=dec_hook)

    def decode(body: bytes | bytearray | memoryview) -> T:
        try:
            return decoder.decode(body)
        except _WRONG as error:
            if bytes(body[:3]) != _BOM:
                raise Undecodable(_why(error, body)) from error
        try:
            return decoder.decode(body[3:])
        except _WRONG as error:
            raise Undecodable(_why(error, body)) from error

    return decode


def decode_json(body: bytes, type_: type[T]) -> T:
    """Decode JSON to a type. Raises Undecodable."""
    return json_decoder(type_)(body)


decode_object: Final = json_decoder(dict[str, Any])
"""Decode a JSON object. Raises Undecodable."""


def flattened(body: bytes) -> bytes:
    """Return JSON without what is nested deeper than MAX_DEPTH, which becomes null. It may have any depth."""
    parts: list[bytes] = []
    depth = start = 0
    for found in _STRING_OR_BRACKET.finditer(body):
        if found[0] in (b"[", b"{"):
            depth += 1
            if depth == MAX_DEPTH + 1:
                parts += (body[start : found.start()], b"null")
        elif found[0] in (b"]", b"}"):
            depth -= 1
            if depth == MAX_DEPTH:
                start = found.end()
    return b"".join((*parts, body[start:]))


def decode_text(body: bytes) -> str:
    """Decode UTF-8 text. Raises Undecodable, which shows nothing of the text: it may be a password's file."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Undecodable(_why(error, b"")) from error


def decode_toml(body: bytes) -> dict[str, Any]:
    """Decode a TOML document. Raises Undecodable."""
    import tomllib  # costs each start of a program; few read TOML

    text = decode_text(body)
    try:
        return tomllib.loads(text)
    except _WRONG as error:
        raise Undecodable(_why(error, b"")) from error


def is_deeper_than(value: object, levels: int) -> bool:
    """Return whether lists and objects are nested deeper than `levels`; the walk itself goes no deeper."""
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return levels == 0 or any(is_deeper_than(item, levels - 1) for item in inner)


def _why(error: Exception, body: bytes | bytearray | memoryview) -> str:
    if isinstance(error, RecursionError):
        return "nested deeper than can be decoded"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: byte 0x{error.object[error.start]:02x} at position {error.start}"
    if isinstance(error, msgspec.DecodeError) and "truncated" in str(error) and _HALF_PAIR.search(body):
        return f"{error}, or holds half of a surrogate pair"  # msgspec does not tell these two apart
    return str(error)
