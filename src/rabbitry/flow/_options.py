"""The options of a stage: each is checked when the stage is declared, and an error names it."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.exceptions import UsageError
from rabbitry.flow._rate import MOST, parse_rate
from rabbitry.flow.exceptions import AppError

MOST_VERSION: Final = (1 << 31) - 1
MOST_TOTAL: Final = 100
"""The most calls at once of all workers together: each has a queue."""
MOST_OF_KEY: Final = 10
"""The most calls at once of one key: each has a queue."""
MOST_UNACKED: Final = 65_535
"""The largest prefetch (AMQP 0-9-1, basic.qos), and so the largest batch."""
MOST_BATCH_BYTES: Final = 4 << 20
"""The most bytes of the bodies of a batch, and the default: half of what a consumer has in hand (`worker/_window.py`),
so that the next batch gathers meanwhile."""
_MOST_PRIORITIES: Final = 255
_NOT_GIVEN: Final = ("x-queue-type", "x-single-active-consumer", "x-delivery-limit")
"""Arguments that App(queue_type=…) and single_active=… stand for."""
_MEANT: Final = {"retry": "attempts", "retries": "attempts", "max_retries": "attempts", "timeout": "time_limit"}
"""Names that other libraries have for an option."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_name(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        encode_short(value)
    except UsageError:
        return False
    return True


def _are_delays(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(_is_number(delay) and delay >= 0 for delay in value)
    )


def _are_arguments(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and name not in _NOT_GIVEN and isinstance(item, str | int | float)
        for name, item in value.items()
    )


def _optional(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_rate(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(parse_rate(value))
    except ValueError:
        return False


def _is_key_function(value: object) -> bool:
    """Return whether a value can be called for a key. What an `async def` returns is a new key each time."""
    return callable(value) and not inspect.iscoroutinefunction(value)


_Rule = tuple[Callable[[object], bool], str]
_NAME: Final[_Rule] = (_optional(lambda value: bool(value) and _is_name(value)), "a name of 1 to 255 bytes, or None")
_FLAG: Final[_Rule] = (_is_flag, "True or False")
_RATE: Final[_Rule] = (
    _optional(_is_rate),
    f"messages in a time, such as '10/s', '100/m', '5000/h' or '1/d', at most {MOST:g}/s, or None",
)
_RULES: Final[Mapping[str, _Rule]] = {
    "key": (_is_name, "a string of at most 255 bytes"),
    "queue": _NAME,
    "then": (
        _optional(lambda value: callable(value) or _is_name(value)),
        "a key, a function that returns one, or None",
    ),
    "name": _NAME,
    "processes": _FLAG,
    "batch": (
        _optional(lambda value: _is_count(value) and value <= MOST_UNACKED),  # type: ignore[operator] # a count
        f"a number of messages, 1 to {MOST_UNACKED}, or None",
    ),
    "within": (_optional(lambda value: _is_number(value) and value >= 0), "seconds, not negative, or None"),  # type: ignore[operator] # a number
    "batch_bytes": (
        _optional(lambda value: _is_count(value) and value <= MOST_BATCH_BYTES),  # type: ignore[operator] # a count
        f"bytes, 1 to {MOST_BATCH_BYTES}, or None",
    ),
    "attempts": (_is_count, "a positive whole number"),
    "delays": (_are_delays, "a list of seconds, not negative"),
    "time_limit": (lambda value: _is_number(value) and value > 0, "positive seconds"),  # type: ignore[operator] # a number
    "concurrency": (_optional(_is_count), "a positive whole number, or None"),
    "total_concurrency": (
        _optional(lambda value: _is_count(value) and value <= MOST_TOTAL),  # type: ignore[operator] # a count
        f"a number of calls, 1 to {MOST_TOTAL}, or None",
    ),
    "rate": _RATE,
    "rate_each": _RATE,
    "concurrency_each": (
        _optional(lambda value: _is_count(value) and value <= MOST_OF_KEY),  # type: ignore[operator] # a count
        f"a number of calls, 1 to {MOST_OF_KEY}, or None",
    ),
    "limit_by": (_optional(_is_key_function), "a function of the value, no `async def`, or None"),
    "keep_unknown": _FLAG,
    "exchange": _NAME,
    "single_active": _FLAG,
    "replies": _FLAG,
    "jitter": (lambda value: _is_number(value) and 0 <= value <= 1, "0 to 1, a share of the delay"),  # type: ignore[operator] # a number
    "uncounted": (lambda value: value == 0 or _is_count(value), "a whole number, not negative"),
    "queue_arguments": (
        _optional(_are_arguments),
        f"arguments of a queue by name, none of {', '.join(_NOT_GIVEN)}, or None",
    ),
    "idempotent": (
        lambda value: isinstance(value, bool) or _is_key_function(value),
        "True, or a function of the value, no `async def`",
    ),
    "priorities": (_optional(lambda value: _is_count(value) and value <= _MOST_PRIORITIES), "1 to 255, or None"),  # type: ignore[operator] # a count
}


_OF_OTHERS: Final[Mapping[str, _Rule]] = {
    "version": (lambda value: _is_count(value) and value <= MOST_VERSION, f"a whole number, 1 to {MOST_VERSION}"),  # type: ignore[operator] # a count
    "of": (lambda value: bool(value) and _is_name(value), "the name of a stage"),
    "late": (lambda value: value in ("dead", "join"), "'dead' or 'join'"),
    "store": (_optional(lambda value: isinstance(value, str)), "the URL of a database, or None"),
}
"""Options that stages do not have: those of joins, and of keys."""


def check_options(what: str, options: Mapping[str, object], unknown: Iterable[str]) -> None:
    """Raise AppError for an option that is unknown or has a wrong value. what: the stage in words."""
    for name in unknown:
        close = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, _RULES, 1)
        hint = f"; did you mean {close[0]}=?" if close else ""
        raise AppError(f"{what}: unknown option {name}={hint or ''}" + f" (options are {', '.join(_RULES)})")
    for name, value in options.items():
        check, words = _RULES.get(name) or _OF_OTHERS[name]
        if not check(value):
            raise AppError(f"{what}: {name}={value!r}: must be {words}")
