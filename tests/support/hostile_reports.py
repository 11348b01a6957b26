"""Reports of nodes as nobody honest publishes them, though anybody who may publish can."""

import json
import time
from collections.abc import Iterator
from typing import Any

NAMES = (
    "constructor", "__proto__", "toString", "", ".", "..", "a/b", "<img src=x onerror=alert(1)>", "\u0000\u202eb",
    "\u20ac" * 400,
)  # fmt: skip
"""Names that objects of scripts have by themselves, that paths have, and that are no text for people."""
_DEPTHS = (10, 63, 64, 65, 500, *range(940, 1001))
"""Levels of nesting: around the bound for them, and around those beyond which nothing can be decoded."""


def hostile_reports() -> Iterator[bytes]:
    """Yield bodies of messages to the exchange of reports."""
    yield from (b"", b"\xff", b"[]", b"null", b"{", b'{"kind": NaN}', b"[" * 100_000, b'{"kind": "start"}')
    yield from named_reports()
    wrong_values: tuple[Any, ...] = (None, "x", -1, 1.5, [], {}, [[]], {"a": {"b": 1}}, True, "NaN", 10**400)
    for wrong in wrong_values:
        for member in _report("x", 0):
            yield _encoded(_report("x", 0) | {member: wrong})
    for depth in _DEPTHS:
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        for kept in (b"document", b"takes"):
            yield _encoded(_report("deep", depth))[:-1] + b', "%b": %b}' % (kept, deep)
    yield _encoded(_report("long", 0) | {"takes": {"description": "x" * 900_000}})
    yield _encoded(_report("many", 0) | {"counters": {f"to.{number}": number for number in range(5000)}})
    for number in range(40):
        yield _encoded(_report(f"app{number % 7}", number) | {"role": f"stage{number}"})


def named_reports() -> Iterator[bytes]:
    """Yield the reports of a node of each of NAMES, which go on while they are repeated."""
    for number, name in enumerate(NAMES):
        yield _encoded(_report(name, number))
        yield _encoded(_report(name, number) | {"at": 1e12, "counters": {"done": 9, f"to.{name}": 10**30}})


def _report(name: str, number: int) -> dict[str, Any]:
    """Return a report in which everything that may have a name has this one, and every number is a wrong one."""
    now = time.time()
    return {
        "kind": "heartbeat", "app": name, "role": name, "id": name, "host": name, "pid": 10**30, "at": now,
        "started": -1e300 if number % 2 else 1e300,
        "counters": {name: 10**30, "done": -5, "received": 1 << 62, f"to.{name}": 1 << 62},
        "gauges": {"in_hand": 1e308, "slots": -1e308, name: -1.0},
        "histograms": {"handling": [10**300] * 100, name: [-1]},
        "passages": [[name, name, 1e300, [name], f"{name}!", -1e300, -1.0, -(10**30), [name], name, name, 1e300, name]],
        "share": 1e-308, "missed": 10**300,
        "wiring": {"exchange": name, "key": "#." * 60 + "#", "queue": name, "to": name, "other": {name: name}},
        "declares": {
            "exchanges": [{"name": name, "type": name}],
            "queues": [{"name": name, "arguments": {name: 10**300, "x": "y" * 10_000}}],
            "bindings": [{"exchange": name, "queue": name, "key": name}] * 100,
        },
        "schedule": {"when": name, "missed": name, "next": 1e300, "fired": [[1e300, -1e300, name]] * 100},
        "limits": {"rate": name, "tokens": name, "slots": 10**30},
    }  # fmt: skip


def _encoded(report: dict[str, Any]) -> bytes:
    return json.dumps(report).encode()
