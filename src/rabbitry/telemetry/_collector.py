"""Collecting reports: the nodes that are alive, and their counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import Undecodable
from rabbitry.telemetry._report import EXCHANGE, SILENCE, Report, decode_report, keys_of

MOST_NODES: Final = 10_000
"""More nodes than this are left out: anybody who may publish could make them up."""
LARGEST: Final = 1 << 20
"""Bytes of a report beyond which it is ignored."""
_BOUNDS: Final = {"x-max-length": 20_000, "x-max-length-bytes": 64_000_000}
"""Of the queue of reports: the broker drops the oldest when they are read too slowly."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A node's last report, and when it came (monotonic seconds)."""

    report: Report
    heard: float


class Collector:
    """The nodes that have reported within the last 20 s. now: a monotonic clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._nodes: dict[str, Node] = {}

    def take(self, report: Report) -> None:
        """Take a report; a report of kind `stop` is the node's last."""
        key = report.routing_key
        if report.kind == "stop":
            self._nodes.pop(key, None)
        elif key in self._nodes or len(self._nodes) < MOST_NODES:
            self._nodes[key] = Node(report, self._now())

    def nodes(self) -> list[Report]:
        """Return the last reports of the nodes that are alive, in the order of their keys."""
        oldest = self._now() - SILENCE
        for key in [key for key, node in self._nodes.items() if node.heard < oldest]:
            del self._nodes[key]
        return [self._nodes[key].report for key in sorted(self._nodes)]

    async def run(
        self, connection: Connection, told: Callable[[Report], None] | None = None, *, app: str | None = None
    ) -> None:
        """Consume reports until cancelled.

        Args:
            connection: A connection to the broker.
            told: Called with each report.
            app: The app whose reports are consumed; None for all.

        Raises:
            ConnectionClosed: The connection was closed, or lost for good.
            ChannelClosed: The broker closed the channel.
        """

        def take(report: Report) -> None:
            self.take(report)
            if told is not None:
                told(report)

        await collect(connection, take, app=app)


async def collect(
    connection: Connection,
    told: Callable[[Report], None],
    ready: Callable[[], None] | None = None,
    *,
    app: str | None = None,
) -> None:
    """Consume reports until cancelled, and call `told` with each one.

    Args:
        connection: A connection to the broker.
        told: The receiver of the reports.
        ready: Called when all reports from now on are received.
        app: The app whose reports are consumed; None for all.

    Raises:
        ConnectionClosed: The connection was closed, or lost for good.
        ChannelClosed: The broker closed the channel.
    """
    async with await connection.channel() as channel:
        await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        queue = (await channel.declare_queue("", exclusive=True, arguments=_BOUNDS)).name
        await channel.bind_queue(queue, EXCHANGE, keys_of(app))
        async with channel.consume(queue, no_ack=True) as deliveries:
            if ready is not None:
                ready()
            async for delivery in deliveries:
                if len(delivery.body) > LARGEST:
                    continue
                try:
                    report = decode_report(delivery.body)
                except Undecodable as error:
                    _logger.debug("%s", error)
                    continue
                told(report)
