"""Quorum queues: they store every message, and count its deliveries (RabbitMQ's docs/quorum-queues).

In this broker they have a single member.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.broker._errors import ChannelRefusal, not_implemented
from rabbitry.broker._queues.dead_letter import DELIVERY_LIMIT
from rabbitry.broker._queues.lane import Lane
from rabbitry.broker._queues.queue import Queue, Subscription
from rabbitry.broker._store.rows import MOST_RETURNS
from rabbitry.broker.message import Entry, Message

_FROM: Final = 5
"""The lowest high priority."""
_HIGH: Final = 1
_RETURNED: Final = 2
"""Lanes of messages with a high priority, and of requeued messages, which the store has in the lanes of their own."""
_ROUND: Final = 3


class QuorumQueue(Queue):
    """A quorum queue.

    A requeued message goes to the front, behind those requeued before it. A message that a client returns goes to the
    end if there is no delivery limit, as in RabbitMQ's rabbit_fifo.
    """

    __slots__ = ("_latest", "_run")
    has_exclusive_consumers: ClassVar[bool] = False

    def _set_up(self) -> None:
        self._latest = -1
        """The position of the last message that came back to the front."""
        self._run = 1
        """The number of the run that it is part of, which the store keeps for the order after a restart.

        Messages of one run came back in the order of their positions: most often all that a channel returns, so that
        the store writes the same into all of them.
        """

    @property
    def refused_of_consumers(self) -> tuple[str, ...]:
        """The arguments of consumers that a quorum queue refuses."""
        more = ("x-cancel-on-ha-failover",) if self.vhost.release.checks_mirroring else ()
        return (*super().refused_of_consumers, *more)

    def check_consumer(self, wanted: Subscription) -> None:
        """Refuse consumers that share the channel's prefetch (540)."""
        if wanted.shares_prefetch:
            raise not_implemented(f"{self.where} does not support global qos")

    def check_get(self) -> None:
        """Refuse basic.get beside a single active consumer (405)."""
        if self.rules.single_active_consumer:
            text = (
                f"cannot obtain access to locked {self.where}. "
                "basic.get operations are not supported by quorum queues with single active consumer"
            )
            raise ChannelRefusal(Reply.RESOURCE_LOCKED, text)

    def check_delete(self, *, if_unused: bool, if_empty: bool) -> None:
        """Refuse conditions (540)."""
        for flag, given in (("if-unused", if_unused), ("if-empty", if_empty)):
            if given:
                raise not_implemented(
                    f"cannot delete {self.where}. queue.delete operations with {flag} flag set are not supported by "
                    "quorum queues"
                )

    def _append(self, lane: Lane, entry: Entry) -> None:
        if self.id:
            entry.is_kept = True  # a quorum queue stores every message
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
            entry.returns = self._next_run(entry.position)
            self._returns += 1
            self._put_back(entry, self._returns)

    def _next_run(self, position: int) -> int:
        """Return the run of a message that comes back to the front."""
        if not any(lane.returned for lane in self._lanes):
            self._run = 1
        elif position < self._latest:
            self._run = min(self._run + 1, MOST_RETURNS)
        self._latest = position
        return self._run

    def _put_first(self, lane: Lane, entries: list[Entry]) -> list[Entry]:
        returned = [entry for entry in entries if entry.returns]
        if not returned:
            return entries
        front = self._lane_of_returned(lane)
        for entry in returned:  # before all that come back from now on: their order is negative
            front.put_back(entry, (entry.returns - MOST_RETURNS - 1 << 64) + entry.position)
        self._run = max(self._run, *(entry.returns for entry in returned))
        self._latest = max(self._latest, *(entry.position for entry in returned))
        return [entry for entry in entries if not entry.returns]

    def _lane_of_returned(self, lane: Lane) -> Lane:
        """Return the lane for messages that came back, given the one that the store has them in."""
        return lane

    def _append_again(self, entry: Entry) -> None:
        """Move a message to the end; for the store it is a new one."""
        again = Entry(self.next_position, entry.message.again())
        self.next_position += 1
        self._unpublished += 1
        again.priority, again.expires = entry.priority, entry.expires
        again.redelivered, again.deliveries = True, entry.deliveries
        if entry.stored:
            self.journal.remove(self, entry, is_moving=True)
        self._append(self._lane_at(entry.priority), again)


class PrioritizedQuorumQueue(QuorumQueue):
    """A quorum queue with two priorities (RabbitMQ 4's docs/quorum-queues, and its rabbit_fifo_q).

    Of three messages taken from the queue, the third is one without a high priority, if there is one; the first two are
    ones with a high priority, if there are any. Requeued messages of both come first.
    """

    __slots__ = ("_taken",)

    def _set_up(self) -> None:
        super()._set_up()
        self._taken = 0
        """Number of messages of the current three that were taken."""

    def _read_rules(self) -> None:
        super()._read_rules()
        self._plain = False  # the priority of each message matters

    def _lane_of(self, message: Message) -> Lane:
        return self._lane_at(_HIGH) if message.priority >= _FROM else self._lane

    def _put_back(self, entry: Entry, order: int) -> None:
        if entry.stored:
            self.journal.change(self, entry)
        self.ready += 1
        self.ready_bytes += len(entry.message.body)
        self._lane_at(_RETURNED).put_back(entry, order)

    def _lane_of_returned(self, lane: Lane) -> Lane:
        return self._lane_at(_RETURNED)

    def take(self, now: float) -> Entry | None:
        """Take the first message as `Backlog.take` does."""
        if any(lane.tail and lane.loaded_to < 0 for lane in self._lanes):
            return None  # after a restart, requeued messages come first, in whichever lane the store has them
        is_returned = self._sort_lanes()
        entry = super().take(now)
        if entry is not None and not is_returned:
            self._taken = (self._taken + 1) % _ROUND
        return entry

    def _drop_what_is_over(self) -> None:
        is_returned = self._sort_lanes()
        before = self.ready
        super()._drop_what_is_over()
        if not is_returned:
            self._taken = (self._taken + before - self.ready) % _ROUND

    def _sort_lanes(self) -> bool:
        """Order the lanes for the next message. Return whether it is a requeued one."""
        if len(self._lanes) == 1:
            return False
        normal_first = self._taken == _ROUND - 1
        self._lanes = sorted(
            self._lanes, key=lambda lane: (lane.priority != _RETURNED, lane.priority * (1 if normal_first else -1))
        )
        return bool(self._lanes[0].returned)
