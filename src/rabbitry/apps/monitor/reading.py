"""Reading a message for the dashboard: its machine, and the four numbers that the server keeps a history of.

The page itself reads everything else from the JSON as it came.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rabbitry._decode import decode_text
from rabbitry.apps.monitor.decode import decode, printable
from rabbitry.apps.monitor.interfaces import by_name

Values = tuple[float | None, float | None, float | None, float | None]
"""A host's history: CPU and memory in percent, then bytes a second received and sent by its own interfaces."""
UNNAMED = "(unnamed host)"
_LONGEST_TIMESTAMP = 64
_ROUNDING = 5.0
"""Percent points by which a share may miss 0 or 100, as in monitor/decode.py."""


@dataclass(frozen=True, slots=True)
class Source:
    """The machine that a message is about. Names are shortened, and fit to be shown.

    Machines of one name differ by their ids, or by the routing keys that somebody gave them.
    """

    id: str
    """Hexadecimal digits, so that no name from the wire is ever the key of anything."""
    host: str
    key: str
    machine: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One message: the machine it is about, the JSON as it came, and the values for the charts."""

    source: Source
    raw: str
    values: Values
    disk: float | None
    """Percent of the fullest file system."""
    timestamp: float | None
    """When it was measured by the machine's own clock, in Unix seconds; None if it does not say."""


def read(body: bytes, routing_key: str) -> Reading:
    """Read a message that came with `routing_key`.

    A host is named by the field `hostname`; if there is none, by the routing key. Fields of another type
    than expected are left out of the values, never an error: the page shows the JSON all the same.

    Raises:
        InvalidSample: it is no JSON object, too large, or nested too deeply.
    """
    data = decode(body)
    name, machine = data.get("hostname"), data.get("machine")
    if not isinstance(name, str) or not name.strip():
        name = routing_key if routing_key.strip() else UNNAMED
    rx, tx = _network(data.get("net"), data.get("uplinks"))
    return Reading(
        source(name, machine if isinstance(machine, str) else "", routing_key),
        decode_text(body),
        (_cpu(data), _memory(data), rx, tx),
        _fullest(data.get("disk"), data.get("filesystems")),
        _timestamp(data.get("timestamp")),
    )


def source(host: str, machine: str, routing_key: str) -> Source:
    """Return the machine that a host name, the machine's id and a routing key stand for."""
    whole = json.dumps([host, machine, routing_key]).encode()  # ASCII, also of what is no Unicode
    digest = hashlib.blake2b(whole, digest_size=8).hexdigest()
    return Source(digest, printable(host), printable(routing_key), printable(machine))


def _cpu(data: dict[str, Any]) -> float | None:
    busy = _number(data.get("cpu"))
    percent = None if busy is None else _portion(busy * 100)
    return _portion(data.get("cpu_percent")) if percent is None else round(percent, 2)


def _memory(data: dict[str, Any]) -> float | None:
    memory = data.get("memory")
    return _portion(memory.get("percent")) if isinstance(memory, dict) else None


def _fullest(disk: object, filesystems: object) -> float | None:
    spaces = [disk, *(filesystems.values() if isinstance(filesystems, dict) else ())]
    found = [_portion(space.get("percent")) for space in spaces if isinstance(space, dict)]
    return max((percent for percent in found if percent is not None), default=None)


def _network(net: object, uplinks: object) -> tuple[float | None, float | None]:
    """Sum the traffic of the machine's own interfaces: those that the sample names, else the network cards."""
    if not isinstance(net, dict):
        return None, None
    rates = {
        name: (_rate(rate.get("rx")), _rate(rate.get("tx"))) for name, rate in net.items() if isinstance(rate, dict)
    }
    named = [name for name in uplinks if isinstance(name, str) and name in rates] if isinstance(uplinks, list) else []
    own = set(named) or set(by_name({name: sum(rate) for name, rate in rates.items()}))
    if not own:
        return None, None
    rx, tx = (sum(rates[name][direction] for name in own) for direction in (0, 1))
    return _number(rx), _number(tx)


def _timestamp(text: object) -> float | None:
    if not isinstance(text, str) or len(text) > _LONGEST_TIMESTAMP:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo is not None else None  # without a zone it may mean any hour
    except ValueError:
        return None


def _rate(value: object) -> float:
    """Return `value` if it is a number of bytes a second, else 0."""
    return max(_number(value) or 0.0, 0.0)


def _portion(value: object) -> float | None:
    """Return `value` if it is a percentage from 0 to 100, but for what rounding makes of one; else None."""
    percent = _number(value)
    if percent is None or not -_ROUNDING <= percent <= 100 + _ROUNDING:
        return None
    return min(max(percent, 0.0), 100.0)


def _number(value: object) -> float | None:
    """Return `value` if it is a finite number and not a bool, or else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
