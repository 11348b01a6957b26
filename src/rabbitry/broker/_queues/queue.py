"""A queue: its messages, its consumers in round robin, and its policy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple, Protocol

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._firehose import Firehose
from rabbitry.broker._policies import Policy, merged
from rabbitry.broker._queues.arguments import Rules, with_policy
from rabbitry.broker._queues.backlog import LONGEST_TURN, Backlog, Host
from rabbitry.broker._queues.expiry import Timer
from rabbitry.broker._queues.turns import QueueConsumer, Turns
from rabbitry.broker._store.batch import Found, Wanted
from rabbitry.broker.compat import Release
from rabbitry.broker.message import Entry

_LOOK: Final = 64
"""Deliveries between two checks of the clock."""


class QueueHost(Host, Protocol):
    """The part of a virtual host that a queue uses."""

    @property
    def release(self) -> Release:
        """The behaviour of the broker's release of RabbitMQ."""

    @property
    def firehose(self) -> Firehose | None:
        """Gets a copy of each delivery; None while tracing is off."""

    def work(self, steps: Iterator[None]) -> None:
        """Run the steps of a long operation, alternating with other clients."""

    def store_queue(self, queue: Queue) -> None:
        """Store the record of a queue."""

    def expire_queue(self, queue: Queue) -> None:
        """Delete a queue whose x-expires has passed, alternating with other clients."""


class Owner(Protocol):
    """The part of an exclusive queue's connection that the queue uses."""

    exclusive_queues: set[Queue]
    """The queues to delete with the connection."""

    @property
    def name(self) -> str:
        """The name of the connection, for operators."""


class Subscription(NamedTuple):
    """A consumer that a client asks for. shares_prefetch: whether the channel has a prefetch of its own."""

    arguments: Table
    prefetch: int
    no_ack: bool
    shares_prefetch: bool


class Queue(Backlog):
    """A queue of one virtual host.

    Each kind of queue is a subclass, which decides where requeued messages go and which operations it refuses. owner:
    the connection of an exclusive queue.
    """

    vhost: QueueHost
    has_exclusive_consumers: ClassVar[bool] = True
    """Whether a consumer may be exclusive; other kinds ignore the flag."""

    # Attributes in slots are read faster than those of an instance with more than 30 of them.
    __slots__ = (
        "__weakref__",
        "_is_overdue",
        "_own_rules",
        "_unused_timer",
        "arguments",
        "auto_delete",
        "durable",
        "operator_policy",
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
        self._set_up()
        super().__init__(vhost, name, rules)
        self.durable: bool = durable
        self.auto_delete: bool = auto_delete
        self.owner: Owner | None = owner
        self.arguments: Table = arguments
        self._own_rules = rules
        self.policy: Policy | None = None
        self.operator_policy: Policy | None = None
        self.turns: Turns = Turns(alone=rules.single_active_consumer)
        self._unused_timer = Timer()
        self._is_overdue = False
        """Whether it was unused for x-expires, and is to be deleted in its turn."""
        self.note_use()

    def _set_up(self) -> None:
        """Create what only this kind of queue has. The rules are read, and the limits applied, after that."""

    def follow(self, policy: Policy | None, operator_policy: Policy | None) -> None:
        """Apply arguments and policies from now on. Messages beyond the new limits are dropped at once."""
        if (policy, operator_policy) == (self.policy, self.operator_policy):
            return
        self.policy, self.operator_policy = policy, operator_policy
        self.rules = with_policy(self._own_rules, self.arguments, self.settings, self.vhost.release)
        self._read_rules()
        self.note_use()
        if self._is_over():
            self.dispatch()

    @property
    def more_of_record(self) -> Table:
        """The fields that only this kind of queue has in its record in the store."""
        return {}

    def read_record(self, value: Table) -> None:
        """Read `more_of_record` after a restart."""

    @property
    def settings(self) -> Table:
        """The settings of its policies that apply."""
        return merged(self.policy, self.operator_policy, self.vhost.release)

    @property
    def where(self) -> str:
        """Its name in error texts."""
        return f"queue '{self.name}' in vhost '{self.vhost.name}'"

    @property
    def declared_counts(self) -> tuple[int, int]:
        """The numbers of messages and consumers in the answer to a declare."""
        return len(self), len(self.turns)

    # -- refusals: each kind has its own ---------------------------------------------------------------

    @property
    def refused_of_consumers(self) -> tuple[str, ...]:
        """The arguments of consumers that this kind of queue refuses."""
        return ("x-stream-offset",)

    def check_consumer(self, wanted: Subscription) -> None:
        """Raise Refusal if the queue can't have such a consumer."""

    def check_get(self) -> None:
        """Raise Refusal if basic.get is not possible."""

    def check_return(self) -> None:
        """Raise Refusal if a client can't requeue or reject deliveries."""

    def check_purge(self) -> None:
        """Raise Refusal if the queue can't be purged."""

    def check_delete(self, *, if_unused: bool, if_empty: bool) -> None:
        """Raise Refusal if a condition of its deletion is not met."""
        if if_unused and len(self.turns):
            raise precondition_failed(f"{self.where} in use")
        if if_empty and len(self):
            raise precondition_failed(f"{self.where} not empty")

    # -- consumers -------------------------------------------------------------------------------------

    def add_consumer(self, consumer: QueueConsumer) -> None:
        """Add a consumer to the round robin."""
        self.turns.add(consumer)
        self.note_use()

    def remove_consumer(self, consumer: QueueConsumer) -> None:
        """Remove a consumer from the round robin."""
        self.turns.remove(consumer)
        self.note_use()
        self._dispatcher.touch(self)  # another consumer may be the active one now

    def get(self) -> Entry | None:
        """Take the first message, for basic.get.

        None with `ready` above 0 means that the message is loading from the store, or that messages are being requeued.
        """
        self.note_use()
        if self.returning:
            return None
        entry = self.take(time.time() if self._expiring else 0.0)
        if self._expiring:
            self.drop_expired()  # the answer has the number of messages left
        if entry is not None:
            self.got += 1
        return entry

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Add entries that were read from the store, and deliver them."""
        super().loaded(wanted, found)
        self._dispatcher.touch(self)
        self._dispatcher.dispatch_soon()  # very many queues may have been read together

    # -- delivering ------------------------------------------------------------------------------------

    def dispatch(self, now: float = 0.0) -> None:
        """Deliver ready messages round robin while consumers have room; then apply the queue's limits.

        Args:
            now: POSIX seconds; messages that expire later count as alive.
        """
        if self.is_busy:
            return  # touched again once all are requeued
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
        """Deliver while consumers have room. Return False if that takes long and continues in a later iteration."""
        delivered = 0
        ends_at = 0.0
        firehose = self.vhost.firehose
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
                if firehose is not None:
                    firehose.delivered(self.name, consumer.channel, entry)
                delivered += 1
                # A copy may go to very many queues, and a delivery count is written into a header of any length.
                if firehose is not None or entry.deliveries or not delivered % _LOOK:
                    ends_at = ends_at or time.monotonic() + LONGEST_TURN
                    if time.monotonic() > ends_at:
                        self._go_on_later()
                        return False
        return not self._goes_on  # set if very many messages had expired

    # -- the end ---------------------------------------------------------------------------------------

    def note_use(self) -> None:
        """Restart the timer of a queue that is deleted after a time without use (x-expires)."""
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

    def delete(self) -> int:
        """End the queue, and return the number of its ready messages.

        Its unsettled deliveries are dropped, and later settlements of them are ignored.
        """
        self.is_deleted = True
        count, steps = self.purge()
        self.vhost.work(steps)
        self.close()
        return count

    def close(self) -> None:
        """Stop the timers."""
        self._timer.stop()
        self._unused_timer.stop()
