"""Counters in the form of the management API: message_stats, depths, octets, with rates and samples."""

from __future__ import annotations

from typing import Final, NamedTuple

from rabbitry.broker._counts import DELIVERED, OCTETS, PUBLISHED
from rabbitry.broker._management.rates import DEPTHS, Counted, Range

_DELIVERED: Final = (*DELIVERED, "deliver_get")
_DISK: Final = ("disk_reads", "disk_writes")


class Ranges(NamedTuple):
    """The samples that a query requests of depths, message rates and octets; None for none."""

    lengths: Range | None = None
    messages: Range | None = None
    data: Range | None = None


def of_queue(counted: Counted, ranges: Ranges) -> dict[str, object]:
    """Return a queue's message_stats, if anything was counted, and its depths."""
    return {**_message_stats(counted, ("publish",), ranges), **counted.shown(DEPTHS, ranges.lengths)}


def of_exchange(counted: Counted, ranges: Ranges) -> dict[str, object]:
    """Return an exchange's message_stats, if anything was published to it."""
    return {"message_stats": counted.shown(counted.names, ranges.messages)} if any(counted.now) else {}


def of_channel(counted: Counted, ranges: Ranges) -> dict[str, object]:
    """Return a channel's message_stats, if anything was counted."""
    return _message_stats(counted, PUBLISHED, ranges)


def of_connection(counted: Counted, ranges: Ranges) -> dict[str, object]:
    """Return the bytes received and sent over a connection."""
    return counted.shown(OCTETS, ranges.data)


def of_vhost(counted: Counted, ranges: Ranges) -> dict[str, object]:
    """Return the counters of a virtual host."""
    return {
        **_message_stats(counted, PUBLISHED, ranges),
        **counted.shown(DEPTHS, ranges.lengths),
        **counted.shown(OCTETS, ranges.data),
    }


def of_broker(counted: Counted, ranges: Ranges) -> dict[str, object]:
    """Return the counters of the whole broker."""
    names = (*PUBLISHED, *_DELIVERED, *_DISK)
    return {
        "message_stats": counted.shown(names, ranges.messages),
        "churn_rates": counted.shown(counted.names[counted.names.index(_DISK[-1]) + 1 :], ranges.messages),
        "queue_totals": counted.shown(DEPTHS, ranges.lengths),
    }


def _message_stats(counted: Counted, published: tuple[str, ...], ranges: Ranges) -> dict[str, object]:
    """Return the groups of counters in which any was ever above 0, as RabbitMQ does."""
    groups = (names for names in (published, _DELIVERED) if counted.any(names))
    shown: dict[str, object] = {}
    for names in groups:
        shown.update(counted.shown(names, ranges.messages))
    return {"message_stats": shown} if shown else {}
