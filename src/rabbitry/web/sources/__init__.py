"""The sources of the feed's topics: the broker's management API and the nodes' telemetry."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Final

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Role
from rabbitry.apps.management import management_url
from rabbitry.telemetry import Masking
from rabbitry.web.feed.topics import Topic, Value
from rabbitry.web.sources.attention import Attention
from rabbitry.web.sources.documents import Documents
from rabbitry.web.sources.drift import Drift
from rabbitry.web.sources.flows import Flows
from rabbitry.web.sources.management import Management
from rabbitry.web.sources.raw import RawTopic
from rabbitry.web.sources.telemetry import Telemetry
from rabbitry.web.sources.traffic import Traffic

_FOR_VIEWERS: Final = (
    "sources", "topology", "attention", "broker", "queue", "exchange", "connection", "channel",
    "queues", "exchanges", "connections", "channels", "consumers", "bindings",
    "stages", "nodes", "flows", "drift",
)  # fmt: skip
"""Topics that a viewer may see. Others need an admin, unless their topic names another role."""
_RESTART: Final = 30.0
"""Seconds after which a source that failed starts again."""
_logger = logging.getLogger(__name__)


class Sources:
    """All sources of one dashboard.

    Args:
        broker: The broker's URL.
        management: The URL of its management API; RabbitMQ's port on the broker's host if it is None.
        masking: What is masked in messages; the usual names if it is None.

    Raises:
        UsageError: One of them is no URL.

    Attributes:
        topics: The topics by name.
        telemetry: The source of the nodes' reports.
        flows: The source of the stages of all apps.
        documents: The AsyncAPI documents of apps.
    """

    def __init__(self, broker: str, management: str | None = None, masking: Masking | None = None) -> None:
        login = parse_url(broker)
        self._states = Value()
        url = management_url(management, login)
        self._management = Management(url, login, self._states)
        attention = Attention()
        self._traffic = Traffic(url, login, attention)
        self.telemetry: Telemetry = Telemetry(login, self._states, attention, self._traffic)
        self.documents: Documents = Documents()
        self.telemetry.listeners.append(self.documents.take)
        self.flows: Flows = Flows(self.telemetry, self.documents, url, login)
        self._drift = Drift(url, login, self.telemetry)
        self.topics: Mapping[str, Topic] = {
            "sources": self._states,
            "topology": self._traffic.topic,
            "attention": attention,
            "flows": self.flows.topic,
            "drift": self._drift.topic,
            **self._management.topics,
            **self.telemetry.topics,
            "raw": RawTopic(login, masking or Masking()),
        }
        for name in _FOR_VIEWERS:
            self.topics[name].role = Role.VIEWER

    @property
    def broker(self) -> Value:
        """The topic `broker`."""
        return self._management.broker

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the sources while the block runs. One that fails is logged, and starts again."""
        tasks = [
            asyncio.create_task(_run(self._management), name="source: management"),
            asyncio.create_task(_run(self._traffic), name="source: traffic"),
            asyncio.create_task(_run(self.telemetry), name="source: telemetry"),
            asyncio.create_task(_run(self.flows), name="source: flows"),
            asyncio.create_task(_run(self._drift), name="source: drift"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _run(source: Management | Traffic | Telemetry | Flows | Drift) -> None:
    while True:
        try:
            await source.run()
        except Exception:
            _logger.exception("a source of the dashboard failed, and starts again in %.0f s", _RESTART)
        await asyncio.sleep(_RESTART)
