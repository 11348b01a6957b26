"""Quorum queues: they store every message, and count its deliveries (RabbitMQ's docs/quorum-queues).

In this broker they have a single member.
"""

from __future__ import annotations

from collections.abc import Iterator

from rabbitry.broker._queues.dead_letter import DELIVERY_LIMIT
from rabbitry.broker._queues.lane import Lane
from rabbitry.broker._queues.queue import Queue
from rabbitry.broker.message import Entry


class QuorumQueue(Queue):
    """A quorum queue.

    A requeued message goes to the front, behind those requeued before it. A message that a client returns goes to the
    end if there is no delivery limit, as in RabbitMQ 3.10's rabbit_fifo.
    """

    __slots__ = ()

    def _append(self, lane: Lane, entry: Entry) -> None:
        if self.id:
            entry.message.persistent = True  # a quorum queue stores every message
        super()._append(lane, entry)

    def kept(self) -> Iterator[Entry]:
        """Yield all entries in memory: a quorum queue stores transient messages too."""
        return self.held()

    def _take_back(self, entry: Entry, *, asked: bool) -> None:
        entry.deliveries += 1
        limit = self.rules.delivery_limit
        if limit is not None and entry.deliveries > limit:
            self._give_up(entry, DELIVERY_LIMIT)
        elif asked and limit is None:
            self._append_again(entry)
        else:
            self._returns += 1
            self._put_back(entry, self._returns)

    def _append_again(self, entry: Entry) -> None:
        """Move a message to the end; for the store it is a new one."""
        again = Entry(self._next_position, entry.message.again())
        self._next_position += 1
        self._unpublished += 1
        again.priority, again.expires = entry.priority, entry.expires
        again.redelivered, again.deliveries = True, entry.deliveries
        if entry.stored:
            self.journal.remove(self, entry, is_moving=True)
        self._append(self._lane_at(entry.priority), again)
