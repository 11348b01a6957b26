"""Rows of the broker's tables, read from objects of a management API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from rabbitry.web.feed.tables import Column, Row

Object: TypeAlias = Mapping[str, Any]

QUEUES: Final = (
    Column("vhost"),
    Column("name"),
    Column("type"),
    Column("features"),
    Column("policy"),
    Column("state"),
    Column("ready", "number"),
    Column("unacked", "number"),
    Column("messages", "number"),
    Column("consumers", "number"),
    Column("bytes", "number"),
    Column("incoming", "number"),
    Column("delivered", "number"),
    Column("acked", "number"),
)
"""The columns of the table `queues`: `incoming`, `delivered` and `acked` are messages a second."""
QUEUE_FIELDS: Final = (
    "vhost,name,type,durable,auto_delete,exclusive,arguments,policy,state,messages,messages_ready,"
    "messages_unacknowledged,consumers,message_bytes,message_stats.publish_details.rate,"
    "message_stats.deliver_get_details.rate,message_stats.ack_details.rate"
)
"""The fields of a queue that a row needs."""
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


def queue_row(queue: Object) -> Row:
    """Return a queue as a row of QUEUES. RabbitMQ has no figures of one in its first seconds, which then are 0."""
    stats = queue.get("message_stats") or {}
    return (
        text(queue.get("vhost")),
        text(queue.get("name")),
        text(queue.get("type")) or "classic",
        features(queue),
        text(queue.get("policy")),
        text(queue.get("state")) or "running",
        number(queue.get("messages_ready")),
        number(queue.get("messages_unacknowledged")),
        number(queue.get("messages")),
        number(queue.get("consumers")),
        number(queue.get("message_bytes")),
        rate(stats, "publish"),
        rate(stats, "deliver_get"),
        rate(stats, "ack"),
    )


def features(thing: Object) -> str:
    """Return the flags and arguments of a queue or exchange in short: `D` for durable, `TTL`, `DLX` and so on."""
    flags = (("durable", "D"), ("auto_delete", "AD"), ("exclusive", "Excl"), ("internal", "I"))
    found = [short for name, short in flags if thing.get(name) is True]
    arguments = thing.get("arguments")
    if isinstance(arguments, dict):
        found += [short for name, short in _ARGUMENTS.items() if name in arguments]
        if arguments.keys() - _ARGUMENTS.keys() - {"x-queue-type"}:
            found.append("Args")
    return " ".join(found)


def rate(stats: Object, name: str) -> float:
    """Return a rate of `message_stats`, in messages a second."""
    details = stats.get(f"{name}_details")
    return round(number(details.get("rate")), 1) if isinstance(details, dict) else 0.0


def text(value: object) -> str:
    """Return a text; what is none (RabbitMQ writes null and "undefined") is empty."""
    return value if isinstance(value, str) and value != "undefined" else ""


def number(value: object) -> float:
    """Return a number; what is none, or can't be written as JSON, is 0."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    return value if math.isfinite(value) else 0
