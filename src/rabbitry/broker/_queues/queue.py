"""A queue: the messages that wait, the consumers that take turns, and the policy that it follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues.arguments import Rules, with_policy
from rabbitry.broker._queues.backlog import LONGEST_TURN, Backlog, Host
from rabbitry.broker._queues.expiry import Timer
from rabbitry.broker._queues.turns import QueueConsumer, Turns
from rabbitry.broker._store.batch import Found, Wanted
from rabbitry.broker.message import Entry

_LOOK: Final = 64
"""Deliveries between two readings of the clock."""


class QueueHost(Host, Protocol):
    """The virtual host of a queue, as far as the queue needs it."""

    def work(self, steps: Iterator[None]) -> None:
        """Take the steps of a long operation, in turns with other clients."""

    def expire_queue(self, queue: Queue) -> None:
        """Delete a queue that nobody has used for long, in turns with other clients."""


class Owner(Protocol):
    """The connection of an exclusive queue, as far as the queue needs it."""

    exclusive_queues: set[Queue]
    """The queues to delete with the connection."""

    @property
    def name(self) -> str:
        """The name of the connection, for operators."""


class Queue(Backlog):
    """A queue of one virtual host.

    Each kind of queue is a subclass, which says where a message goes that comes back. owner: the connection that an
    exclusive queue belongs to.
    """

    vhost: QueueHost

    # Attributes in slots are read faster than those of an instance with more than 30 of them.
    __slots__ = (
        "__weakref__",
        "_is_overdue",
        "_own_rules",
        "_unused_timer",
        "arguments",
        "auto_delete",
        "durable",
        "owner",
        "policy",
        "turns",
    )

    def __init__(
        self,
        vhost: QueueHost,
        name: str,
        *,
        durable: bool,
        auto_delete: bool,
        owner: Owner | None,
        arguments: Table,
        rules: Rules,
    ) -> None:
        super().__init__(vhost, name, rules)
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments
        self._own_rules = rules
        self.policy: Policy | None = None
        self.turns = Turns(alone=rules.single_active_consumer)
        self._unused_timer = Timer()
        self._is_overdue = False
        """Whether nobody used it for as long as it may be unused (x-expires), so that it is deleted at its turn."""
        self.note_use()

    def follow(self, policy: Policy | None) -> None:
        """Do from now on what arguments and policy ask for. What is too many by the new rules goes at once."""
        if policy == self.policy:
            return
        self.policy = policy
        definition = policy.definition if policy is not None else {}
        self.rules = with_policy(self._own_rules, self.arguments, definition)
        self._read_rules()
        self.note_use()
        if self._is_over():
            self.dispatch()

    # -- consumers -------------------------------------------------------------------------------------

    def add_consumer(self, consumer: QueueConsumer) -> None:
        """Add a consumer to the round robin."""
        self.turns.add(consumer)
        self.note_use()

    def remove_consumer(self, consumer: QueueConsumer) -> None:
        """Remove a consumer from the round robin."""
        self.turns.remove(consumer)
        self.note_use()
        self._dispatcher.touch(self)  # another one may be the active one now

    def get(self) -> Entry | None:
        """Take the first message, for basic.get.

        None with `ready` above 0 says that the store was asked for it, or that much is `returning`.
        """
        self.note_use()
        if self.returning:
            return None
        entry = self.take(time.time() if self._expiring else 0.0)
        if self._expiring:
            self.drop_expired()  # what is left is counted in the answer
        if entry is not None:
            self.got += 1
        return entry

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Take entries that were read from the store, and deliver them."""
        super().loaded(wanted, found)
        self._dispatcher.touch(self)
        self._dispatcher.dispatch()

    # -- delivering ------------------------------------------------------------------------------------

    def dispatch(self, now: float = 0.0) -> None:
        """Deliver ready messages round robin while consumers have room; then apply the queue's limits.

        Args:
            now: POSIX seconds; messages that expire later are alive.
        """
        if self.is_busy:
            return  # it is touched again once all are requeued
        if self._expiring:
            now = self._as_of or now or time.time()
            self._as_of = 0.0
        if not self._deliver(now):
            return
        if self._expiring:
            self.drop_expired()
        if self._limits.exist and self._is_over():
            self._drop_what_is_over()  # after delivery: messages consumed at once never exceed a limit

    def _deliver(self, now: float) -> bool:
        """Deliver as far as consumers have room. Return False if that takes long and goes on in a later turn."""
        delivered = 0
        ends_at = 0.0
        for circle in self.turns.circles:
            while circle and self.ready:
                consumer = circle[0]
                if not consumer.has_room():
                    circle.popleft()
                    consumer.park()
                    continue
                entry = self.take(now)
                if entry is None:
                    break
                circle.rotate(-1)
                consumer.deliver(entry)
                delivered += 1
                if not delivered % _LOOK:
                    ends_at = ends_at or time.monotonic() + LONGEST_TURN
                    if time.monotonic() > ends_at:
                        self._go_on_later()
                        return False
        return not self._goes_on  # for then very much had expired

    # -- the end ---------------------------------------------------------------------------------------

    def note_use(self) -> None:
        """Begin anew to wait for the end of a queue that is deleted when nobody uses it (x-expires)."""
        expires = self.rules.expires
        self._unused_timer.stop()
        self._is_overdue = False
        if expires is not None and not len(self.turns):
            self._unused_timer.start(expires / 1000, self._when_overdue)

    def _when_overdue(self) -> None:
        self._is_overdue = True
        self._dispatcher.wait(self._on_unused)

    def _on_unused(self) -> None:
        if self._is_overdue and not self.is_deleted:
            self.vhost.expire_queue(self)

    def delete(self) -> None:
        """End a queue: what was not settled goes with it, whatever its consumers still say of it."""
        self.is_deleted = True
        _, steps = self.purge()
        self.vhost.work(steps)
        self.close()

    def close(self) -> None:
        """Stop the timers."""
        self._timer.stop()
        self._unused_timer.stop()
