"""Checks of `rabbitry doctor` over the management API: consumers that are stuck, queues that nobody consumes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from rabbitry._words import counted
from rabbitry.apps._management import get, management_url, open_client
from rabbitry.apps.crawl import names as crawl

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL

_CRAWL_ROLES: Final = {
    crawl.KEEPER_QUEUE: crawl.KEEPER,
    crawl.BATCH_QUEUE: crawl.CRAWLER,
    crawl.PAGE_QUEUE: crawl.PROCESSOR,
    **{f"{crawl.APP}.suspects.{role}": role for role in (crawl.KEEPER, crawl.CRAWLER, crawl.PROCESSOR)},
}
"""Queues of a crawl, and the role that takes their messages."""
_MANY_LINES: Final = 100_000
"""Lines of a crawl's log that come in the time in which they expire, and more."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A queue that is not as it should be. is_bad: it does not get better by itself."""

    queue: str
    is_bad: bool
    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Look:
    """The queues of a virtual host, by name, at one moment. unlimited: consumers without prefetch, by queue."""

    at: float
    queues: Mapping[str, Mapping[str, Any]]
    unlimited: Mapping[str, list[str]]

    @property
    def is_suspicious(self) -> bool:
        """Whether a second look can tell more."""
        # RabbitMQ has no figures of a queue in its first seconds.
        return any(queue.get("messages") != 0 for queue in self.queues.values())


async def look(management: str | None, login: BrokerURL) -> Look:
    """Look at all queues of the login's virtual host. Raises ConnectFailed where there is no management API."""
    vhost = quote(login.virtual_host, safe="")
    async with open_client(management_url(management, login), login) as client:
        queues = await get(client, f"/api/queues/{vhost}")
        consumers = await get(client, f"/api/consumers/{vhost}")
    unlimited: defaultdict[str, list[str]] = defaultdict(list)
    for consumer in consumers:
        if consumer.get("prefetch_count") == 0 and consumer.get("ack_required"):
            name = (consumer.get("queue") or {}).get("name", "")
            unlimited[name].append(str(consumer.get("consumer_tag", "")))
    return Look(time.monotonic(), {str(queue.get("name", "")): queue for queue in queues}, unlimited)


async def look_again(first: Look, management: str | None, login: BrokerURL, seconds: float) -> Look:
    """Look once more, `seconds` after the first time: a broker's figures are up to 5 s old."""
    await asyncio.sleep(max(0.0, first.at + seconds - time.monotonic()))
    return await look(management, login)


def problems(first: Look, second: Look) -> list[Problem]:
    """Compare two looks."""
    found: list[Problem] = []
    seconds = second.at - first.at
    for name, queue in second.queues.items():
        before = first.queues.get(name)
        if before is None:
            continue
        held, ready = _number(queue, "messages_unacknowledged"), _number(queue, "messages_ready")
        if held and _number(before, "messages_unacknowledged") and _acked(queue) == _acked(before):
            found.append(_stuck(name, held, ready, seconds, second.unlimited.get(name, [])))
        elif held and not ready and (tags := second.unlimited.get(name)):
            found.append(_unlimited(name, held, tags, is_bad=False))
        if ready and not _number(queue, "consumers") and not _is_waiting_queue(queue):
            untaken = _untaken(name, ready, ready - _number(before, "messages_ready"), seconds)
            found += [] if untaken is None else [untaken]
    return found


def _stuck(name: str, held: int, ready: int, seconds: float, tags: list[str]) -> Problem:
    if tags and not ready:
        return _unlimited(name, held, tags, is_bad=True)
    what = f"its consumers hold {_messages(held)} unacknowledged, and acknowledged none in {seconds:.0f} s"
    todo = (
        "does the consumer acknowledge (auto_ack, basic_ack), or does its handler hang? rabbitry consumers lists them"
    )
    return Problem(name, True, what, todo)


def _unlimited(name: str, held: int, tags: list[str], *, is_bad: bool) -> Problem:
    what = f"consumer {tags[0]!r} has no prefetch limit and holds all {_messages(held)}, so that no other gets any"
    return Problem(name, is_bad, what, "set a prefetch there (basic.qos), and see that it acknowledges")


def _untaken(name: str, ready: int, grown: int, seconds: float) -> Problem | None:
    if name.endswith(".dead"):
        return Problem(name, False, f"it has {_messages(ready)}", f"rabbitry dead list {name.removesuffix('.dead')}")
    if name == crawl.LOG_QUEUE:
        return _log_queue(ready, grown, seconds)
    todo = "start its consumer, or delete the queue where nobody needs it any more"
    role = _CRAWL_ROLES.get(name)
    if role is not None:
        todo = f"no {role} of the crawl runs: start one, on any machine: rabbitry crawl {role}"
    # A crawl stands still without a keeper or a crawler; its pages may be another program's, which is away.
    if role in (crawl.KEEPER, crawl.CRAWLER) and grown <= 0:
        return Problem(name, True, f"nobody consumes it, and {_messages(ready)} in it wait", todo)
    if grown > 0:
        return Problem(name, True, f"nobody consumes it, and it grows: {ready}, {grown} more in {seconds:.0f} s", todo)
    return Problem(name, False, f"nobody consumes it, and {_messages(ready)} in it wait", todo)


def _log_queue(ready: int, grown: int, seconds: float) -> Problem | None:
    """Return what is wrong with a crawl's log that nobody reads: nothing while its lines expire as they come."""
    if ready <= _MANY_LINES or grown <= 0:
        return None
    what = f"nobody reads the crawl's log, and it grows: {ready}, {grown} more in {seconds:.0f} s"
    todo = (
        f"Rabbitry's lines expire after {crawl.LOG_SECONDS:.0f} s, but not behind those of other programs: "
        "start the program that reads it, or purge the queue"
    )
    return Problem(crawl.LOG_QUEUE, False, what, todo)


def _messages(number: int) -> str:
    return counted(number, "message")


def _number(queue: Mapping[str, Any], name: str) -> int:
    value = queue.get(name)
    return value if isinstance(value, int) else 0


def _acked(queue: Mapping[str, Any]) -> int:
    return _number(queue.get("message_stats") or {}, "ack")


def _is_waiting_queue(queue: Mapping[str, Any]) -> bool:
    """Return whether a queue's messages leave it by themselves, as those of a retry queue do."""
    arguments = queue.get("arguments") or {}
    return "x-message-ttl" in arguments and "x-dead-letter-exchange" in arguments
