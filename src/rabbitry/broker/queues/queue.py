"""A queue: messages in order, consumers in turn, what expires, what is too many, and what becomes a dead letter."""

import time
from collections.abc import Iterator
from typing import Final, Protocol

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.dispatcher import Dispatcher
from rabbitry.broker.message import Entry, Message
from rabbitry.broker.policies import Policy
from rabbitry.broker.queues.arguments import Rules, with_policy
from rabbitry.broker.queues.contents import Contents
from rabbitry.broker.queues.dead_letter import EXPIRED, MAXLEN, REJECTED
from rabbitry.broker.queues.expiry import LONGEST_WAIT, Timer, expires_at
from rabbitry.broker.queues.limits import Limits
from rabbitry.broker.queues.turns import QueueConsumer, Turns
from rabbitry.broker.store.batch import Found, Wanted
from rabbitry.broker.store.journal import Journal

_LONGEST_TURN: Final = 0.008
"""Seconds for which a queue delivers or expires messages before others have their turn."""
_LOOK: Final = 64
"""Deliveries between two readings of the clock."""


class QueueHost(Protocol):
    """The virtual host of a queue, as far as the queue needs it."""

    @property
    def name(self) -> str:
        """The name of the virtual host."""

    @property
    def journal(self) -> Journal:
        """Where durable entries are kept."""

    @property
    def dispatcher(self) -> Dispatcher:
        """The round of deliveries in which queues have their turns."""

    def work(self, steps: Iterator[None]) -> None:
        """Take the steps of a long operation, in turns with other clients."""

    def dead_letter(self, queue: "Queue", message: Message, reason: str) -> None:
        """Publish a message that a queue gives up to the queue's exchange for dead letters."""

    def delete_queue(self, queue: "Queue") -> int:
        """Delete a queue, and return how many messages went with it."""


class Owner(Protocol):
    """The connection of an exclusive queue, as far as the queue needs it."""

    exclusive_queues: set["Queue"]
    """The queues to delete with the connection."""

    @property
    def name(self) -> str:
        """The name of the connection, for operators."""


class Queue(Contents):
    """A queue of one virtual host.

    Each kind of queue is a subclass, which says where a message goes that comes back. owner: the connection that an
    exclusive queue belongs to.
    """

    # Attributes in slots are read faster than those of an instance with more than 30 of them.
    __slots__ = (
        "__weakref__",
        "_as_of",
        "_dispatcher",
        "_goes_on",
        "_is_dropping",
        "_limits",
        "_own_rules",
        "_plain",
        "_returns",
        "_timer",
        "_unused_timer",
        "arguments",
        "auto_delete",
        "delivered",
        "durable",
        "given_back",
        "got",
        "got_no_ack",
        "got_nothing",
        "is_deleted",
        "name",
        "owner",
        "policy",
        "redelivered",
        "returning",
        "sent_no_ack",
        "settlements",
        "turns",
        "vhost",
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
        super().__init__(vhost.journal, rules)
        self.vhost = vhost
        self._dispatcher = vhost.dispatcher
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments
        self._own_rules = rules
        self.policy: Policy | None = None
        self.is_deleted = False
        self.turns = Turns(alone=rules.single_active_consumer)
        self.returning = 0
        """Channels that requeue many deliveries over several turns of the loop; nothing is delivered meanwhile."""
        self._goes_on = False
        """Whether it waits for its next turn to deliver, or to give up, the rest of what was too much for one."""
        self.delivered = self.got = self.settlements = self.redelivered = 0
        self.given_back = 0
        """Deliveries that were requeued or rejected."""
        self.got_no_ack = self.got_nothing = 0
        self.sent_no_ack = 0
        """Deliveries and gets without acknowledgement; `delivered`, `got` and `settlements` include them."""
        self._returns = 0
        """Messages that came back to their place in front of the others, where the kind of queue counts them."""
        self._is_dropping = False
        """Whether more is too much than one turn of the loop could drop, so that the next ones go on."""
        self._as_of = 0.0
        """When the first dead letter with a time-to-live of 0 came that was not dispatched yet."""
        self._timer = Timer()
        self._unused_timer = Timer()
        self._read_rules()
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

    def _read_rules(self) -> None:
        rules = self.rules
        self._limits = Limits(rules)
        self._expiring = self._expiring or rules.message_ttl is not None
        self._plain = not (self._limits.exist or rules.message_ttl is not None or rules.max_priority)

    @property
    def unsettled(self) -> int:
        """The number of deliveries that nobody has settled yet."""
        return self.delivered - self.settlements - self.given_back

    def counts(self) -> tuple[int, ...]:
        """Return the number of published messages, followed by the counts in the order of `counts.DELIVERED`."""
        deliver_no_ack = self.sent_no_ack - self.got_no_ack
        return (
            self.published,
            self.delivered - self.got - deliver_no_ack,
            deliver_no_ack,
            self.got - self.got_no_ack,
            self.got_no_ack,
            self.got_nothing,
            self.settlements - self.sent_no_ack,
            self.redelivered,
        )

    # -- messages come ---------------------------------------------------------------------------------

    def push(self, message: Message) -> bool:
        """Put a message at the end. Says whether the queue took it: one that is full may refuse."""
        if self._plain and message.expiration is None:
            position = self._next_position
            self._next_position = position + 1
            self._append(self._lane, Entry(position, message))
            return True
        taken = self._put(message)
        if taken is None:
            self._unpublished -= 1
            return False
        if taken.expires and taken.expires <= time.time():
            self.dispatch(taken.expires)  # with a time-to-live of 0 it is for a consumer that has room now
        if self._is_over() and not self._is_dropping:
            self.dispatch()
        return True

    def push_letter(self, letter: Message) -> None:
        """Put a dead letter at the end, where there is room. The next round of deliveries delivers it."""
        entry = self._put(letter)
        self._unpublished += entry is not None
        if entry is not None and entry.expires and not self._as_of and entry.expires <= time.time():
            self._as_of = entry.expires
        self._dispatcher.touch(self)

    def _put(self, message: Message) -> Entry | None:
        """Put a message at the end; None where the queue is full and refuses."""
        if self._limits.refuse and not self._has_room_for(message):
            if self._limits.dead_letter_refused:
                self.vhost.dead_letter(self, message, MAXLEN)
            return None
        entry = Entry(self._next_position, message)
        self._next_position += 1
        lane = self._lane_of(message)
        entry.priority = lane.priority
        if expires := expires_at(message, self.rules.message_ttl):
            entry.expires = expires
            self._expiring = True
        self._append(lane, entry)
        return entry

    # -- messages go -----------------------------------------------------------------------------------

    def take(self, now: float) -> Entry | None:
        """Take the first message, for delivery; None where there is none in memory (the store may be asked for more).

        It is None, too, where the queue `is_busy`. now: POSIX seconds; what expired before becomes a dead letter.
        """
        lane = self._lanes[0]
        if lane.ready and not lane.returned and not lane.ready[0].expires and not lane.tail:  # nearly always
            first = lane.ready.popleft()
            size = len(first.message.body)
            lane.size -= size
            self.ready -= 1
            self.ready_bytes -= size
            return first
        ends_at = 0.0
        for lane in self._lanes:
            while (entry := lane.take()) is not None:
                self.ready -= 1
                self.ready_bytes -= len(entry.message.body)
                if lane.tail:
                    self._load_more(lane)
                if not entry.expires or entry.expires >= now:
                    return entry
                self._give_up(entry, EXPIRED)
                ends_at = ends_at or time.monotonic() + _LONGEST_TURN
                if time.monotonic() > ends_at:
                    self._go_on_later()
                    return None
            if lane.tail:
                self._load(lane)
                return None  # what waits in the store stands before the lower priorities
        return None

    @property
    def is_busy(self) -> bool:
        """Whether the first message is not known yet, since an operation runs over several turns of the loop."""
        return bool(self.returning) or self._goes_on

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

    def settled(self, entry: Entry) -> None:
        """Forget a message that a consumer is done with."""
        self.settlements += 1
        if entry.stored:
            self.journal.remove(self, entry)

    def rejected(self, entry: Entry) -> None:
        """Drop or dead-letter a message that a consumer does not want."""
        self.given_back += 1
        if not self.is_deleted:
            self._give_up(entry, REJECTED)

    def requeue(self, entry: Entry, *, asked: bool = True) -> None:
        """Put a message back, which was `asked` for or comes of its channel's end; it will come as redelivered."""
        self.given_back += 1
        if self.is_deleted:
            return
        entry.redelivered = True
        if entry.expires:
            self._expiring = True  # nothing that expires may have been ready meanwhile
        self._take_back(entry, asked=asked)
        if self._is_over():
            self._drop_what_is_over()

    def _take_back(self, entry: Entry, *, asked: bool) -> None:
        """Put a message where those of this kind of queue go that come back."""
        raise NotImplementedError

    def _put_back(self, entry: Entry, order: int) -> None:
        """Put a message in front of the others, behind those that came back with a lower `order`."""
        if entry.stored:
            self.journal.change(self, entry)
        self.ready += 1
        self.ready_bytes += len(entry.message.body)
        self._lane_at(entry.priority).put_back(entry, order)

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

    def _give_up(self, entry: Entry, reason: str) -> None:
        """Make a dead letter of a message where the queue has an exchange for them, and forget it."""
        self.vhost.dead_letter(self, entry.message, reason)
        if entry.stored:
            self.journal.remove(self, entry, is_moving=self.rules.dead_letter_exchange is not None)

    # -- too many --------------------------------------------------------------------------------------

    def _drop_what_is_over(self) -> None:
        """Drop messages from the head until the queue is within its limits; those in the store alone, once read."""
        ends_at = time.monotonic() + _LONGEST_TURN
        self._is_dropping = False
        for lane in self._lanes:
            while self._is_over() and (entry := lane.take()) is not None:
                self.ready -= 1
                self.ready_bytes -= len(entry.message.body)
                self._give_up(entry, MAXLEN)
                if time.monotonic() > ends_at:
                    self._is_dropping = True
                    self._dispatcher.touch(self)
                    self._dispatcher.dispatch_later()
                    return
            if lane.tail:
                self._load_more(lane)
                return  # what waits in the store stands before the lower priorities

    # -- expiry ----------------------------------------------------------------------------------------

    def drop_expired(self) -> None:
        """Drop expired messages from the head until there is one that has not expired, and wait for that one.

        In a priority queue the head is that of the highest priority that has messages: what has expired at a lower
        one stays until it gets there, as on RabbitMQ. Where it is much, the rest waits for a next turn of the loop.
        """
        now = time.time()
        ends_at = time.monotonic() + _LONGEST_TURN
        soonest = 0.0
        for lane in self._lanes:
            while (head := lane.head()) is not None and head.expires and head.expires < now:
                lane.take()
                self.ready -= 1
                self.ready_bytes -= len(head.message.body)
                self._give_up(head, EXPIRED)
                if time.monotonic() > ends_at:
                    head = lane.head()
                    break
            if lane.tail:
                self._load_more(lane)
            if head is not None or lane.tail:
                soonest = head.expires if head is not None else 0.0
                break  # messages in the store alone stand before the lower priorities too
        self._timer.stop()
        if soonest:
            self._timer.start(min(max(soonest - now, 0.0) + 0.001, LONGEST_WAIT), self._on_timer)
        elif not self.ready:
            self._expiring = self.rules.message_ttl is not None

    def _on_timer(self) -> None:
        self.drop_expired()
        self._dispatcher.dispatch()

    def note_use(self) -> None:
        """Begin anew to wait for the end of a queue that is deleted when nobody uses it (x-expires)."""
        expires = self.rules.expires
        self._unused_timer.stop()
        if expires is not None and not len(self.turns):
            self._unused_timer.start(expires / 1000, self._on_unused)

    def _on_unused(self) -> None:
        self.vhost.delete_queue(self)
        self._dispatcher.dispatch()

    def _is_over(self) -> bool:
        """Return whether there is more than the queue may have, so that it has to drop some."""
        return self._limits.are_passed(self.ready, self.ready_bytes)

    def _has_room_for(self, message: Message) -> bool:
        for _ in range(2):
            if self._limits.have_room(self.ready, self.ready_bytes, len(message.body)):
                return True
            self.dispatch()
        return False

    # -- consumers -------------------------------------------------------------------------------------

    def add_consumer(self, consumer: QueueConsumer) -> None:
        """Add a consumer to the round robin."""
        self.turns.add(consumer)
        self.note_use()

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Take entries that were read from the store, and deliver them."""
        super().loaded(wanted, found)
        self._dispatcher.touch(self)
        self._dispatcher.dispatch()

    def remove_consumer(self, consumer: QueueConsumer) -> None:
        """Remove a consumer from the round robin."""
        self.turns.remove(consumer)
        self.note_use()
        self._dispatcher.touch(self)  # another one may be the active one now

    def dispatch(self, now: float = 0.0) -> None:
        """Deliver what is ready, in turns, as far as consumers have room; then drop what is too much.

        now: POSIX seconds to which messages are looked at as alive.
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
        """Deliver as far as consumers have room. Return False where that takes long and goes on in a later turn."""
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
                    ends_at = ends_at or time.monotonic() + _LONGEST_TURN
                    if time.monotonic() > ends_at:
                        self._go_on_later()
                        return False
        return not self._goes_on  # for then very much had expired

    def _go_on_later(self) -> None:
        if not self._goes_on:
            self._goes_on = True
            self._dispatcher.wait(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        self.dispatch()
        self._dispatcher.dispatch()
