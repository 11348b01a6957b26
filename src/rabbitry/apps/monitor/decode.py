"""Samples that came over the wire: hostile until parsed here.

`decode` takes any JSON object within limits; `utilization` reads of it what contract `pi_utilization` demands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rabbitry._decode import is_deeper_than, json_decoder
from rabbitry.apps.monitor.statistics import MAX_INTERFACES
from rabbitry.exceptions import RabbitryError, Undecodable

MAX_BODY = 256 * 1024
"""Bytes. A sample of a machine with 100 interfaces and 256 cores has 15 KiB."""
MAX_DEPTH = 32
MAX_RATE = 1e15
"""Bytes a second; more is no measurement."""
MAX_NAME = 255
"""Characters of a name."""
_ROUNDING = 0.05
"""How far a fraction may lie beyond 0..1: kernel counters tick coarsely."""


_decode: Callable[[bytes], object] = json_decoder(object)


class InvalidSample(RabbitryError):
    """A message is not a valid sample. The text says what is wrong, without raw text from the message."""


class Utilization(msgspec.Struct, frozen=True):
    """The values of contract `pi_utilization`, and the problems of interfaces that were skipped."""

    cpu: float
    net: dict[str, tuple[float, float]]
    """Interface → (rx, tx), bytes a second."""
    problems: list[str]
    """One text for each interface that was skipped."""
    machine: str = ""
    """The id of the machine, empty if the sample has none."""


def printable(name: str) -> str:
    """Return a name from the wire for a terminal or a log: shortened, and with control characters escaped."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name[:MAX_NAME])
    return shown if len(name) <= MAX_NAME else f"{shown}…"


def decode(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object.

    Raises:
        InvalidSample: it is too large, too deep, no JSON (NaN and Infinity are none), or no object.
    """
    if len(body) > MAX_BODY:
        raise InvalidSample(f"is too large ({len(body)} bytes, at most {MAX_BODY})")
    try:
        decoded = _decode(body)
    except Undecodable as error:
        raise InvalidSample(f"is no JSON ({printable(str(error))})") from error
    if not isinstance(decoded, dict):
        raise InvalidSample("is JSON, but no object")
    if is_deeper_than(decoded, MAX_DEPTH):
        raise InvalidSample(f"is nested deeper than {MAX_DEPTH} levels")
    return decoded


def utilization(sample: Mapping[str, Any]) -> Utilization:
    """Read `cpu` and `net` of a decoded sample; unknown fields are ignored.

    Raises:
        InvalidSample: `cpu` or `net` is missing or of the wrong kind. An interface whose `rx` or `tx` is
            missing or no rate is skipped, and named in `problems`.
    """
    for field in ("cpu", "net"):
        if field not in sample:
            raise InvalidSample(f"lacks '{field}'")
    cpu = _number(sample["cpu"])
    if cpu is None or not -_ROUNDING <= cpu <= 1 + _ROUNDING:
        raise InvalidSample("has a 'cpu' that is no fraction from 0 to 1")
    interfaces = sample["net"]
    if not isinstance(interfaces, dict):
        raise InvalidSample("has a 'net' that is no object")
    net: dict[str, tuple[float, float]] = {}
    problems: list[str] = []
    for name, rates in interfaces.items():
        if len(net) + len(problems) == MAX_INTERFACES:
            problems.append(f"has more than {MAX_INTERFACES} interfaces; the rest is skipped")
            break
        if len(name) > MAX_NAME:
            problems.append(f"has an interface with a name of more than {MAX_NAME} characters")
            continue
        rx, tx = (_rate(rates, direction) for direction in ("rx", "tx"))
        if rx is None or tx is None:
            missing = "rx" if rx is None else "tx"
            problems.append(f"has interface '{printable(name)}' without a usable '{missing}'")
        else:
            net[name] = rx, tx
    machine = sample.get("machine")
    return Utilization(min(max(cpu, 0.0), 1.0), net, problems, machine[:MAX_NAME] if isinstance(machine, str) else "")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # msgspec lets no NaN, no infinity and no number beyond 1e308 through, but integers of any length.
    return float(value) if abs(value) <= MAX_RATE else None


def _rate(rates: object, direction: str) -> float | None:
    value = _number(rates.get(direction)) if isinstance(rates, dict) else None
    return value if value is not None and value >= 0 else None
