"""The messages of a queue: publishing, delivering, requeueing, expiry and limits."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
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
"""Seconds for which a queue delivers or expires messages before other work gets its turn."""


class Host(Protocol):
    """The part of a virtual host that a queue's messages use."""

    @property
    def name(self) -> str:
        """The name of the virtual host."""

    @property
    def journal(self) -> Journal:
        """The journal that stores durable entries."""

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher that gives queues their turns."""

    @property
    def is_moving_late(self) -> bool:
        """Whether dead letters wait for a later iteration of the event loop, and new ones would wait behind them."""

    def dead_letter(self, queue: Backlog, message: Message, reason: str, then: Callable[[], None]) -> None:
        """Publish a message that a queue drops to the queue's dead-letter exchange, then call back."""


class Backlog(Contents):
    """The messages of a queue, with counters of their outcomes.

    A subclass decides where a requeued message goes (`_take_back`), and delivers (`dispatch`).
    """

    __slots__ = (
        "_as_of",
        "_dispatcher",
        "_goes_on",
        "_is_dropping",
        "_is_due",
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
        self.vhost: Host = vhost
        self._dispatcher = vhost.dispatcher
        self.name: str = name
        self.is_deleted: bool = False
        self.returning: int = 0
        """Channels that are requeueing many deliveries in steps; nothing is delivered meanwhile."""
        self._goes_on = False
        """Whether it waits for its next turn to continue delivering or dropping."""
        self.delivered: int = 0
        self.got: int = 0
        self.settlements: int = 0
        self.redelivered: int = 0
        self.given_back: int = 0
        """Number of requeued or rejected deliveries."""
        self.got_no_ack: int = 0
        self.got_nothing: int = 0
        self.sent_no_ack: int = 0
        """Number of deliveries and gets without acknowledgement; included in `delivered`, `got` and `settlements`."""
        self._returns = 0
        """Number of messages that were requeued at the front, if the kind of queue counts them."""
        self._is_dropping = False
        """Whether more messages have to be dropped than fit into one iteration, so a later one continues."""
        self._is_due = False
        """Whether messages are due, as to expire, and wait for a later turn: they are not given up before."""
        self._as_of = 0.0
        """Arrival time of the first dead letter with a time-to-live of 0 that was not dispatched yet."""
        self._timer = Timer()
        self._read_rules()

    def _read_rules(self) -> None:
        rules = self.rules
        self._limits = Limits(rules)
        self._expiring = self._expiring or rules.message_ttl is not None
        self._plain = not (self._limits.exist or rules.message_ttl is not None or rules.max_priority)

    @property
    def unsettled(self) -> int:
        """Number of unsettled deliveries."""
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
        """Deliver ready messages in round robin to consumers with room, then drop excess messages.

        now: POSIX seconds; messages that expire later count as alive.
        """
        raise NotImplementedError

    # -- publishing ---------------------------------------------------------------------------------

    def push(self, message: Message) -> bool:
        """Append a message. Return whether the queue accepted it: a full one may refuse."""
        if self._plain and message.expiration is None:
            position = self.next_position
            self.next_position = position + 1
            self._append(self._lane, Entry(position, message))
            return True
        taken = self._put(message)
        if taken is None:
            self._unpublished -= 1
            return False
        if taken.expires and taken.expires <= time.time():
            self.dispatch(taken.expires)  # with a time-to-live of 0, it goes only to a consumer with room now
        if self._is_over() and not self._is_dropping:
            self.dispatch()
        return True

    def push_letter(self, letter: Message, *, surely: bool = False) -> None:
        """Append a dead letter if there is room. The next round of the dispatcher delivers it.

        Args:
            letter: The message.
            surely: Whether RabbitMQ waits until the queue has it. Only streams make a difference.
        """
        entry = self._put(letter)
        self._unpublished += entry is not None
        if entry is not None and entry.expires and not self._as_of and entry.expires <= time.time():
            self._as_of = entry.expires
        self._dispatcher.touch(self)

    def _put(self, message: Message) -> Entry | None:
        """Append a message; return None if the queue is full and refuses."""
        if self._limits.refuse and not self._has_room_for(message):
            if self._limits.dead_letter_refused:
                self.vhost.dead_letter(self, message, MAXLEN, lambda: None)
            return None
        entry = Entry(self.next_position, message)
        self.next_position += 1
        lane = self._lane_of(message)
        entry.priority = lane.priority
        if expires := expires_at(message, self.rules.message_ttl):
            entry.expires = expires
            self._expiring = True
        self._append(lane, entry)
        return entry

    # -- taking -----------------------------------------------------------------------------------

    def take(self, now: float) -> Entry | None:
        """Take the first message for delivery; None if there is none in memory (more may be loading from the store).

        Also None if the queue `is_busy`. now: POSIX seconds; messages that expired before become dead letters.
        """
        lane = self._lanes[0]
        if lane.ready and not lane.returned and not lane.ready[0].expires and not lane.tail:  # the usual case
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
                if self._is_over_time(ends_at):
                    self._go_on_later(gives_up=True)
                    return None
            if lane.tail:
                self._load(lane)
                return None  # messages in the store come before lower priorities
        return None

    @property
    def is_busy(self) -> bool:
        """Whether the first message is still unknown, since an operation in steps is running."""
        return bool(self.returning) or self._goes_on

    def _go_on_later(self, *, gives_up: bool = False) -> None:
        """Continue in a later turn. `gives_up`: what takes long is to give up expired messages."""
        if not self._goes_on:
            self._goes_on = True
            wait = self._wait_for_turn if gives_up else self._dispatcher.wait
            wait(self._go_on)

    def _wait_for_turn(self, go_on: Callable[[], None]) -> None:
        """Call back in a later turn, and not while the store has many pending writes, which others' confirms wait for.

        A full disk is no reason to wait: nothing is confirmed then, and consumers must get what is left.
        """
        journal = self.journal
        turn = functools.partial(self._dispatcher.wait, go_on)
        if journal.is_stuck or journal.may_grow(turn):
            turn()

    def _go_on(self) -> None:
        self._goes_on = False
        self.dispatch()
        self._dispatcher.dispatch()

    def settled(self, entry: Entry) -> None:
        """Forget a message that a consumer has settled."""
        self.settlements += 1
        if entry.stored:
            self.journal.remove(self, entry)

    def rejected(self, entry: Entry) -> None:
        """Drop or dead-letter a message that a consumer has rejected."""
        self.given_back += 1
        if not self.is_deleted:
            self._give_up(entry, REJECTED)

    def _give_up(self, entry: Entry, reason: str) -> None:
        """Dead-letter a message if the queue has a dead-letter exchange, and forget it."""
        if self.rules.dead_letter_exchange is None:
            self._forget(entry, is_moving=False)
            return
        forget = functools.partial(self._forget, entry, is_moving=True)
        self.vhost.dead_letter(self, entry.message, reason, forget)

    def _is_over_time(self, ends_at: float) -> bool:
        """Return whether a turn that gives messages up has to end, at `ends_at` on the monotonic clock at the latest.

        It ends after one message while dead letters wait: that many more would wait behind them, in memory. Without a
        dead-letter exchange none would.
        """
        is_moving = self.rules.dead_letter_exchange is not None
        return (is_moving and self.vhost.is_moving_late) or time.monotonic() > ends_at

    def _forget(self, entry: Entry, *, is_moving: bool) -> None:
        """Remove a message from the store. `is_moving`: whether one that was just added replaces it."""
        if entry.stored and not self.is_deleted:
            self.journal.remove(self, entry, is_moving=is_moving)

    # -- requeueing ----------------------------------------------------------------------------

    def requeue(self, entry: Entry, *, asked: bool = True) -> None:
        """Requeue a message as redelivered, because the client `asked` for it or its channel ended."""
        self.given_back += 1
        if self.is_deleted:
            return
        entry.redelivered = True
        if entry.expires:
            self._expiring = True  # there may have been no expiring message ready meanwhile
        self._take_back(entry, asked=asked)
        if self._is_over():
            self._drop_what_is_over()

    def _take_back(self, entry: Entry, *, asked: bool) -> None:
        """Put a message where this kind of queue puts requeued messages."""
        raise NotImplementedError

    def _put_back(self, entry: Entry, order: int) -> None:
        """Put a message at the front, behind requeued messages with a lower `order`."""
        if entry.stored:
            self.journal.change(self, entry)
        self.ready += 1
        self.ready_bytes += len(entry.message.body)
        self._lane_at(entry.priority).put_back(entry, order)

    # -- limits --------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Return whether the queue exceeds its limits and has to drop messages."""
        return self._limits.are_passed(self.ready, self.ready_bytes)

    def _has_room_for(self, message: Message) -> bool:
        for _ in range(2):
            if self._limits.have_room(self.ready, self.ready_bytes, len(message.body)):
                return True
            self.dispatch()
        return False

    def _drop_what_is_over(self) -> None:
        """Drop messages from the head until the queue is within its limits; those only in the store, once loaded."""
        if self._is_dropping:
            return
        ends_at = time.monotonic() + LONGEST_TURN
        for lane in self._lanes:
            while self._is_over() and (entry := lane.take()) is not None:
                self.ready -= 1
                self.ready_bytes -= len(entry.message.body)
                self._give_up(entry, MAXLEN)
                if self._is_over_time(ends_at):
                    self._is_dropping = True
                    self._wait_for_turn(self._drop_on)
                    return
            if lane.tail:
                self._load_more(lane)
                return  # messages in the store come before lower priorities

    def _drop_on(self) -> None:
        self._is_dropping = False
        self.dispatch()
        self._dispatcher.dispatch()

    # -- expiry ----------------------------------------------------------------------------------------

    def drop_expired(self) -> None:
        """Drop expired messages from the head, and set the timer for the first that has not expired.

        In a priority queue, the head is that of the highest priority with messages: an expired message of a lower
        priority stays until it reaches the head, as on RabbitMQ. If there are many, the rest waits for the next
        iteration of the loop.
        """
        if self._is_due:
            return  # each publish to the queue would drop more of them than the store can take
        now = time.time()
        ends_at = time.monotonic() + LONGEST_TURN
        soonest = 0.0
        for lane in self._lanes:
            before = len(lane.ready)
            while (head := lane.head()) is not None and head.expires and head.expires < now:
                lane.take()
                self.ready -= 1
                self.ready_bytes -= len(head.message.body)
                self._give_up(head, EXPIRED)
                if self._is_over_time(ends_at):
                    head = lane.head()
                    break
            if lane.tail and (head is None or len(lane.ready) < before):  # not after a start, for all queues at once
                self._load_more(lane)
            if head is not None or lane.tail:
                soonest = head.expires if head is not None else 0.0
                break  # messages only in the store come before lower priorities too
        self._timer.stop()
        if soonest:
            self._timer.start(min(max(soonest - now, 0.0) + 0.001, LONGEST_WAIT), self._when_due)
        elif not self.ready:
            self._expiring = self.rules.message_ttl is not None

    def _when_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._wait_for_turn(self._on_due)  # messages of very many queues may expire at the same moment

    def _on_due(self) -> None:
        self._is_due = False
        self._on_timer()

    def _on_timer(self) -> None:
        self.drop_expired()
        self._dispatcher.dispatch()
