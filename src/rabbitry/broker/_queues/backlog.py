"""The messages of a queue: how they come, go and come back, which expire, and which are too many."""

from __future__ import annotations

import time
from typing import Final, Protocol

from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._queues.contents import Contents
from rabbitry.broker._queues.dead_letter import EXPIRED, MAXLEN, REJECTED
from rabbitry.broker._queues.expiry import LONGEST_WAIT, Timer, expires_at
from rabbitry.broker._queues.limits import Limits
from rabbitry.broker._store.journal import Journal
from rabbitry.broker.message import Entry, Message

LONGEST_TURN: Final = 0.008
"""Seconds for which a queue delivers or expires messages before others have their turn."""


class Host(Protocol):
    """The virtual host of a queue, as far as its messages need it."""

    @property
    def name(self) -> str:
        """The name of the virtual host."""

    @property
    def journal(self) -> Journal:
        """Where durable entries are kept."""

    @property
    def dispatcher(self) -> Dispatcher:
        """The round of deliveries in which queues have their turns."""

    def dead_letter(self, queue: Backlog, message: Message, reason: str) -> None:
        """Publish a message that a queue gives up to the queue's exchange for dead letters."""


class Backlog(Contents):
    """The messages of a queue, with the counts of what became of them.

    A subclass says where a message goes that comes back (`_take_back`), and delivers (`dispatch`).
    """

    __slots__ = (
        "_as_of",
        "_dispatcher",
        "_goes_on",
        "_is_dropping",
        "_limits",
        "_plain",
        "_returns",
        "_timer",
        "delivered",
        "given_back",
        "got",
        "got_no_ack",
        "got_nothing",
        "is_deleted",
        "name",
        "redelivered",
        "returning",
        "sent_no_ack",
        "settlements",
        "vhost",
    )

    def __init__(self, vhost: Host, name: str, rules: Rules) -> None:
        super().__init__(vhost.journal, rules)
        self.vhost = vhost
        self._dispatcher = vhost.dispatcher
        self.name = name
        self.is_deleted = False
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
        self._read_rules()

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

    def dispatch(self, now: float = 0.0) -> None:
        """Deliver what is ready, in turns, as far as consumers have room; then drop what is too much.

        now: POSIX seconds to which messages are looked at as alive.
        """
        raise NotImplementedError

    # -- messages come ---------------------------------------------------------------------------------

    def push(self, message: Message) -> bool:
        """Put a message at the end. Return whether the queue took it: one that is full may refuse."""
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
                ends_at = ends_at or time.monotonic() + LONGEST_TURN
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

    def _go_on_later(self) -> None:
        if not self._goes_on:
            self._goes_on = True
            self._dispatcher.wait(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        self.dispatch()
        self._dispatcher.dispatch()

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

    def _give_up(self, entry: Entry, reason: str) -> None:
        """Make a dead letter of a message where the queue has an exchange for them, and forget it."""
        self.vhost.dead_letter(self, entry.message, reason)
        if entry.stored:
            self.journal.remove(self, entry, is_moving=self.rules.dead_letter_exchange is not None)

    # -- messages come back ----------------------------------------------------------------------------

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

    # -- too many --------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Return whether there is more than the queue may have, so that it has to drop some."""
        return self._limits.are_passed(self.ready, self.ready_bytes)

    def _has_room_for(self, message: Message) -> bool:
        for _ in range(2):
            if self._limits.have_room(self.ready, self.ready_bytes, len(message.body)):
                return True
            self.dispatch()
        return False

    def _drop_what_is_over(self) -> None:
        """Drop messages from the head until the queue is within its limits; those in the store alone, once read."""
        ends_at = time.monotonic() + LONGEST_TURN
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
        ends_at = time.monotonic() + LONGEST_TURN
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
            self._timer.start(min(max(soonest - now, 0.0) + 0.001, LONGEST_WAIT), self._when_due)
        elif not self.ready:
            self._expiring = self.rules.message_ttl is not None

    def _when_due(self) -> None:
        self._dispatcher.wait(self._on_timer)  # messages of very many queues may expire at one moment

    def _on_timer(self) -> None:
        self.drop_expired()
        self._dispatcher.dispatch()
