"""The topology from the nodes' own reports, for brokers without a management API. Without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rabbitry.telemetry import Wiring
from rabbitry.web.sources.nodes import NodeState
from rabbitry.web.sources.topology import Edge, Node, limited

BY = "telemetry"
"""The member `by` of a topology that was made from reports."""
_TO = "to."
"""The prefix of counters that count results by routing key."""


def reported(nodes: Iterable[NodeState], vhost: str) -> dict[str, Any]:
    """Return the topology: workers, the queues of their stages, and the exchanges that their results go to.

    It has the members that `Topology.update` describes, and `by`. Figures that reports do not have are None: the rate
    of publishes to a queue (`rate`) and the messages ready in it (`ready`).

    Args:
        nodes: The nodes that live.
        vhost: The virtual host whose broker they report to.
    """
    things: dict[str, Node] = {}
    edges: dict[str, Edge] = {}
    for state in nodes:
        report, rates = state.report, state.rates()
        moved = round(state.moved) or None
        taken = rates.get("received", rates.get("done", 0.0))
        worker = f"{report.host}/{report.app} {report.id}"
        name = f"{report.app} {report.id}"
        consumer = f"c:{worker}"
        base = {"name": name, "vhost": vhost, "host": report.host, "app": report.app}
        _add(things, consumer, {"kind": "consumer", **base}, taken, moved)
        if (wiring := report.wiring) is None:
            continue
        queue = _add_queue(things, wiring, vhost, report.app, moved)
        things[queue]["out"] = round(things[queue]["out"] + taken, 1)
        things[queue]["unacked"] += round(report.gauges.get("in_hand", 0))
        things[queue]["consumers"] += 1
        _flow(edges, queue, consumer, taken, [])
        exchange = _add_exchange(things, wiring.exchange, vhost, report.app)
        # Reports do not have the share of its messages that came through the exchange.
        _flow(edges, exchange, queue, None if things[queue]["out"] else 0.0, [wiring.key])
        for counter, rate in rates.items():
            if not counter.startswith(_TO):
                continue
            key = counter.removeprefix(_TO)
            target = _add_exchange(things, wiring.other.get(key, wiring.to), vhost, report.app)
            if rate:
                _add(things, target, {}, rate, moved)
            publisher = f"p:{worker}"
            _add(things, publisher, {"kind": "publisher", **base}, rate, moved)
            _flow(edges, publisher, target, rate, [key])
    return limited(things, edges) | {"by": BY}


def _add(things: dict[str, Node], key: str, base: Node, rate: float, moved: float | None) -> None:
    thing = things.setdefault(key, {**base, "rate": 0.0, "at": None})
    thing["rate"] = round(thing["rate"] + rate, 1)
    _move(thing, moved)


def _add_exchange(things: dict[str, Node], name: str, vhost: str, app: str) -> str:
    key = f"x:{vhost}/{name}"
    base = {"kind": "exchange", "name": name, "vhost": vhost, "host": "", "app": app, "type": "", "helper": False}
    things.setdefault(key, {**base, "rate": 0.0, "out": None, "at": None})
    return key


def _add_queue(things: dict[str, Node], wiring: Wiring, vhost: str, app: str, moved: float | None) -> str:
    key = f"q:{vhost}/{wiring.queue}"
    base = {"kind": "queue", "name": wiring.queue, "vhost": vhost, "host": "", "app": app, "type": "", "helper": False}
    figures = {"rate": None, "out": 0.0, "ready": None, "unacked": 0, "consumers": 0, "at": None}
    _move(things.setdefault(key, {**base, **figures}), moved)
    return key


def _move(thing: Node, moved: float | None) -> None:
    if moved is not None:
        thing["at"] = max(thing["at"] or 0, moved)


def _flow(edges: dict[str, Edge], source: str, target: str, rate: float | None, keys: list[str]) -> None:
    edge = edges.setdefault(f"e:{source}>{target}", {"from": source, "to": target, "rate": 0.0, "keys": []})
    edge["rate"] = None if rate is None or edge["rate"] is None else round(edge["rate"] + rate, 1)
    edge["keys"] = sorted({*edge["keys"], *keys})[:5]
