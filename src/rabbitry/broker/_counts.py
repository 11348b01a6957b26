"""Counters for the management API that remain after a channel, connection or queue is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PUBLISHED: Final = ("publish", "confirm", "return_unroutable", "drop_unroutable")
DELIVERIES: Final = 4
"""Number of leading names in DELIVERED that are deliveries: RabbitMQ's deliver_get is their sum."""
DELIVERED: Final = ("deliver", "deliver_no_ack", "get", "get_no_ack", "get_empty", "ack", "redeliver")
CHANNEL: Final = (*PUBLISHED, *DELIVERED)
"""The counters of a channel, by RabbitMQ's names (docs/management, message_stats)."""
OCTETS: Final = ("recv_oct", "send_oct")


class Totals:
    """A virtual host's totals over closed channels (CHANNEL) and closed connections (OCTETS)."""

    def __init__(self) -> None:
        self.channels: list[int] = [0] * len(CHANNEL)
        self.octets: list[int] = [0] * len(OCTETS)

    def add_channel(self, counts: Sequence[int]) -> None:
        """Add the counts of a channel that was closed, in the order of CHANNEL."""
        self.channels = [total + count for total, count in zip(self.channels, counts, strict=True)]

    def add_octets(self, received: int, sent: int) -> None:
        """Add the bytes of a connection that was closed."""
        self.octets[0] += received
        self.octets[1] += sent

    def count(self, name: str, by: int = 1) -> None:
        """Count an operation of the management API, which RabbitMQ performs, and counts, over a channel."""
        self.channels[CHANNEL.index(name)] += by


CHURN: Final = (
    "channel_closed",
    "channel_created",
    "connection_closed",
    "connection_created",
    "queue_created",
    "queue_declared",
    "queue_deleted",
)


class Churn:
    """Numbers of connections, channels and queues created and closed, by RabbitMQ's names."""

    def __init__(self) -> None:
        self.channel_closed = self.channel_created = 0
        self.connection_closed = self.connection_created = 0
        self.queue_created = self.queue_declared = self.queue_deleted = 0
