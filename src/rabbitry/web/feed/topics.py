"""Topics: live data under a name, and what a page has seen of them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from rabbitry.apps import Role

Part: TypeAlias = dict[str, Any]
Params: TypeAlias = Mapping[str, Any]


class Subscription(ABC):
    """What one page has seen of a topic."""

    @abstractmethod
    def take(self) -> Part | None:
        """Return what changed since the last call, everything at the first one; None if nothing changed."""


class Topic(ABC):
    """Live data. A source changes it, and then calls `ring`.

    Attributes:
        role: The role that a user needs to subscribe; an admin by default.
        wanted: Set while a page subscribes, so that a source need not work for nobody.
        at: The Unix time at which the source had the data; None before there is any.
    """

    role: Role = Role.ADMIN

    def __init__(self) -> None:
        self.wanted: asyncio.Event = asyncio.Event()
        self.at: float | None = None
        self._bells: dict[Subscription, Callable[[], None]] = {}

    def subscribe(self, params: Params, bell: Callable[[], None]) -> Subscription:
        """Subscribe; `bell` is called after each change, until `unsubscribe`.

        Raises:
            UsageError: The parameters make no sense.
        """
        subscription = self._subscription(params)
        self._bells[subscription] = bell
        self.wanted.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        del self._bells[subscription]
        if not self._bells:
            self.wanted.clear()

    def subscriptions(self) -> list[Subscription]:
        """Return what pages subscribe to."""
        return list(self._bells)

    def ring(self) -> None:
        """Wake the pages that are subscribed, since something changed."""
        for bell in self._bells.values():
            bell()

    @abstractmethod
    def _subscription(self, params: Params) -> Subscription:
        """Return a new subscription. Raises UsageError."""


class Value(Topic):
    """One object, of which a page is sent the members that change."""

    def __init__(self, value: Params | None = None) -> None:
        super().__init__()
        self.value: Params = value or {}

    def put(self, value: Params, at: float) -> None:
        """Replace the object. The caller does not change it afterwards."""
        self.value, self.at = value, at
        self.ring()

    def _subscription(self, params: Params) -> Subscription:
        return SeenValue(self)


class SeenValue(Subscription):
    """The members of an object as a page was sent them last."""

    def __init__(self, topic: Value) -> None:
        self._topic = topic
        self._value: Params | None = None
        self._at: float | None = None

    def take(self) -> Part | None:
        """Return the members that changed."""
        value, before = self._topic.value, self._value
        part: Part = {}
        if before is None:
            part["value"] = value
        elif value is not before:
            changed = {name: new for name, new in value.items() if name not in before or before[name] != new}
            gone = [name for name in before if name not in value]
            part |= ({"set": changed} if changed else {}) | ({"unset": gone} if gone else {})
        self._value = value
        if self._topic.at != self._at:
            part["at"] = self._at = self._topic.at
        return part or None


async def any_wanted(*topics: Topic) -> None:
    """Wait until a page subscribes to one of the topics."""
    if any(topic.wanted.is_set() for topic in topics):
        return
    waiting = [asyncio.create_task(topic.wanted.wait()) for topic in topics]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
