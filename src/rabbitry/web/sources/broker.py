"""The broker as a whole, from its management API's overview and nodes: the topic `broker`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rabbitry.apps.management import part_of
from rabbitry.web.sources.fields import Object, number, rate, text

_RATES: Final = ("publish", "confirm", "deliver_get", "ack", "redeliver", "return_unroutable", "drop_unroutable")
_OWN: Final = "Rabbitry "
"""How the platform of Rabbitry's own broker begins."""


def is_own(overview: Object) -> bool:
    """Return whether a broker is Rabbitry's own."""
    return text(overview.get("erlang_full_version")).startswith(_OWN)


def broker_value(overview: Object, nodes: Sequence[Object]) -> dict[str, Any]:
    """Return what pages show of the broker.

    Members: `product`, `version`, `embedded`, `platform`, `cluster`, `node`, `totals` (queues, exchanges, connections,
    channels, consumers), `messages` (messages, ready, unacked), `rates` (messages a second, by RabbitMQ's names),
    `alarms` (what and on which node), `nodes`.
    """
    platform = text(overview.get("erlang_full_version"))
    embedded = is_own(overview)
    queued, totals = part_of(overview, "queue_totals"), part_of(overview, "object_totals")
    stats = part_of(overview, "message_stats")
    return {
        "product": "Rabbitry" if embedded else text(overview.get("product_name")) or "RabbitMQ",
        "version": platform.split(" ")[1] if embedded else text(overview.get("rabbitmq_version")),
        "embedded": embedded,
        "platform": platform,
        "cluster": text(overview.get("cluster_name")),
        "node": text(overview.get("node")),
        "totals": {
            name: number(totals.get(name)) for name in ("queues", "exchanges", "connections", "channels", "consumers")
        },
        "messages": {
            "messages": number(queued.get("messages")),
            "ready": number(queued.get("messages_ready")),
            "unacked": number(queued.get("messages_unacknowledged")),
        },
        "rates": {name: rate(stats, name) for name in _RATES},
        "alarms": [
            {"node": text(node.get("name")), "what": what}
            for node in nodes
            for what in ("memory", "disk")
            if node.get("mem_alarm" if what == "memory" else "disk_free_alarm") is True
        ],
        "nodes": [_node(node) for node in nodes],
    }


def _node(node: Object) -> dict[str, Any]:
    numbers = ("uptime", "mem_used", "mem_limit", "disk_free", "disk_free_limit", "fd_used", "fd_total")
    return {"name": text(node.get("name")), "running": node.get("running") is True} | {
        name: number(node.get(name)) for name in numbers
    }
