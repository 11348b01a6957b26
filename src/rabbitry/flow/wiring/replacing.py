"""Replacing what exists with other flags than an app's: queues with all their messages, and exchanges.

A broker can't change the arguments of a queue. A shadow, `QUEUE.moving`, therefore takes its place: it gets the
messages and the bindings, the queue is deleted and declared anew, and everything goes back. An exchange has none:
its shadow has its bindings. All state is on the broker: whatever was interrupted, the next plan is made from the
queues, exchanges, bindings and pauses that are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rabbitry.amqp.client import Connection
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.wiring import pausing
from rabbitry.flow.wiring.moving import passage, ready
from rabbitry.flow.wiring.pausing import pause_queue
from rabbitry.flow.wiring.retries import suspects_queue
from rabbitry.flow.wiring.topology import ExchangeSpec, Finding, QueueSpec, check, derive

PAUSED_BY: Final = "rabbitry topology apply"
"""Who pauses a stage whose queue is replaced."""
_SHADOW: Final = ".moving"
_LONGEST_NAME: Final = 255
_LIMITS: Final = {"x-max-length": "messages", "x-max-length-bytes": "message_bytes"}
DROPPING: Final = ("max-length", "max-length-bytes", "message-ttl", "expires")
"""Members of a policy that would drop messages of a shadow."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A binding of a queue or an exchange to an exchange."""

    source: str
    destination: str
    is_queue: bool
    key: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A queue or an exchange as the management API shows it.

    unsettled: messages in hand. policy: what policies set; None while that is not known, as of a new queue.
    """

    arguments: Mapping[str, Any]
    auto_delete: bool = False
    is_exclusive: bool = False
    messages: int = 0
    unsettled: int = 0
    consumers: int = 0
    message_bytes: int = 0
    policy: Mapping[str, Any] | None = None

    @property
    def queue_type(self) -> str:
        """The type of a queue."""
        return str(self.arguments.get("x-queue-type", "classic"))

    @property
    def size(self) -> float:
        """The average size of a message in bytes; 0 if it is not known."""
        return self.message_bytes / self.messages if self.messages else 0.0


class Sight(Protocol):
    """What AMQP does not tell: arguments, bindings, and the messages in hand. A management API tells it."""

    async def queue(self, name: str) -> Seen | None:
        """Return a queue; None if there is none."""

    async def exchange(self, name: str) -> Seen | None:
        """Return an exchange; None if there is none."""

    async def bindings_of_queue(self, name: str) -> Sequence[Bound]:
        """Return the bindings of a queue, without that to the default exchange."""

    async def bindings_of_exchange(self, name: str, *, as_source: bool) -> Sequence[Bound]:
        """Return the bindings from an exchange, or those that lead to it."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a replacement. messages: how many it moves, if it moves any."""

    action: str
    text: str
    messages: int | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """A queue or an exchange, and the steps that replace it.

    why: the broker's words for the difference. stage: the one that is paused meanwhile. problem: why it can't be
    replaced; then there are no steps.
    """

    item: QueueSpec | ExchangeSpec
    why: str
    steps: Sequence[Step] = ()
    stage: str | None = None
    problem: str = ""

    @property
    def what(self) -> str:
        """The kind and the name."""
        return f"{'queue' if isinstance(self.item, QueueSpec) else 'exchange'} '{self.item.name}'"


def shadow(name: str) -> str:
    """Return the name of what takes the place of a queue or an exchange."""
    return f"{name}{_SHADOW}"


async def bindings_of(sight: Sight, queue: str) -> list[Bound]:
    """Return the bindings of a queue, without that over which messages are moved to it."""
    return [one for one in await sight.bindings_of_queue(queue) if one.source != passage(queue)]


async def plan(connection: Connection, spec: AppSpec, sight: Sight) -> list[Replacement]:
    """Return what has to be replaced, exchanges first, and what an interrupted replacement has left to do.

    Raises:
        AccessRefused: The user may not declare something.
    """
    topology = derive(spec)
    different = {found.what: found for found in await check(connection, spec) if found.is_different}
    stages = {stage.queue: stage.name for stage in spec.stages.values()}
    stages |= {suspects_queue(spec.name, name): name for name in spec.stages}
    pauses = {pause_queue(spec.name, name) for name in spec.stages}
    plans: list[Replacement] = []
    for exchange in topology.exchanges:
        made = await _plan_exchange(exchange, different.get(f"exchange '{exchange.name}'"), sight)
        plans += [] if made is None else [made]
    for queue in topology.queues:
        found = different.get(f"queue '{queue.name}'")
        look = _Look(connection, sight, queue, found, stages.get(queue.name))
        made = await look.plan(is_pause=queue.name in pauses)
        plans += [] if made is None else [made]
    paused = {item.stage for item in plans}
    for name in spec.stages:  # an interrupted run may have left one paused, and nothing else
        if name not in paused and await _is_paused_by_us(connection, spec.name, name):
            queue = next(item for item in topology.queues if item.name == spec.stages[name].queue)
            plans.append(Replacement(queue, "it was replaced, and its stage is paused", [_resume(name)], name))
    return plans


async def _is_paused_by_us(connection: Connection, app: str, stage: str) -> bool:
    with contextlib.suppress(pausing.NoSuchStage):
        found = await pausing.paused(connection, app, stage)
        return found is not None and found.by == PAUSED_BY
    return False


def _resume(stage: str) -> Step:
    return Step("resume", f"resume stage '{stage}', unless somebody else had paused it")


@dataclass(frozen=True, slots=True)
class _Look:
    """A queue of the app, and the difference that was found. stage: the one that has to be paused."""

    connection: Connection
    sight: Sight
    item: QueueSpec
    found: Finding | None
    stage: str | None

    async def plan(self, *, is_pause: bool) -> Replacement | None:
        """Return the plan for this queue; None if nothing is to do. is_pause: whether its message pauses a stage."""
        name, other = self.item.name, shadow(self.item.name)
        here, there = await ready(self.connection, name), await ready(self.connection, other)
        if self.found is None and there is None:
            return None
        why = "an interrupted replacement is not done" if self.found is None else self.found.text
        seen = None if here is None else await self.sight.queue(name)
        messages = (here or 0) + (there or 0)
        problem = _problem(self.item, seen, messages)
        if not problem and is_pause and messages:
            problem = "its stage is paused: resume it first"
        if problem:
            return Replacement(self.item, why, problem=problem)
        steps = await self._steps(seen, here or 0, there or 0)
        if self.stage is not None:
            pause = f"pause stage '{self.stage}', so that its workers finish what they have in hand"
            steps = [Step("pause", pause), *steps, _resume(self.stage)]
        return Replacement(self.item, why, steps, self.stage)

    async def _steps(self, seen: Seen | None, here: int, there: int) -> list[Step]:
        name, other = self.item.name, shadow(self.item.name)
        bindings = len(await bindings_of(self.sight, other if self.found is None else name))
        bound = f"{bindings} binding{'' if bindings == 1 else 's'}"
        steps = []
        if self.found is not None and seen is not None:
            users = f"now it has {seen.consumers} consumers and {seen.unsettled} messages in hand"
            steps = [
                Step("wait", f"wait until nobody consumes '{name}'; {users}"),
                Step("shadow", f"declare queue '{other}'"),
                Step("move-out", f"move the messages of '{name}' to '{other}'", here),
                Step("rebind-out", f"bind '{other}' in place of '{name}' ({bound}), and move what came meanwhile"),
            ]
            there += here
        if self.found is not None or seen is None:
            steps.append(Step("swap", f"delete '{name}' and declare it anew: {_described(self.item)}"))
        return [
            *steps,
            Step("move-back", f"move the messages of '{other}' to '{name}'", there),
            Step("rebind-back", f"bind '{name}' in place of '{other}' ({bound}), and move what came meanwhile"),
            Step("remove", f"delete '{other}', which is empty"),
        ]


def _problem(item: QueueSpec, seen: Seen | None, messages: int) -> str:
    """Return why a queue can't be replaced without losing messages; empty if it can."""
    if len(passage(shadow(item.name)).encode()) > _LONGEST_NAME:
        return f"its name is too long for a queue '{_SHADOW}' beside it"
    if "stream" in (item.arguments.get("x-queue-type"), seen and seen.queue_type):
        return "the messages of a stream can't be moved with their offsets"
    if seen is not None and (seen.auto_delete or seen.is_exclusive):
        return "it goes with its consumers: stop the programs that consume it"
    for limit, what in _LIMITS.items():
        most, found = item.arguments.get(limit), messages if what == "messages" else seen and seen.message_bytes
        if isinstance(most, int) and found and found > most:
            return f"it has {found} {what.replace('_', ' ')}, and {limit} would be {most}: some would be lost"
    return ""


def _described(item: QueueSpec | ExchangeSpec) -> str:
    flags = ["durable" if item.durable else "not durable"]
    if isinstance(item, ExchangeSpec):
        return ", ".join([item.type, *flags])
    return ", ".join([*flags, *(f"{name}={value}" for name, value in item.arguments.items())])


async def _plan_exchange(item: ExchangeSpec, found: Finding | None, sight: Sight) -> Replacement | None:
    name, other = item.name, shadow(item.name)
    kept = await sight.exchange(other)
    if found is None and kept is None:
        return None
    why = "an interrupted replacement is not done" if found is None else found.text
    if name.startswith("amq."):
        return Replacement(item, why, problem="it is the broker's own: give the app another with exchange=…")
    if len(other.encode()) > _LONGEST_NAME:
        return Replacement(item, why, problem=f"its name is too long for an exchange '{_SHADOW}' beside it")
    if leading := await sight.bindings_of_exchange(name, as_source=False):
        return Replacement(item, why, problem=f"it is bound to exchange '{leading[0].source}': unbind it first")
    bindings = await sight.bindings_of_exchange(name if found is not None else other, as_source=True)
    bound = f"{len(bindings)} binding{'' if len(bindings) == 1 else 's'}"
    steps = [] if found is None else [Step("shadow", f"declare exchange '{other}' with the {bound} of '{name}'")]
    return Replacement(
        item,
        why,
        [
            *steps,
            Step("swap", f"delete '{name}', declare it anew ({_described(item)}), and bind what was bound ({bound})"),
            Step("remove", f"delete exchange '{other}'"),
        ],
    )
