"""The broker, asked through its management API at a pace that it can bear.

Overview and nodes are asked each 5 s. A whole list of 10,000 queues costs RabbitMQ 3.10 5 to 10 s of CPU. A list that
took long is therefore asked for again only when its share of the time stays small, and meanwhile the rows that a page
shows are asked for one by one. Nothing is asked while no page subscribes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from rabbitry._decode import decode_json
from rabbitry.apps.management import NothingThere, fetch, get, get_object, open_client
from rabbitry.exceptions import ConnectFailed, LoginRefused, Undecodable
from rabbitry.runtime.backoff import Backoff
from rabbitry.web.feed.tables import Key, Row, SeenRows, Table
from rabbitry.web.feed.topics import Topic, Value
from rabbitry.web.sources.broker import broker_value
from rabbitry.web.sources.rows import QUEUE_FIELDS, QUEUES, queue_row
from rabbitry.web.sources.status import Status

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL

EVERY: Final = 5.0
"""Seconds between two questions, RabbitMQ's own interval of statistics."""
SHARE: Final = 0.05
"""The most that asking for a whole list takes of the time."""
LONGEST: Final = 300.0
"""Seconds after which a whole list is asked for again, however long it takes."""
MOST_SHOWN: Final = 100
"""Rows that are asked for one by one in 5 s."""
_PATIENCE: Final = 120.0
"""Seconds that a whole list may take."""
_AGAIN: Final = Backoff(2.0, 30.0)

_logger = logging.getLogger(__name__)


class Management:
    """The source of the topics `broker` and `queues`.

    Args:
        url: The management API's URL.
        login: The broker's URL, for the login.
        sources: The topic with the state of all sources.
    """

    def __init__(self, url: str, login: BrokerURL, sources: Value) -> None:
        self.broker = Value()
        self.queues = Table(QUEUES, keys=2)
        self._url = url
        self._login = login
        self._status = Status(sources, "management", "the broker's management API")
        self._status.tell("idle", where=url)

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics by name."""
        return {"broker": self.broker, "queues": self.queues}

    async def run(self) -> None:
        """Ask until cancelled."""
        async with open_client(self._url, self._login) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self.broker, lambda: self._ask_broker(client)), name="broker's overview")
            tasks.create_task(self._repeat(self.queues, lambda: self._ask_queues(client)), name="list of queues")

    async def _repeat(self, topic: Topic, ask: Callable[[], Awaitable[float]]) -> None:
        """Ask while the topic is wanted. `ask` returns the seconds until it is to be called again."""
        failures = 0
        while True:
            await topic.wanted.wait()
            try:
                pause = await ask()
                failures = 0
            except ConnectFailed as error:
                failures += 1
                pause = _AGAIN.pause(failures)
                self._tell(error)
            await asyncio.sleep(pause)

    def _tell(self, error: ConnectFailed) -> None:
        _logger.debug("%s", error)
        if isinstance(error, LoginRefused):
            todo = "give the user of the broker's URL the tag 'monitoring': rabbitmqctl set_user_tags USER monitoring"
            self._status.tell("refused", reason=str(error), todo=todo)
            return
        todo = (
            "on RabbitMQ: rabbitmq-plugins enable rabbitmq_management; if it listens elsewhere, set RABBITRY_MANAGEMENT"
        )
        had = self._status.state in ("live", "away")
        self._status.tell("away" if had else "missing", reason=str(error), todo=todo)

    async def _ask_broker(self, client: httpx.AsyncClient) -> float:
        started = time.monotonic()
        overview, nodes = await get_object(client, "/api/overview"), await get(client, "/api/nodes")
        self.broker.put(broker_value(overview, nodes), time.time())
        self._status.tell("live", took=round(time.monotonic() - started, 3), every=EVERY)
        return EVERY

    async def _ask_queues(self, client: httpx.AsyncClient) -> float:
        """Ask for all queues, and then, for as long as the list has to wait, for those that pages show."""
        started = time.monotonic()
        body = await fetch(client, f"/api/queues?columns={QUEUE_FIELDS}", timeout=_PATIENCE)
        took = time.monotonic() - started
        try:
            rows = await asyncio.to_thread(_queue_rows, body)  # 10,000 of them take 0.2 s
        except Undecodable as error:
            raise ConnectFailed(f"{self._url} answered no list of queues ({error}): is it a management API?") from error
        self.queues.replace(rows, time.time())
        wait = min(max(EVERY, took / SHARE), LONGEST)
        until = started + took + wait
        while self.queues.wanted.is_set() and time.monotonic() + EVERY < until:
            await asyncio.sleep(EVERY)
            await self._ask_shown(client)
        return max(0.0, until - time.monotonic())

    async def _ask_shown(self, client: httpx.AsyncClient) -> None:
        keys: dict[Key, None] = {}
        for seen in self.queues.subscriptions():
            if isinstance(seen, SeenRows):
                keys |= dict.fromkeys(seen.keys)
        rows, gone = [], []
        for key in list(keys)[:MOST_SHOWN]:
            vhost, name = (quote(part, safe="") for part in key)
            try:
                rows.append(queue_row(await get_object(client, f"/api/queues/{vhost}/{name}?columns={QUEUE_FIELDS}")))
            except NothingThere:
                gone.append(key)
        self.queues.update(rows, gone, time.time())


def _queue_rows(body: bytes) -> list[Row]:
    return [queue_row(queue) for queue in decode_json(body, list[dict[str, Any]])]
