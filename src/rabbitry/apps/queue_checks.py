"""Checks of `rabbitry doctor` over the management API: stuck consumers, and queues without consumers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from rabbitry._words import counted
from rabbitry.apps import Untaken
from rabbitry.apps.management import get, management_url, open_client, part_of
from rabbitry.flow.wiring.pausing import QUEUE, paused_stage
from rabbitry.flow.wiring.retries import suspects_queue
from rabbitry.flow.wiring.tokens import holds_tokens

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL

Judge: TypeAlias = Callable[[Untaken], tuple[bool, str, str] | None]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a queue. is_bad: it does not resolve by itself."""

    queue: str
    is_bad: bool
    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Look:
    """The queues of a virtual host by name at one moment. unlimited: consumers without a prefetch limit, by queue."""

    at: float
    queues: Mapping[str, Mapping[str, Any]]
    unlimited: Mapping[str, list[str]]

    @property
    def is_suspicious(self) -> bool:
        """Whether a second look can show more."""
        # RabbitMQ has no figures for a queue in its first seconds.
        return any(queue.get("messages") != 0 for queue in self.queues.values())


async def look(management: str | None, login: BrokerURL) -> Look:
    """Look at all queues of the login's virtual host. Raises ConnectFailed if there is no management API."""
    vhost = quote(login.virtual_host, safe="")
    async with open_client(management_url(management, login), login) as client:
        queues = await get(client, f"/api/queues/{vhost}")
        consumers = await get(client, f"/api/consumers/{vhost}")
    return look_at(queues, consumers, time.monotonic())


def look_at(queues: Iterable[Mapping[str, Any]], consumers: Iterable[Mapping[str, Any]], at: float) -> Look:
    """Return a look at queues and consumers, as the management API lists them. at: monotonic seconds."""
    unlimited: defaultdict[str, list[str]] = defaultdict(list)
    for consumer in consumers:
        if consumer.get("prefetch_count") == 0 and consumer.get("ack_required"):
            name = str(part_of(consumer, "queue").get("name", ""))
            unlimited[name].append(str(consumer.get("consumer_tag", "")))
    return Look(at, {str(queue.get("name", "")): queue for queue in queues}, unlimited)


async def look_again(first: Look, management: str | None, login: BrokerURL, seconds: float) -> Look:
    """Look once more, `seconds` after the first time: a broker's figures are up to 5 s old."""
    await asyncio.sleep(max(0.0, first.at + seconds - time.monotonic()))
    return await look(management, login)


def problems(first: Look, second: Look, untaken: Mapping[str, Judge] = MappingProxyType({})) -> list[Problem]:
    """Return the problems that two looks show.

    Args:
        first: The earlier one.
        second: The later one.
        untaken: Queue name → an app's judgement of the queue without consumers; see `Checks`.
    """
    found: list[Problem] = []
    seconds = second.at - first.at
    pauses = _pauses(second)
    for name, queue in second.queues.items():
        before = first.queues.get(name)
        if before is None or paused_stage(name) or holds_tokens(name, part_of(queue, "arguments")):
            continue
        if name in pauses and not _number(queue, "consumers"):
            found.append(_paused(name, pauses[name], _number(queue, "messages_ready")))
            continue
        held, ready = _number(queue, "messages_unacknowledged"), _number(queue, "messages_ready")
        if held and _number(before, "messages_unacknowledged") and _acked(queue) == _acked(before):
            found.append(_stuck(name, held, ready, seconds, second.unlimited.get(name, [])))
        elif held and not ready and (tags := second.unlimited.get(name)):
            found.append(_unlimited(name, held, tags, is_bad=False))
        if ready and not _number(queue, "consumers") and not _needs_no_consumer(queue):
            waiting = Untaken(name, ready, ready - _number(before, "messages_ready"), seconds)
            judged = untaken.get(name, _judge)(waiting)
            found += [] if judged is None else [Problem(name, *judged)]
    return found


def _pauses(look: Look) -> dict[str, tuple[str, str]]:
    """Return the queues whose stages are paused, with app and stage."""
    found = {}
    for name, queue in look.queues.items():
        stage = paused_stage(name)
        if stage is not None and _number(queue, "messages"):
            found[str(part_of(queue, "arguments").get(QUEUE, ""))] = found[suspects_queue(*stage)] = stage
    return found


def _paused(name: str, stage: tuple[str, str], ready: int) -> Problem:
    what = f"its stage is paused; {_messages(ready)} {'waits' if ready == 1 else 'wait'}"
    return Problem(
        name, False, what, f"rabbitry paused {stage[0]} tells who paused it; rabbitry resume {' '.join(stage)}"
    )


def _stuck(name: str, held: int, ready: int, seconds: float, tags: list[str]) -> Problem:
    if tags and not ready:
        return _unlimited(name, held, tags, is_bad=True)
    what = f"its consumers hold {_messages(held)} unacknowledged, and acknowledged none in {seconds:.0f} s"
    todo = (
        "does the consumer acknowledge (auto_ack, basic_ack), or does its handler hang? rabbitry consumers lists them"
    )
    return Problem(name, True, what, todo)


def _unlimited(name: str, held: int, tags: list[str], *, is_bad: bool) -> Problem:
    what = f"consumer {tags[0]!r} has no prefetch limit and holds all {_messages(held)}: other consumers get none"
    return Problem(name, is_bad, what, "set a prefetch limit there (basic.qos), and check that it acknowledges")


def _judge(waiting: Untaken) -> tuple[bool, str, str]:
    """Return the problem of a queue that no app knows and that has no consumer."""
    name = waiting.queue
    if name.endswith(".dead"):
        return False, f"it has {_messages(waiting.ready)}", f"rabbitry dead list {name.removesuffix('.dead')}"
    return (waiting.grown > 0, waiting.what, "start its consumer, or delete the queue if it is not needed any more")


def _messages(number: int) -> str:
    return counted(number, "message")


def _number(queue: Mapping[str, Any], name: str) -> int:
    value = queue.get(name)
    return value if isinstance(value, int) else 0


def _acked(queue: Mapping[str, Any]) -> int:
    return _number(part_of(queue, "message_stats"), "ack")


def _needs_no_consumer(queue: Mapping[str, Any]) -> bool:
    """Return whether messages leave the queue by themselves, as in a retry queue, or stay in any case (a stream)."""
    arguments = part_of(queue, "arguments")
    if arguments.get("x-queue-type") == "stream":
        return True
    return "x-message-ttl" in arguments and "x-dead-letter-exchange" in arguments
