"""The topic `queue`: one queue with its bindings, consumers, policy and arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from rabbitry.apps.management import part_of
from rabbitry.exceptions import UsageError
from rabbitry.web.feed.topics import Params, Part, SeenValue, Subscription, Topic, Value
from rabbitry.web.sources.fields import Object, text
from rabbitry.web.sources.lists import LISTINGS, binding_row, consumer_row, queue_row


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of the topic."""

    vhost: str
    name: str


class QueueTopic(Topic):
    """A value for each queue that a page subscribes to.

    Attributes:
        asked: Set when a page subscribes to a queue that nobody has asked for yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: asyncio.Event = asyncio.Event()
        self._values: WeakValueDictionary[Which, Value] = WeakValueDictionary()

    def which(self) -> list[Which]:
        """Return the queues that pages subscribe to."""
        return list(self._values)

    def put(self, which: Which, value: Mapping[str, Any], at: float) -> None:
        """Replace what is known of a queue."""
        if (known := self._values.get(which)) is not None:
            known.put(value, at)
        self.ring()

    def _subscription(self, params: Params) -> Subscription:
        try:
            which = msgspec.convert(params, Which)
        except msgspec.ValidationError as error:
            raise UsageError(f"parameters of a queue: {error}") from error
        value = self._values.get(which)
        if value is None:
            value = self._values[which] = Value()
            self.asked.set()
        return _SeenQueue(value)


class _SeenQueue(SeenValue):
    """A subscription, which alone keeps its value."""

    def take(self) -> Part | None:
        """Return what changed; nothing before anything is known."""
        return super().take() if self._topic.at is not None else None


def queue_value(queue: Object, bindings: Sequence[Object], consumers: Sequence[Object]) -> dict[str, Any]:
    """Return what pages show of a queue; each row as an object."""
    return {
        "state": "live",
        "queue": _named("queues", queue_row(queue)),
        "arguments": part_of(queue, "arguments"),
        "policy": {
            "name": text(queue.get("policy")),
            "definition": part_of(queue, "effective_policy_definition"),
        },
        "bindings": [_named("bindings", binding_row(each)) for each in bindings],
        "consumers": [_named("consumers", consumer_row(each)) for each in consumers],
    }


def _named(topic: str, row: Sequence[Any]) -> dict[str, Any]:
    columns = next(listing.columns for listing in LISTINGS if listing.topic == topic)
    return dict(zip((column.name for column in columns), row, strict=True))
