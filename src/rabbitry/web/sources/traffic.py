"""The source of the topology: all lists of the broker's management API, asked at a pace that it can bear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from rabbitry.apps.management import (
    NothingThere,
    Unanswerable,
    decode_answer,
    fetch,
    get_object,
    open_client,
    part_of,
    place_of,
)
from rabbitry.apps.queue_checks import Look, look_at, problems
from rabbitry.exceptions import ConnectFailed, Undecodable
from rabbitry.flow.wiring.dead_letters import dead_queue
from rabbitry.runtime.backoff import Backoff
from rabbitry.web.feed.topics import Value, any_wanted
from rabbitry.web.sources.attention import Attention
from rabbitry.web.sources.fields import Object, rate, text
from rabbitry.web.sources.topology import Lists, Topology

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL

EVERY: Final = 5.0
"""Seconds between two questions, RabbitMQ's own interval of statistics."""
SHARE: Final = 0.1
"""The most that asking takes of the time."""
LONGEST: Final = 300.0
"""Seconds after which the lists are asked for again, however long they take."""
MOST_CHANNELS: Final = 40
"""Channels that are asked for one by one, where they publish to: those that publish the most."""
COMPARED: Final = 30.0
"""Seconds between two states of the queues that are compared."""
MOST_PROBLEMS: Final = 50
_DEAD: Final = dead_queue("")
"""The suffix of the name of a queue of dead letters."""
_PATIENCE: Final = 120.0
_AGAIN: Final = Backoff(2.0, 30.0)
_STATS: Final = "message_stats.publish_details.rate,message_stats.deliver_get_details.rate"
_PATHS: Final = {
    "exchanges": "name,vhost,type,message_stats.publish_in_details.rate,message_stats.publish_out_details.rate",
    "queues": "name,vhost,type,messages,messages_ready,messages_unacknowledged,consumers,arguments,message_stats.ack,"
    "message_stats.publish,"
    f"{_STATS}",
    "bindings": "source,vhost,destination,destination_type,routing_key",
    "connections": "name,peer_host,client_properties",
    "channels": f"name,vhost,connection_details,{_STATS}",
    "consumers": "queue,channel_details,consumer_tag,prefetch_count,ack_required",
}
"""The lists, and the fields of each that the topology needs."""

_logger = logging.getLogger(__name__)


class Traffic:
    """The source of the topic `topology`, and of problems of queues as `rabbitry doctor` finds them.

    Args:
        url: The management API's URL.
        login: The broker's URL, for the login.
        attention: The topic with what needs attention.

    Attributes:
        topic: The topology.
        fails: Whether the last request to the API failed.
    """

    def __init__(self, url: str, login: BrokerURL, attention: Attention) -> None:
        self.topic: Value = Value()
        self.fails: bool = False
        self._attention = attention
        self._looks: deque[Look] = deque()
        self._url = url
        self._login = login
        self._topology = Topology()

    async def run(self) -> None:
        """Ask while a page shows the topology or what needs attention, until cancelled."""
        failures = 0
        async with open_client(self._url, self._login) as client:
            while True:
                await any_wanted(self.topic, self._attention)
                try:
                    pause = await self._ask(client)
                    failures, self.fails = 0, False
                except ConnectFailed as error:
                    # The source `management`, which asks the same API, tells the pages.
                    _logger.debug("no topology: %s", error)
                    failures, self.fails = failures + 1, True
                    pause = _AGAIN.pause(failures)
                await asyncio.sleep(pause)

    async def _ask(self, client: httpx.AsyncClient) -> float:
        started = time.monotonic()
        lists = {name: await self._list(client, name, columns) for name, columns in _PATHS.items()}
        publishes = await _publishes(client, lists["channels"])
        value = self._topology.update(Lists(**lists, publishes=publishes), time.time())
        self.topic.put(value, time.time())
        self._judge(lists)
        took = time.monotonic() - started
        return min(max(EVERY - took, took / SHARE), LONGEST)

    def _judge(self, lists: Mapping[str, list[dict[str, Any]]]) -> None:
        """Compare the queues with those of half a minute ago: a handler may hold a message for some seconds."""
        mine = self._login.virtual_host
        queues = [queue for queue in lists["queues"] if queue.get("vhost") == mine]
        consumers = [one for one in lists["consumers"] if part_of(one, "queue").get("vhost") == mine]
        now = look_at(queues, consumers, time.monotonic())
        self._looks.append(now)
        while len(self._looks) > 1 and self._looks[1].at <= now.at - COMPARED:
            self._looks.popleft()
        if self._looks[0].at > now.at - COMPARED:
            return
        found = problems(self._looks[0], now)
        told = {one.queue: {"bad": one.is_bad, "what": one.what, "todo": one.todo} for one in found[:MOST_PROBLEMS]}
        for queue in told:
            if app := queue.removesuffix(_DEAD) if queue.endswith(_DEAD) else "":
                told[queue]["link"] = f"dead/?{urlencode({'vhost': mine, 'app': app})}"
        self._attention.tell("queues", told, time.time())

    async def _list(self, client: httpx.AsyncClient, name: str, columns: str) -> list[dict[str, Any]]:
        body = await fetch(client, f"/api/{name}?columns={columns}", timeout=_PATIENCE)
        try:
            return await asyncio.to_thread(decode_answer, body, list[dict[str, Any]])  # 10,000 queues take 0.2 s
        except Undecodable as error:
            raise ConnectFailed(f"{self._url} answered no list of {name} ({error}): is it a management API?") from error


async def _publishes(client: httpx.AsyncClient, channels: Sequence[Object]) -> dict[str, Sequence[Object]]:
    """Return what the busiest publishing channels publish to, which the list of channels does not have."""
    rates = {text(one.get("name")): rate(part_of(one, "message_stats"), "publish") for one in channels}
    busiest = sorted((name for name in rates if rates[name]), key=lambda name: -rates[name])[:MOST_CHANNELS]
    found: dict[str, Sequence[Object]] = {}
    for name in busiest:
        try:
            details = await get_object(client, f"/api/channels/{place_of(name)}?columns=publishes")
        except (NothingThere, Unanswerable):
            continue  # it was closed in between, or has a name that can't be asked for
        publishes = details.get("publishes")
        found[name] = [one for one in publishes if isinstance(one, dict)] if isinstance(publishes, list) else []
    return found
