"""The frozen description of an app, derived from it: all that workers, publishers and the topology know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rabbitry.exceptions import UsageError
from rabbitry.flow._key_limit import KeyLimit
from rabbitry.flow._parts import Join
from rabbitry.flow._plan import Plan
from rabbitry.flow._rate import Rate
from rabbitry.flow.key import Key
from rabbitry.flow.middleware import Middleware
from rabbitry.flow.schedule import Schedule
from rabbitry.flow.stage import Output, Stage

ExchangeType: TypeAlias = Literal["direct", "topic", "fanout"]
QueueType: TypeAlias = Literal["classic", "quorum"]


@dataclass(frozen=True, slots=True, eq=False)
class AppSpec:
    """The names of an app on the broker, its stages and its outputs. Made by `App.spec`; see `App` for the fields.

    stages: by name. outputs: by key. exchanges: by key, if it is not the app's own. types: by key, if it has one.
    lifespans, middlewares: the first one is the outermost. joins, schedules, rates, totals (of
    calls at once), key_limits: by the name of their stage.
    """

    name: str
    exchange: str
    exchange_type: ExchangeType
    queue_type: QueueType
    plain: bool
    cancellable: bool
    auto_delete: frozenset[str]
    stages: Mapping[str, Stage]
    outputs: Mapping[str, Output]
    exchanges: Mapping[str, str]
    types: Mapping[str, Key[Any]]
    lifespans: tuple[Plan, ...]
    middlewares: tuple[Middleware, ...]
    joins: Mapping[str, Join]
    schedules: Mapping[str, Schedule]
    rates: Mapping[str, Rate]
    totals: Mapping[str, int]
    key_limits: Mapping[str, KeyLimit]
    store: str | None
    window: float

    @property
    def keys(self) -> list[str]:
        """The routing keys of all stages and outputs."""
        return [*(stage.key for stage in self.stages.values()), *self.outputs]

    def select(self, names: Sequence[str] | None) -> list[Stage]:
        """Return the stages of these names, or all.

        Raises:
            UsageError: The app has no stage of such a name, or `names` is one name and no list.
        """
        if isinstance(names, str):
            raise UsageError(f"stages={names!r}: must be a list of names, such as [{names!r}]")
        if unknown := sorted(set(names or ()) - set(self.stages)):
            raise UsageError(f"app {self.name!r} has no stage {unknown[0]!r}; it has {', '.join(self.stages)}")
        return [stage for stage in self.stages.values() if names is None or stage.name in names]

    def leads_somewhere(self, key: str) -> bool:
        """Return whether a stage or an output takes messages with `key`."""
        keys = self.keys
        if self.exchange_type == "fanout":
            return bool(keys)
        if self.exchange_type == "direct":
            return key in keys
        return any(topic_matches(pattern, key) for pattern in keys)

    def queues_of(self, key: str) -> list[str]:
        """Return the names of the queues of stages and outputs that take messages with `key`."""
        items: list[Stage | Output] = [*self.stages.values(), *self.outputs.values()]
        exchange = self.exchange_of(key)
        queues = [
            item.queue
            for item in items
            if item.queue is not None
            and (item.exchange or self.exchange) == exchange
            and self._takes(item.key, key, "direct" if item.exchange else self.exchange_type)
        ]
        return list(dict.fromkeys(queues))

    @staticmethod
    def _takes(pattern: str, key: str, exchange_type: ExchangeType) -> bool:
        if exchange_type == "topic":
            return topic_matches(pattern, key)
        return exchange_type == "fanout" or pattern == key

    def replies_to(self, key: str) -> bool:
        """Return whether a stage that takes messages with `key` replies to their callers."""
        queues = self.queues_of(key)
        return any(self.is_answered(stage) and stage.queue in queues for stage in self.stages.values())

    def is_answered(self, stage: Stage) -> bool:
        """Return whether the caller of a stage's message gets a reply, from the stage or from the join of its parts."""
        return (stage.replies and stage.name not in self.joins) or self.is_joined_for_caller(stage)

    def is_joined_for_caller(self, stage: Stage) -> bool:
        """Return whether a join of the stage's results replies to the caller of the stage's message."""
        return any(join.of == stage.name and self.stages[name].replies for name, join in self.joins.items())

    def exchange_of(self, key: str) -> str:
        """Return the name of the exchange that messages with `key` are published to."""
        return self.exchanges.get(key, self.exchange)

    def version_of(self, key: str) -> int:
        """Return the version of the type of the messages with `key`."""
        typed = self.types.get(key)
        return 1 if typed is None else typed.version

    def is_required(self, key: str) -> bool:
        """Return whether somebody must take a message with `key`."""
        output = self.outputs.get(key)
        return output is None or output.required


def topic_matches(pattern: str, key: str) -> bool:
    """Return whether a routing key matches a topic exchange's binding key: `*` is one word, `#` any number.

    Each part of the pattern is taken once, with all the places that it may begin at, so that many `#` cost no more.
    """
    words = key.split(".")
    places = {0}
    for part in pattern.split("."):
        if part == "#":
            places = set(range(min(places), len(words) + 1))
        else:
            places = {place + 1 for place in places if place < len(words) and part in ("*", words[place])}
        if not places:
            return False
    return len(words) in places
