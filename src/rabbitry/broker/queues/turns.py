"""Whose turn it is at a queue: consumers of the highest priority in a circle, then the next priority's."""

from collections import deque
from collections.abc import Iterator

from rabbitry.broker.queues.consumer import Consumer


class Turns:
    """A queue's consumers. One without room is taken out until it has some, so none is asked in vain.

    alone: of all consumers only one is active, until it goes (RabbitMQ's docs/consumers, single active consumer).
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.consumers: dict[tuple[int, str], Consumer] = {}
        self.circles: list[deque[Consumer]] = []
        self.active: Consumer | None = None
        self._alone = alone
        self._priorities: list[int] = []

    def __len__(self) -> int:
        return len(self.consumers)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self.consumers.values())

    @property
    def has_exclusive(self) -> bool:
        """Whether its one consumer wants to be alone."""
        return any(consumer.exclusive for consumer in self.consumers.values())

    def add(self, consumer: Consumer) -> None:
        """Let a consumer take its turns."""
        self.consumers[id(consumer.channel), consumer.tag] = consumer
        if not self._alone:
            self._enter(consumer)
        elif self.active is None:
            self._activate(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Let a consumer take no more turns."""
        if self.consumers.pop((id(consumer.channel), consumer.tag), None) is None:
            return
        if not consumer.parked and (not self._alone or consumer is self.active):
            self.circles[self._priorities.index(consumer.priority)].remove(consumer)
        if consumer is self.active:
            self.active = None
            if self.consumers:
                self._activate(max(self.consumers.values(), key=lambda waiting: waiting.priority))

    def clear(self) -> list[Consumer]:
        """Forget all consumers, and say who they were."""
        consumers = list(self.consumers.values())
        self.consumers.clear()
        self.circles.clear()
        self._priorities.clear()
        self.active = None
        return consumers

    def unpark(self, consumer: Consumer) -> None:
        """Let a consumer that had no room take turns again."""
        if consumer.parked and (id(consumer.channel), consumer.tag) in self.consumers:
            consumer.parked = False
            self._enter(consumer)

    def is_active(self, consumer: Consumer) -> bool:
        """Whether a consumer gets messages."""
        return not self._alone or consumer is self.active

    def _activate(self, consumer: Consumer) -> None:
        self.active = consumer
        self._enter(consumer)

    def _enter(self, consumer: Consumer) -> None:
        if consumer.priority not in self._priorities:
            self._priorities = sorted([*self._priorities, consumer.priority], reverse=True)
            self.circles.insert(self._priorities.index(consumer.priority), deque())
        self.circles[self._priorities.index(consumer.priority)].append(consumer)
