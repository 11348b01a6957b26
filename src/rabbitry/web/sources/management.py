"""The broker, asked through its management API at a pace that it can bear.

Overview and nodes are asked each 5 s. A whole list of 10,000 queues costs RabbitMQ 3.10 5 to 10 s of CPU. A list that
took long is therefore asked for again only when its share of the time stays small, and meanwhile the rows that a page
shows are asked for one by one. Rabbitry's own broker is not asked for its queues again and again: it answers with those
that changed, as soon as there are some. Nothing is asked while nobody subscribes. The history subscribes to the
overview.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from rabbitry.apps.management import (
    NothingThere,
    Unanswerable,
    decode_answer,
    fetch,
    get,
    get_object,
    open_client,
)
from rabbitry.exceptions import ConnectFailed, LoginRefused, Undecodable
from rabbitry.runtime.backoff import Backoff
from rabbitry.web.feed.tables import Key, Row, SeenRows, Table
from rabbitry.web.feed.topics import Topic, Value
from rabbitry.web.sources.broker import broker_value
from rabbitry.web.sources.changes import read_changes
from rabbitry.web.sources.details import DetailsTopic, details_topics
from rabbitry.web.sources.lists import LISTINGS, Listing
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
_WAIT: Final = 4
"""Seconds that an answer with changes waits for some: as long as the data may seem to age."""
_AGAIN: Final = Backoff(2.0, 30.0)

_logger = logging.getLogger(__name__)


class Management:
    """The source of the topics `broker`, of those in `details`, and of the tables in LISTINGS.

    Args:
        url: The management API's URL.
        login: The broker's URL, for the login.
        sources: The topic with the state of all sources.

    Attributes:
        broker: The topic `broker`.
    """

    def __init__(self, url: str, login: BrokerURL, sources: Value) -> None:
        self.broker: Value = Value()
        self._details = details_topics()
        self._tables = {listing: Table(listing.columns, listing.keys) for listing in LISTINGS}
        self._url = url
        self._login = login
        self._status = Status(sources, "management", "Management API")
        self._status.tell("idle", where=url)

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics by name."""
        tables = {listing.topic: table for listing, table in self._tables.items()}
        return {"broker": self.broker, **self._details, **tables}

    async def run(self) -> None:
        """Ask until cancelled."""
        async with open_client(self._url, self._login) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self.broker, partial(self._ask_broker, client)), name="broker's overview")
            for name, topic in self._details.items():
                details = partial(self._ask_details, client, topic)
                tasks.create_task(self._repeat(topic, details), name=f"details of each {name}")
            for listing, table in self._tables.items():
                whole = partial(self._ask_list, client, listing, table)
                ask = partial(self._follow_queues, client, table, whole) if listing.topic == "queues" else whole
                tasks.create_task(self._repeat(table, ask), name=f"list of {listing.topic}")

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
            todo = "Give the user of the broker's URL the tag 'monitoring': rabbitmqctl set_user_tags USER monitoring"
            self._status.tell("refused", reason=str(error), todo=todo)
            return
        todo = (
            "On RabbitMQ: rabbitmq-plugins enable rabbitmq_management; if it listens elsewhere, set RABBITRY_MANAGEMENT"
        )
        had = self._status.state in ("live", "away")
        self._status.tell("away" if had else "missing", reason=str(error), todo=todo)

    async def _ask_broker(self, client: httpx.AsyncClient) -> float:
        started = time.monotonic()
        overview, nodes = await get_object(client, "/api/overview"), await get(client, "/api/nodes")
        self.broker.put(broker_value(overview, nodes), time.time())
        self._status.tell("live", took=round(time.monotonic() - started, 3), every=EVERY)
        return EVERY

    async def _ask_list(self, client: httpx.AsyncClient, listing: Listing, table: Table) -> float:
        """Ask for a whole list, and then, for as long as the next one has to wait, for the rows that pages show."""
        started = time.monotonic()
        body = await fetch(client, f"/api/{listing.topic}?columns={listing.fields}", timeout=_PATIENCE)
        took = time.monotonic() - started
        try:
            rows = await asyncio.to_thread(_rows, body, listing)  # 10,000 of them take 0.2 s
        except Undecodable as error:
            raise ConnectFailed(
                f"{self._url} answered no {listing.topic} ({error}): is it a management API?"
            ) from error
        table.replace(rows, time.time())
        self._status.tell("live")
        until = started + took + min(max(EVERY, took / SHARE), LONGEST)
        while listing.one is not None and table.wanted.is_set() and time.monotonic() + EVERY < until:
            await asyncio.sleep(EVERY)
            await self._ask_shown(client, listing, listing.one, table)
        return max(0.0, until - time.monotonic())

    async def _follow_queues(
        self, client: httpx.AsyncClient, table: Table, whole: Callable[[], Awaitable[float]]
    ) -> float:
        """Take changes of queues from a broker that pushes them, as Rabbitry's does; ask any other for the list."""
        version = 0
        while table.wanted.is_set():
            path = f"/api/rabbitry/changes/queues?since={version}&wait={_WAIT}"
            try:
                body = await fetch(client, path, timeout=_PATIENCE)
            except NothingThere:
                return await whole()
            try:
                news = await asyncio.to_thread(read_changes, body)
            except Undecodable as error:
                raise ConnectFailed(f"{self._url} answered no changes of queues: {error}") from error
            version = news.version
            if news.whole:
                table.replace(news.rows, time.time())
            else:
                table.update(news.rows, news.gone, time.time())
            self._status.tell("live")
        return 0

    async def _ask_shown(
        self, client: httpx.AsyncClient, listing: Listing, path: Callable[[Key], str], table: Table
    ) -> None:
        keys: dict[Key, None] = {}
        for seen in table.subscriptions():
            if isinstance(seen, SeenRows):
                keys |= dict.fromkeys(seen.keys)
        rows, gone = [], []
        for key in list(keys)[:MOST_SHOWN]:
            try:
                rows.append(listing.row(await get_object(client, f"{path(key)}?columns={listing.fields}")))
            except NothingThere:
                gone.append(key)
            except Unanswerable as error:
                _logger.debug("%s", error)  # the row stays as it was in the list
        table.update(rows, gone, time.time())

    async def _ask_details(self, client: httpx.AsyncClient, topic: DetailsTopic) -> float:
        """Ask for each thing that a page shows in full, at once for one that is new."""
        topic.asked.clear()
        for which in topic.which():
            try:
                value = await topic.ask(client, which)
            except NothingThere:
                value = {"state": "missing"}
            except Unanswerable as error:
                value = {"state": "missing", "reason": str(error)}
            topic.put(which, value, time.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERY):
                await topic.asked.wait()
        return 0


def _rows(body: bytes, listing: Listing) -> list[Row]:
    return [listing.row(each) for each in decode_answer(body, list[dict[str, Any]])]
