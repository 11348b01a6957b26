"""Values as Erlang prints them: RabbitMQ's error texts contain them, and programs match on these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol.tables import FieldValue, encode_timestamp, erlang_binary, erlang_characters, type_name

_LONGEST_TIMER: Final = 10 * 365 * 86_400_000
"""The longest timer that RabbitMQ accepts, in milliseconds: ten years."""


def erlang_term(value: FieldValue) -> str:
    """Return a value as Erlang's ~p prints it, on one line."""
    match value:
        case None:
            return "undefined"
        case bool():
            return str(value).lower()
        case float():
            return _float(value)
        case Decimal():
            sign, digits, scale = value.as_tuple()
            number = int("".join(map(str, digits)))
            return f"{{{-int(scale)},{-number if sign else number}}}"
        case datetime():
            return str(encode_timestamp(value))
        case str() | bytes():
            return erlang_binary(value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)
        case Mapping():
            items = (f"{{{erlang_term(key)},{type_name(item)},{erlang_term(item)}}}" for key, item in value.items())
            return f"[{','.join(items)}]"
        case Sequence():
            return f"[{','.join(f'{{{type_name(item)},{erlang_term(item)}}}' for item in value)}]"
    return str(value)


def erlang_json(value: object) -> str:
    """Return a JSON value as Erlang's ~p prints it, on one line: objects are maps, and text is Latin-1 to Erlang."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return _float(value)
        case str():
            return _binary(value)
        case Mapping():
            return f"#{{{','.join(f'{_binary(str(key))} => {erlang_json(item)}' for key, item in value.items())}}}"
        case Sequence():
            if value and all(type(item) is int and 0 <= item < 256 for item in value):
                return erlang_string(bytes(value))  # a list of characters to Erlang
            return f"[{','.join(map(erlang_json, value))}]"
    return str(value)


def erlang_string(data: bytes) -> str:
    """Return a list of bytes as Erlang's ~p prints it: as text if all are printable in Latin-1, else as numbers."""
    text = erlang_characters(data)
    return f"[{','.join(map(str, data))}]" if text is None else f'"{text}"'


def _binary(text: str) -> str:
    return erlang_binary(text.encode("utf-8", "surrogateescape"))


def _float(value: float) -> str:
    """Return a float as Erlang prints it: the fewest digits, and an exponent if that is shorter."""
    sign, digit_tuple, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, digit_tuple)).rstrip("0") or "0"
    point = len(digit_tuple) + int(exponent)  # its position in the digits
    minus = "-" if sign else ""
    if digits == "0":
        return f"{minus}0.0"
    scientific = f"{digits[0]}.{digits[1:] or '0'}e{point - 1}"
    if 0 < point < len(digits):
        return f"{minus}{digits[:point]}.{digits[point:]}"
    plain = f"0.{'0' * -point}{digits}" if point <= 0 else f"{digits}{'0' * (point - len(digits))}.0"
    return minus + (plain if point == 0 or len(plain) <= len(scientific) else scientific)


def check_timer(number: int) -> str | None:
    """Return RabbitMQ's error for a time in milliseconds, None if it is valid."""
    if number < 0:
        return f"{{value_negative,{number}}}"
    if number > _LONGEST_TIMER:
        return f"{{value_too_large,{number}}}"
    return None
