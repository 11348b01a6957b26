"""The round robin of a queue's consumers: all of the highest priority, then those of the next priority."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._firehose import TracedChannel
from rabbitry.broker.message import Entry


class QueueConsumer(Protocol):
    """The part of a consumer that a queue uses."""

    @property
    def tag(self) -> str:
        """The tag, unique on its channel."""

    @property
    def priority(self) -> int:
        """Its priority; a lower one gets messages only if no higher one has room."""

    @property
    def exclusive(self) -> bool:
        """Whether it is the queue's only consumer (exclusive)."""

    @property
    def arguments(self) -> Table:
        """The arguments that it was started with."""

    @property
    def channel(self) -> TracedChannel:
        """Its channel."""

    parked: bool
    """Whether it left the round robin for lack of room."""

    def has_room(self) -> bool:
        """Return whether it may get another message."""

    def park(self) -> None:
        """Leave the round robin until there is room; the queue's `turns.unpark` ends that."""

    def deliver(self, entry: Entry) -> None:
        """Send a message to the client."""

    def on_queue_deleted(self) -> None:
        """End the consumer: its queue was deleted."""

    def tell_cancelled(self) -> None:
        """Notify the client that the queue was deleted."""


class Turns:
    """A queue's consumers. One without room leaves until it has some, so that none is asked in vain.

    alone: only one consumer is active, until it ends (RabbitMQ's docs/consumers, single active consumer).
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.consumers: dict[QueueConsumer, None] = {}
        self.circles: list[deque[QueueConsumer]] = []
        self.active: QueueConsumer | None = None
        self._alone = alone
        self._priorities: list[int] = []

    def __len__(self) -> int:
        return len(self.consumers)

    def __iter__(self) -> Iterator[QueueConsumer]:
        return iter(self.consumers)

    @property
    def has_exclusive(self) -> bool:
        """Whether its only consumer is exclusive."""
        return len(self.consumers) == 1 and next(iter(self)).exclusive

    def add(self, consumer: QueueConsumer) -> None:
        """Add a consumer to the round robin."""
        self.consumers[consumer] = None
        if not self._alone:
            self._enter(consumer)
        elif self.active is None:
            self._activate(consumer)

    def remove(self, consumer: QueueConsumer) -> None:
        """Remove a consumer from the round robin."""
        if consumer not in self.consumers:
            return
        del self.consumers[consumer]
        if not consumer.parked and (not self._alone or consumer is self.active):
            self.circles[self._priorities.index(consumer.priority)].remove(consumer)
        if consumer is self.active:
            self.active = None
            if self.consumers:
                self._activate(max(self.consumers, key=lambda waiting: waiting.priority))

    def clear(self) -> list[QueueConsumer]:
        """Remove all consumers, and return them."""
        consumers = list(self.consumers)
        self.consumers.clear()
        self.circles.clear()
        self._priorities.clear()
        self.active = None
        return consumers

    def unpark(self, consumer: QueueConsumer) -> None:
        """Return a consumer that had no room to the round robin."""
        if consumer.parked and consumer in self.consumers:
            consumer.parked = False
            self._enter(consumer)

    def is_active(self, consumer: QueueConsumer) -> bool:
        """Return whether a consumer gets messages."""
        return not self._alone or consumer is self.active

    def _activate(self, consumer: QueueConsumer) -> None:
        self.active = consumer
        self._enter(consumer)

    def _enter(self, consumer: QueueConsumer) -> None:
        if consumer.priority not in self._priorities:
            self._priorities = sorted([*self._priorities, consumer.priority], reverse=True)
            self.circles.insert(self._priorities.index(consumer.priority), deque())
        self.circles[self._priorities.index(consumer.priority)].append(consumer)
