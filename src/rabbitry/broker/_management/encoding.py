"""Encoding answers as JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

Json = dict[str, object]
_encode: Final = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """Encode an answer or a part of one as JSON. Names that are not UTF-8 (see decode_text) are shown with U+FFFD."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_sayable(value))


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_sayable(key): _sayable(item) for key, item in value.items()}
    return [_sayable(item) for item in value] if isinstance(value, list | tuple) else value
