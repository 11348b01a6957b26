"""Classic queues: a requeued message returns to its original position (RabbitMQ's docs/classic-queues)."""

from __future__ import annotations

from rabbitry.broker._queues.queue import Queue
from rabbitry.broker.message import Entry


class ClassicQueue(Queue):
    """A classic queue, which keeps the order in which messages were published."""

    __slots__ = ()

    def _take_back(self, entry: Entry, *, asked: bool) -> None:
        self._put_back(entry, entry.position)
