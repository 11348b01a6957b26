"""A queue: messages in order, consumers in turn, what expires, what is too many, and what becomes a dead letter."""

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.queues.arguments import Rules, with_policy
from rabbitry.broker.queues.consumer import Consumer
from rabbitry.broker.queues.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED
from rabbitry.broker.queues.lane import Lane
from rabbitry.broker.queues.message import Entry, Message
from rabbitry.broker.queues.turns import Turns
from rabbitry.broker.store.batch import Found, Wanted

if TYPE_CHECKING:
    from rabbitry.broker.connection import ClientConnection
    from rabbitry.broker.policies import Policy
    from rabbitry.broker.vhost import VirtualHost

WINDOW: Final = 16_384
"""Messages of one lane that are kept in memory; behind them a stored queue keeps messages in the store alone.

A message of 200 bytes takes some 600 there. One that need not be read back saves a third of the CPU time that
delivering it costs (`make bench-broker`).
"""
WINDOW_BYTES: Final = 32 << 20
"""Bytes of bodies of one lane, likewise."""
_AT_ONCE: Final = 4096
"""Messages that are read from the store in one piece: confirms wait meanwhile."""
_FORGOTTEN_AT_ONCE: Final = 500
"""Messages purged in one step."""
_LONGEST_WAIT: Final = 3600.0
_LONGEST_TURN: Final = 0.008
"""Seconds for which a queue delivers or expires messages before others have their turn."""
_LOOK: Final = 64
"""Deliveries between two readings of the clock."""


class Queue:
    """A queue of one virtual host.

    owner: the connection that an exclusive queue belongs to. id: its number in the store, 0 where it is not
    stored (it is not durable, or exclusive, or the broker keeps everything in memory). recovered_to: up to this
    position messages may have been delivered before a crash, so they come as redelivered.
    """

    # Attributes in slots are read faster than those of an instance with more than 30 of them.
    __slots__ = (
        "__weakref__",
        "_as_of",
        "_expiring",
        "_goes_on",
        "_is_dropping",
        "_lane",
        "_lanes",
        "_limited",
        "_next_position",
        "_own_rules",
        "_plain",
        "_returns",
        "_timer",
        "_unpublished",
        "_unused_timer",
        "arguments",
        "auto_delete",
        "delivered",
        "durable",
        "given_back",
        "got",
        "got_no_ack",
        "got_nothing",
        "id",
        "is_deleted",
        "name",
        "owner",
        "policy",
        "ready",
        "ready_bytes",
        "recovered_to",
        "redelivered",
        "returning",
        "rules",
        "sent_no_ack",
        "settlements",
        "turns",
        "vhost",
    )

    def __init__(
        self,
        vhost: "VirtualHost",
        name: str,
        *,
        durable: bool,
        auto_delete: bool,
        owner: "ClientConnection | None",
        arguments: Table,
        rules: Rules,
    ) -> None:
        self.vhost = vhost
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments
        self.rules = self._own_rules = rules
        self.policy: Policy | None = None
        self.is_deleted = False
        self.id = 0
        self.recovered_to = -1
        self.turns = Turns(alone=rules.single_active_consumer)
        self.returning = 0
        """Channels that requeue many deliveries over several turns of the loop; nothing is delivered meanwhile."""
        self._goes_on = False
        """Whether it waits for its next turn to deliver, or to give up, the rest of what was too much for one."""
        self.ready = 0
        self.ready_bytes = 0
        self.delivered = self.got = self.settlements = self.redelivered = 0
        self.given_back = 0
        """Deliveries that were requeued or rejected."""
        self.got_no_ack = self.got_nothing = 0
        self.sent_no_ack = 0
        """Deliveries and gets without acknowledgement; `delivered`, `got` and `settlements` include them."""
        self._lane = Lane(0)
        self._lanes = [self._lane]
        self._next_position = 0
        self._unpublished = 0
        """Positions that were not given to a publish: `published` leaves them out."""
        self._returns = 0
        self._expiring = False
        self._is_dropping = False
        """Whether more is too much than one turn of the loop could drop, so that the next ones go on."""
        self._as_of = 0.0
        """When the first dead letter with a time-to-live of 0 came that was not dispatched yet."""
        self._read_rules()
        self._timer: asyncio.TimerHandle | None = None
        self._unused_timer: asyncio.TimerHandle | None = None
        self.note_use()

    def follow(self, policy: "Policy | None") -> None:
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
        self._limited = rules.max_length is not None or rules.max_length_bytes is not None
        self._expiring = self._expiring or rules.message_ttl is not None
        self._plain = not (self._limited or rules.message_ttl is not None or rules.max_priority)

    def __len__(self) -> int:
        """Return the number of ready messages."""
        return self.ready

    @property
    def unsettled(self) -> int:
        """The number of deliveries that nobody has settled yet."""
        return self.delivered - self.settlements - self.given_back

    @property
    def published(self) -> int:
        """The number of messages published to the queue since it was declared or restored, without dead letters."""
        return self._next_position - self._unpublished

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
        """Put a dead letter at the end, where there is room. What comes of it is left to `Broker.dispatch`."""
        entry = self._put(letter)
        self._unpublished += entry is not None
        if entry is not None and entry.expires and not self._as_of and entry.expires <= time.time():
            self._as_of = entry.expires
        self.vhost.broker.touch(self)

    def _put(self, message: Message) -> Entry | None:
        """Put a message at the end; None where the queue is full and refuses."""
        if self._limited and self.rules.overflow != "drop-head" and not self._has_room_for(message):
            if self.rules.overflow == "reject-publish-dlx":
                self.vhost.dead_letter(self, message, MAXLEN)
            return None
        entry = Entry(self._next_position, message)
        self._next_position += 1
        lane = self._lane_of(message)
        entry.priority = lane.priority
        self._set_expiry(entry)
        self._append(lane, entry)
        return entry

    def _append(self, lane: Lane, entry: Entry) -> None:
        message = entry.message
        size = len(message.body)
        self.ready += 1
        self.ready_bytes += size
        if self.id:
            if self.rules.quorum:
                message.persistent = True  # a quorum queue keeps whatever it gets (RabbitMQ's docs/quorum-queues)
            if lane.tail or len(lane.ready) >= WINDOW or lane.size >= WINDOW_BYTES:
                lane.tail += 1
                self.vhost.broker.journal.add(self, entry)
                return
            if message.persistent:
                self.vhost.broker.journal.add(self, entry)
            lane.loaded_to = entry.position
        lane.ready.append(entry)
        lane.size += size

    def _lane_of(self, message: Message) -> Lane:
        highest = self.rules.max_priority
        if not highest or not message.priority:
            return self._lane
        priority = min(message.priority, highest)
        return self._lane_at(priority)

    def _set_expiry(self, entry: Entry) -> None:
        """Set when an entry expires, by the smaller of queue's and message's time-to-live."""
        ttl = self.rules.message_ttl
        expiration = entry.message.expiration
        if expiration is not None:
            ttl = expiration if ttl is None else min(ttl, expiration)
        if ttl is not None:
            entry.expires = time.time() + ttl / 1000
            self._expiring = True

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
            self.vhost.broker.journal.remove(self, entry)

    def rejected(self, entry: Entry) -> None:
        """Drop or dead-letter a message that a consumer does not want."""
        self.given_back += 1
        if not self.is_deleted:
            self._give_up(entry, REJECTED)

    def requeue(self, entry: Entry, *, asked: bool = True) -> None:
        """Put a message back, which was `asked` for or comes of its channel's end; it will come as redelivered.

        It goes to its place. A quorum queue counts how often, and puts it behind what came back before; where it was
        asked for, and there is no delivery limit, behind everything (as RabbitMQ 3.10's rabbit_fifo does).
        """
        self.given_back += 1
        if self.is_deleted:
            return
        entry.redelivered = True
        if entry.expires:
            self._expiring = True  # nothing that expires may have been ready meanwhile
        if self.rules.quorum:
            entry.deliveries += 1
            limit = self.rules.delivery_limit
            if limit is not None and entry.deliveries > limit:
                self._give_up(entry, DELIVERY_LIMIT)
                return
        if self.rules.quorum and asked and self.rules.delivery_limit is None:
            self._append_again(entry)
        else:
            if entry.stored:
                self.vhost.journal.change(self, entry)
            self.ready += 1
            self.ready_bytes += len(entry.message.body)
            self._returns += 1
            self._lane_at(entry.priority).put_back(entry, self._returns if self.rules.quorum else entry.position)
        if self._is_over():
            self._drop_what_is_over()

    def _append_again(self, entry: Entry) -> None:
        """Put a message to the end; the store has it as a new one then."""
        again = Entry(self._next_position, entry.message.again())
        self._next_position += 1
        self._unpublished += 1
        again.priority, again.expires = entry.priority, entry.expires
        again.redelivered, again.deliveries = True, entry.deliveries
        if entry.stored:
            self.vhost.journal.remove(self, entry, is_moving=True)
        self._append(self._lane_at(entry.priority), again)

    def purge(self) -> tuple[int, Iterator[None]]:
        """Drop all messages that are ready. Return how many they were, and steps that the caller has to take.

        The steps remove them from memory and from the store, so the purge is durable with what they wrote.
        """
        count = self.ready
        gone: list[Entry] = []
        for lane in self._lanes:
            if lane.tail:
                self.vhost.journal.drop_tail(self, lane.priority, lane.loaded_to, self._next_position)
                lane.loaded_to = self._next_position - 1
            gone += lane.clear()
        self.ready = self.ready_bytes = 0
        return count, self._forgetting(gone)

    def _forgetting(self, gone: list[Entry]) -> Iterator[None]:
        """Remove entries from the store, and from memory, in steps."""
        while gone:
            for _ in range(min(len(gone), _FORGOTTEN_AT_ONCE)):
                entry = gone.pop()
                if entry.stored:
                    self.vhost.journal.remove(self, entry)
            yield

    def delete(self) -> None:
        """End a queue: what was not settled goes with it, whatever its consumers still say of it."""
        self.is_deleted = True
        _, steps = self.purge()
        self.vhost.broker.shares.work(steps, lambda: None, self.vhost.journal.may_grow)
        self.close()

    def close(self) -> None:
        """Stop the timers."""
        for timer in (self._timer, self._unused_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._unused_timer = None

    def _give_up(self, entry: Entry, reason: str) -> None:
        """Make a dead letter of a message where the queue has an exchange for them, and forget it."""
        self.vhost.dead_letter(self, entry.message, reason)
        if entry.stored:
            self.vhost.journal.remove(self, entry, is_moving=self.rules.dead_letter_exchange is not None)

    def _lane_at(self, priority: int) -> Lane:
        for lane in self._lanes:
            if lane.priority == priority:
                return lane
        lane = Lane(priority)
        # A new list, since somebody who goes over the old one may be giving up what comes back here as a dead letter.
        self._lanes = sorted([*self._lanes, lane], key=lambda known: known.priority, reverse=True)
        return lane

    # -- too many --------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether there is more than the queue may have, so that it has to drop some."""
        rules = self.rules
        if not self._limited or rules.overflow != "drop-head":
            return False
        return (rules.max_length is not None and self.ready > rules.max_length) or (
            rules.max_length_bytes is not None and self.ready_bytes > rules.max_length_bytes
        )

    def _has_room_for(self, message: Message) -> bool:
        rules = self.rules
        for _ in range(2):
            if (rules.max_length is None or self.ready < rules.max_length) and (
                rules.max_length_bytes is None or self.ready_bytes + len(message.body) <= rules.max_length_bytes
            ):
                return True
            self.dispatch()
        return False

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
                    self.vhost.broker.touch(self)
                    self.vhost.broker.dispatch_later()
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if soonest:
            wait = min(max(soonest - now, 0.0) + 0.001, _LONGEST_WAIT)
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_timer)
        elif not self.ready:
            self._expiring = self.rules.message_ttl is not None

    def _on_timer(self) -> None:
        self._timer = None
        self.drop_expired()
        self.vhost.broker.dispatch()

    def note_use(self) -> None:
        """Begin anew to wait for the end of a queue that is deleted when nobody uses it (x-expires)."""
        expires = self.rules.expires
        if self._unused_timer is not None:
            self._unused_timer.cancel()
            self._unused_timer = None
        if expires is not None and not len(self.turns):
            self._unused_timer = asyncio.get_running_loop().call_later(expires / 1000, self._on_unused)

    def _on_unused(self) -> None:
        self.vhost.delete_queue(self)
        self.vhost.broker.dispatch()

    # -- the store -------------------------------------------------------------------------------------

    def recover(self, priority: int, count: int, size: int, last_position: int) -> None:
        """Take note of what the store holds: `count` messages of one priority with `size` bytes in all."""
        lane = self._lane_at(priority)
        lane.tail = count
        self.ready += count
        self.ready_bytes += size
        self._next_position = self._unpublished = max(self._next_position, last_position + 1)
        self._expiring = True  # some may have a time-to-live; the first look at the head finds out
        self._load(lane)

    def _load_more(self, lane: Lane) -> None:
        """Read ahead where half of the window is free."""
        if len(lane.ready) < WINDOW // 2 and lane.size < WINDOW_BYTES // 2:
            self._load(lane)

    def _load(self, lane: Lane) -> None:
        if not lane.is_loading:
            lane.is_loading = True
            lane.load += 1
            self.vhost.journal.load(
                self, Wanted(self.id, lane.priority, lane.load, lane.loaded_to, _AT_ONCE, WINDOW_BYTES)
            )

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Take entries that were read from the store."""
        lane = self._lane_at(wanted.priority)
        if wanted.load != lane.load:
            return  # purged meanwhile
        lane.is_loading = False
        lane.tail -= len(found.entries) + found.damaged
        self.ready -= found.damaged
        self.ready_bytes -= found.damaged_bytes
        lane.loaded_to = max(lane.loaded_to, found.last_position)
        if found.entries and found.entries[0].position <= self.recovered_to:
            for entry in found.entries:
                if entry.position <= self.recovered_to:
                    entry.redelivered = True
        lane.ready.extend(found.entries)
        lane.size += found.size
        self.vhost.broker.touch(self)
        self.vhost.broker.dispatch()

    def withdraw(self, entries: list[Entry]) -> None:
        """Take back entries for which the store had no room. What was delivered of them stays with its consumer."""
        gone = set(entries)
        for entry in entries:
            entry.stored = False
        for lane in self._lanes:
            kept = [entry for entry in lane.ready if entry not in gone]
            lost = len(lane.ready) - len(kept)
            lost_bytes = sum(len(entry.message.body) for entry in lane.ready if entry in gone)
            self.ready_bytes -= lost_bytes
            lane.size -= lost_bytes
            lane.ready.clear()
            lane.ready.extend(kept)
            behind = [entry for entry in entries if entry.priority == lane.priority and entry.position > lane.loaded_to]
            lane.tail -= len(behind)
            self.ready_bytes -= sum(len(entry.message.body) for entry in behind)
            self.ready -= lost + len(behind)

    def held(self) -> Iterator[Entry]:
        """Go over the entries in memory that are ready."""
        for lane in self._lanes:
            yield from (entry for _, entry in lane.returned)
            yield from lane.ready

    # -- consumers -------------------------------------------------------------------------------------

    def add_consumer(self, consumer: Consumer) -> None:
        """Let a consumer take its turns."""
        self.turns.add(consumer)
        self.note_use()

    def remove_consumer(self, consumer: Consumer) -> None:
        """Let a consumer take no more turns."""
        self.turns.remove(consumer)
        self.note_use()
        self.vhost.broker.touch(self)  # another one may be the active one now

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
        if self._limited and self._is_over():
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
                    consumer.parked = True
                    consumer.channel.parked[consumer] = None
                    continue
                entry = self.take(now)
                if entry is None:
                    break
                circle.rotate(-1)
                consumer.channel.deliver(consumer, entry)
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
            self.vhost.broker.shares.wait(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        self.dispatch()
        self.vhost.broker.dispatch()
