"""What the objects of a management API hold, whatever they lack: texts, numbers, rates, features."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from rabbitry.apps.management import part_of

Object: TypeAlias = Mapping[str, Any]

_ARGUMENTS: Final = {
    "x-message-ttl": "TTL",
    "x-expires": "Exp",
    "x-max-length": "Lim",
    "x-max-length-bytes": "LimB",
    "x-overflow": "Ovfl",
    "x-dead-letter-exchange": "DLX",
    "x-dead-letter-routing-key": "DLK",
    "x-max-priority": "Pri",
    "x-single-active-consumer": "SAC",
    "x-queue-mode": "Lazy",
    "x-delivery-limit": "DL",
}
"""The short names of arguments, as RabbitMQ's own page has them."""


def features(thing: Object) -> str:
    """Return the flags and arguments of a queue or exchange in short: `D` for durable, `TTL`, `DLX` and so on."""
    flags = (("durable", "D"), ("auto_delete", "AD"), ("exclusive", "Excl"), ("internal", "I"))
    found = [short for name, short in flags if thing.get(name) is True]
    arguments = part_of(thing, "arguments")
    found += [short for name, short in _ARGUMENTS.items() if name in arguments]
    if arguments.keys() - _ARGUMENTS.keys() - {"x-queue-type"}:
        found.append("Args")
    return " ".join(found)


def rate(stats: Object, name: str) -> float:
    """Return a rate of `message_stats`, in messages a second."""
    return round(number(part_of(stats, f"{name}_details").get("rate")), 1)


def text(value: object) -> str:
    """Return a text; what is none (RabbitMQ writes null and "undefined") is empty."""
    return value if isinstance(value, str) and value != "undefined" else ""


def number(value: object) -> float:
    """Return a number; what is none, or can't be written as JSON, is 0."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    return value if abs(value) <= sys.float_info.max else 0  # false for NaN, and for integers that no double can hold
