"""Telemetry: the reports that workers and other nodes publish about themselves, collected from the dashboard's broker.

They are collected for as long as the dashboard runs, since a page may ask for the last hour.

`stages` and `nodes` are topics of the feed; see `Nodes.stages` and `nodes.COLUMNS` for their members,
and docs/dashboard.md. On the server, `Telemetry.nodes` is the picture as it is now, and a function in
`Telemetry.listeners` gets every report.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from rabbitry.amqp.client import Connection, RecoveryEvent, connect
from rabbitry.exceptions import AccessRefused, LoginRefused, RabbitryError, VirtualHostRefused
from rabbitry.runtime.backoff import Backoff
from rabbitry.telemetry import EXCHANGE, Report, collect
from rabbitry.web.feed.tables import Table
from rabbitry.web.feed.topics import Topic, Value
from rabbitry.web.sources.nodes import COLUMNS, Nodes
from rabbitry.web.sources.reported import reported
from rabbitry.web.sources.status import Status

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL
    from rabbitry.web.sources.attention import Attention
    from rabbitry.web.sources.traffic import Traffic

EVERY: Final = 2.0
"""Seconds between two pictures, as between two reports of a node."""
_AGAIN: Final = Backoff(2.0, 30.0)

_logger = logging.getLogger(__name__)


class Telemetry:
    """The source of the topics `stages` and `nodes`, and of `topology` if the management API does not answer.

    Args:
        login: The broker's URL.
        sources: The topic with the state of all sources.
        attention: The topic with what needs attention.
        traffic: The source of the topology.

    Attributes:
        nodes: The nodes that report.
        listeners: Called with each report, on the event loop; they must not raise.
        connection: The connection that it collects over; None before there is one.
    """

    def __init__(self, login: BrokerURL, sources: Value, attention: Attention, traffic: Traffic) -> None:
        self.nodes: Nodes = Nodes()
        self.listeners: list[Callable[[Report], None]] = []
        self.connection: Connection | None = None
        self._login = login
        self._attention = attention
        self._traffic = traffic
        self._stages = Value()
        self._table = Table(COLUMNS, keys=3)
        self._began = False
        self._status = Status(sources, "telemetry", "Telemetry")
        self._status.tell("connecting", where=str(login))

    @property
    def vhost(self) -> str:
        """The virtual host that the nodes report in."""
        return self._login.virtual_host

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics by name."""
        return {"stages": self._stages, "nodes": self._table}

    async def run(self) -> None:
        """Collect until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collect(), name="collector of telemetry")
            tasks.create_task(self._draw(), name="picture of telemetry")

    async def _collect(self) -> None:
        failures = 0
        while True:
            try:
                async with connect(
                    self._login,
                    name="rabbitry web telemetry",
                    connect_attempts=None,
                    on_recovery=self._on_recovery,
                    log_level=logging.DEBUG,  # the page shows it
                ) as connection:
                    await self._collect_from(connection)
            except (LoginRefused, VirtualHostRefused, AccessRefused) as error:
                todo = f"Allow the user of the broker's URL to configure and read the exchange {EXCHANGE!r} and queues "
                self._away("refused", error, f"{todo}of its own (amq.gen-*): rabbitmqctl set_permissions")
            except RabbitryError as error:
                self._away("away", error)
            failures = 1 if self._began else failures + 1
            self._began = False
            await asyncio.sleep(_AGAIN.pause(failures))

    async def _collect_from(self, connection: Connection) -> None:
        self.connection = connection
        await collect(connection, self._take, self._begin)
        if connection.close_reason is not None:
            raise connection.close_reason

    def _take(self, report: Report) -> None:
        self.nodes.take(report)
        for listener in self.listeners:
            listener(report)

    def _begin(self) -> None:
        self.nodes.excuse()
        self._began = True
        self._status.tell("live", every=EVERY)

    def _on_recovery(self, event: RecoveryEvent) -> None:
        if event.kind == "recovered":
            self._begin()
        elif event.error is not None:
            self._away("away", event.error)

    def _away(self, state: Literal["away", "refused"], error: Exception, todo: str = "") -> None:
        self._status.tell(state, reason=str(error), todo=todo)

    async def _draw(self) -> None:
        """Update the topics that pages subscribe to, every EVERY seconds."""
        while True:
            await asyncio.sleep(EVERY)
            if self._status.state != "live":
                continue
            now = time.time()
            self.nodes.forget()
            self._status.tell("live")
            if self._stages.wanted.is_set():
                self._stages.put(self.nodes.stages(), now)
            if self._table.wanted.is_set():
                self._table.replace(self.nodes.rows(), now)
            if self._attention.wanted.is_set():
                self._attention.tell("nodes", self.nodes.problems(), now)
            if self._traffic.fails and self._traffic.topic.wanted.is_set():
                self._traffic.topic.put(reported(self.nodes.live(), self._login.virtual_host), now)
