"""What the dashboard's server reads of a message: whose it is, and the four numbers that it keeps a history of.

Everything else is read by the page itself, from the JSON as it came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rabbitry._decode import decode_text
from rabbitry.apps.monitor.decode import decode

NAME_LIMIT = 255
"""Letters of a host's name; longer ones are cut (RFC 1035, section 2.3.4, allows 255)."""

Values = tuple[float | None, float | None, float | None, float | None]
VALUE_NAMES = ("cpu", "memory", "rx", "tx")
"""What a history is kept of: two percentages, and bytes a second over all interfaces but `lo`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One message: the host it is about, the JSON as it came, and the values for the charts."""

    host: str
    raw: str
    values: Values


def read(body: bytes, routing_key: str) -> Reading:
    """Read a message that came with `routing_key`.

    A host is named by the field `hostname`; where there is none, by the routing key. Fields of another type
    than expected are left out of the values, never an error: the page shows the JSON all the same.

    Raises:
        InvalidSample: it is no JSON object, too large, or nested too deeply.
    """
    data = decode(body)
    name = data.get("hostname")
    if not isinstance(name, str) or not name.strip():
        name = routing_key or "(unnamed host)"
    rx, tx = _network(data.get("net"))
    return Reading(name[:NAME_LIMIT], decode_text(body), (_cpu(data), _memory(data), rx, tx))


def _cpu(data: dict[str, Any]) -> float | None:
    busy = _number(data.get("cpu"))
    return _number(data.get("cpu_percent")) if busy is None else round(busy * 100, 2)


def _memory(data: dict[str, Any]) -> float | None:
    memory = data.get("memory")
    return _number(memory.get("percent")) if isinstance(memory, dict) else None


def _network(net: object) -> tuple[float | None, float | None]:
    if not isinstance(net, dict):
        return None, None
    rates = [
        (_number(rate.get("rx")), _number(rate.get("tx")))
        for name, rate in net.items()
        if name != "lo" and isinstance(rate, dict)
    ]
    if not rates:
        return None, None
    return math.fsum(rx or 0.0 for rx, _ in rates), math.fsum(tx or 0.0 for _, tx in rates)


def _number(value: object) -> float | None:
    """`value` where it is a finite number that is no bool, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
