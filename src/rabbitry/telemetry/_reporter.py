"""Reporting: start, a heartbeat every two seconds, stop. Reports are neither mandatory nor persistent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.exceptions import ChannelClosed, ConnectionClosed, PublishError, RequestTimeout
from rabbitry.telemetry._report import EXCHANGE, INTERVAL, Report, ReportKind, encode_report

_PROPERTIES = Properties(content_type="application/json", delivery_mode=1)
_TIMEOUT = 5.0

_logger = logging.getLogger(__name__)


class Reporter:
    """Publishes the reports that `reports(kind)` returns, over a channel of its own.

    If the broker refuses (no permission for the exchange), one warning is logged and nothing is reported any more.
    """

    def __init__(self, connection: Connection, reports: Callable[[ReportKind], Sequence[Report]]) -> None:
        self._connection = connection
        self._reports = reports
        self._channel: Channel | None = None

    async def run(self) -> None:
        """Report until cancelled; the last report is sent then."""
        try:
            self._channel = await self._connection.channel()
            await self._channel.declare_exchange(EXCHANGE, "topic", durable=True)
            await self._send("start")
            try:
                while True:
                    await asyncio.sleep(INTERVAL)
                    await self._send("heartbeat")
            except asyncio.CancelledError:
                if self._connection.is_open and self._channel.is_open:
                    await self._send("stop")
                raise
        except ChannelClosed as error:
            _logger.warning("this node does not report itself: %s", error)
        except (ConnectionClosed, RequestTimeout) as error:
            _logger.debug("no more reports: %s", error)

    async def _send(self, kind: ReportKind) -> None:
        if self._channel is None or not self._connection.is_open:
            return  # counters are totals: the next one says it all
        for report in self._reports(kind):
            try:
                await self._channel.publish(
                    encode_report(report),
                    exchange=EXCHANGE,
                    routing_key=report.routing_key,
                    properties=_PROPERTIES,
                    mandatory=False,
                    timeout=_TIMEOUT,
                )
            except PublishError as error:
                _logger.debug("a report was lost: %s", error)
