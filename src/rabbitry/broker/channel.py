"""A channel of a client, seen from the broker: what it consumes, what it has not settled, what it has published."""

import asyncio
import enum
import functools
import itertools
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.methods import BasicCancel
from rabbitry.amqp.protocol.properties import decode_header, encode_header
from rabbitry.amqp.protocol.tables import TaggedInt
from rabbitry.broker.errors import precondition_failed
from rabbitry.broker.queues import Consumer, Entry, Message, Queue, ReplyTo
from rabbitry.broker.transaction import Transaction

if TYPE_CHECKING:
    from rabbitry.broker.connection import ClientConnection

_MOST_UNREAD: Final = 32 << 20
"""Bytes that a client has not taken from which on it gets no direct replies: nothing else holds back who sends them."""
_STEP: Final = 200
"""Deliveries settled in one step, where many are settled at once."""
_DELIVER_MIDDLE: Final = struct.Struct(">QB")

Held = tuple[Queue, Consumer | None, Entry]
"""A delivery that is not settled: where it came from, and the consumer that has it (None for basic.get)."""


class Outcome(enum.Enum):
    """The outcome of a delivery."""

    ACKED = enum.auto()
    REQUEUED = enum.auto()
    RETURNED = enum.auto()
    """Put back as nobody can settle it any more: the channel is gone."""
    REJECTED = enum.auto()


class Channel:
    """An open channel. It is made with channel.open and gone with its close; a new one may have its number."""

    # Attributes in slots are read faster than those of an instance with more than 30 of them.
    __slots__ = (
        "__weakref__",
        "_acked",
        "_confirmed",
        "_got",
        "_got_no_ack",
        "_got_nothing",
        "_nacked",
        "_next_tag",
        "_redelivered",
        "_rejected",
        "_replies",
        "_sent_no_ack",
        "_settled_by_consumers",
        "can_deliver",
        "channel_prefetch",
        "confirming",
        "connection",
        "consumer_prefetch",
        "consumers",
        "dropped",
        "is_open",
        "last_queue",
        "number",
        "parked",
        "published",
        "published_unconfirmed",
        "reply_to",
        "returned",
        "transaction",
        "unsettled",
        "vhost",
        "waits_for",
    )

    def __init__(self, connection: "ClientConnection", number: int) -> None:
        self.connection = connection
        self.vhost = connection.vhost
        self.number = number
        self.consumers: dict[str, Consumer] = {}
        self.parked: dict[Consumer, None] = {}
        """Consumers without room, in the order in which they lost it."""
        self.unsettled: dict[int, Held] = {}
        self.consumer_prefetch = 0
        self.channel_prefetch = 0
        self.last_queue = ""
        self.confirming = False
        self.transaction: Transaction | None = None
        self.reply_to: ReplyTo | None = None
        self.is_open = True
        self.can_deliver = True
        self.published = 0
        self.published_unconfirmed = 0
        """Publishes outside of confirm mode, which are not in `published`."""
        self.returned = self.dropped = 0
        self.waits_for = 0
        """The batch of the store with the channel's last durable publish."""
        self._rejected: deque[int] = deque()
        self._confirmed = 0
        self._nacked = 0
        self._settled_by_consumers = 0
        self._next_tag = 1
        self._replies = 0
        self._sent_no_ack = self._got = self._got_no_ack = self._got_nothing = 0
        self._acked = self._redelivered = 0

    # -- delivering ------------------------------------------------------------------------------------

    @property
    def unsettled_by_consumers(self) -> int:
        """The number of deliveries to consumers that were not settled yet, those of a transaction included."""
        return self._delivered - self._settled_by_consumers

    @property
    def _delivered(self) -> int:
        """The number of deliveries to consumers that acknowledge."""
        return self._next_tag - 1 - self._replies - self._got - (self._sent_no_ack - self._got_no_ack)

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        if consumer.no_ack or entry.redelivered:
            tag = self._hold(consumer.queue, None if consumer.no_ack else consumer, entry, consumer.no_ack)
        else:  # as `_hold` does
            tag = self._next_tag
            self._next_tag = tag + 1
            queue = consumer.queue
            queue.delivered += 1
            self.unsettled[tag] = (queue, consumer, entry)
            consumer.unsettled += 1
        message = entry.message
        payload = consumer.prefix + _DELIVER_MIDDLE.pack(tag, entry.redelivered) + message.destination
        connection = self.connection
        if entry.deliveries or len(message.body) > connection.core.frame_limit:
            self._write(payload, entry)
            return
        driver = connection.driver
        driver.write(hot.encode_message(self.number, payload, message.header, message.body))
        if not driver.can_write:
            connection.stop_delivering()

    def deliver_got(self, queue: Queue, entry: Entry, no_ack: bool) -> None:
        """Send a message that basic.get asked for; one of a quorum queue always says how often it was delivered."""
        tag = self._hold(queue, None, entry, no_ack)
        self._got += 1
        if no_ack:
            self._got_no_ack += 1
            queue.got_no_ack += 1
        payload = hot.get_ok_payload(tag, entry.redelivered, entry.message.destination, len(queue))
        self._write(payload, entry, counted=queue.rules.quorum)

    def got_nothing(self, queue: Queue) -> None:
        """Count a basic.get that found its queue empty."""
        self._got_nothing += 1
        queue.got_nothing += 1

    def deliver_reply(self, prefix: bytes, message: Message) -> None:
        """Send a direct reply; to a client that has left too many unread it is lost, as to one that is gone."""
        if self.is_open and self.connection.driver.unsent < _MOST_UNREAD:
            tag = self._next_tag
            self._next_tag = tag + 1
            self._replies += 1
            entry = Entry(0, message)
            self._write(prefix + _DELIVER_MIDDLE.pack(tag, False) + message.destination, entry)

    def _write(self, payload: bytes, entry: Entry, *, counted: bool = False) -> None:
        message = entry.message
        header = message.header
        if counted or entry.deliveries:
            header = _with_delivery_count(message, entry.deliveries)
        connection = self.connection
        driver, limit = connection.driver, connection.core.frame_limit
        if len(message.body) <= limit:
            driver.write(hot.encode_message(self.number, payload, header, message.body))
        else:
            driver.write(hot.encode_method_frame(self.number, payload))
            for piece in hot.content_frames(self.number, header, message.body, limit):
                driver.write(piece)
        if not driver.can_write:
            connection.stop_delivering()

    def _hold(self, queue: Queue, consumer: Consumer | None, entry: Entry, no_ack: bool) -> int:
        tag = self._next_tag
        self._next_tag = tag + 1
        queue.delivered += 1
        if entry.redelivered:
            queue.redelivered += 1
            self._redelivered += 1
        if no_ack:
            self._sent_no_ack += 1
            queue.sent_no_ack += 1
            queue.settled(entry)
            return tag
        self.unsettled[tag] = (queue, consumer, entry)
        if consumer is not None:
            consumer.unsettled += 1
        return tag

    # -- settling --------------------------------------------------------------------------------------

    def ack(self, tag: int) -> None:
        """Settle one delivery as done: `settle` for by far the most."""
        if self.transaction is not None or (held := self.unsettled.pop(tag, None)) is None:
            self.settle(tag, False)
            return
        queue, consumer, entry = held
        if consumer is not None:
            consumer.unsettled -= 1
            self._settled_by_consumers += 1
        self._acked += 1
        queue.settled(entry)
        if self.parked:
            self.unpark()

    def settle(self, tag: int, multiple: bool, outcome: Outcome = Outcome.ACKED) -> None:
        """Settle a delivery, or all up to it (0: all there are). Raises 406 for a tag that is not open.

        In a transaction it counts from its commit on.
        """
        if not multiple:
            held = self.unsettled.pop(tag, None)
            if held is None:
                raise precondition_failed(f"unknown delivery tag {tag}")
            if self.transaction is None:
                self.release(held, outcome)
                if self.parked:
                    self.unpark()
                return
            settled = {tag: held}
        else:
            if tag and tag not in self.unsettled:
                raise precondition_failed(f"unknown delivery tag {tag}")
            if not tag or tag == next(reversed(self.unsettled)):
                settled = self._take_all()
            else:
                tags = list(itertools.takewhile(tag.__ge__, self.unsettled))  # tags ascend in the order of insertion
                settled = {known: self.unsettled.pop(known) for known in tags}
        if self.transaction is not None:
            self.transaction.settled += [(known, held, outcome) for known, held in settled.items()]
            return
        if outcome is Outcome.ACKED and len(settled) <= _STEP:
            for held in settled.values():
                self.release(held, outcome)
            self._unpark_some()
            return
        self.connection.work(self.settling(settled, outcome), self._unpark_some)

    def settling(self, settled: dict[int, Held], outcome: Outcome) -> Iterator[None]:
        """Settle many deliveries in steps; each step removes some from `settled`.

        Like RabbitMQ it tells their queue of them consumer by consumer, those of basic.get first. That shows in the
        order of dead letters, and of what comes back to a quorum queue. A queue to which something comes back delivers
        nothing before all has: what comes late stands in front.
        """
        if outcome is Outcome.ACKED:
            while settled:
                for _ in range(min(len(settled), _STEP)):
                    self.release(settled.popitem()[1], outcome)
                yield
            return
        groups: dict[str, list[Held]] = {}
        while settled:
            for _ in range(min(len(settled), _STEP)):
                tag, held = settled.popitem()  # the last one
                groups.setdefault(_holder(tag, held, outcome), []).append(held)
            yield
        returning: set[Queue] = set()
        try:
            for name in sorted(groups):
                group = groups[name]
                while group:
                    for _ in range(min(len(group), _STEP)):
                        held = group.pop()
                        if outcome is not Outcome.REJECTED and held[0] not in returning:
                            returning.add(held[0])
                            held[0].returning += 1
                        self.release(held, outcome)
                    yield
        finally:
            for queue in returning:
                queue.returning -= 1
                self.connection.broker.touch(queue)

    def _unpark_some(self) -> None:
        if self.parked:
            self.unpark()

    def _take_all(self) -> dict[int, Held]:
        held, self.unsettled = self.unsettled, {}
        return held

    def release(self, held: Held, outcome: Outcome) -> None:
        """Take a delivery off the channel."""
        queue, consumer, entry = held
        if consumer is not None:
            consumer.unsettled -= 1
            self._settled_by_consumers += 1
        if outcome is Outcome.ACKED:
            self._acked += 1
            queue.settled(entry)
        elif outcome is Outcome.REQUEUED:
            queue.requeue(entry)
            self.connection.broker.touch(queue)
        elif outcome is Outcome.RETURNED:
            queue.requeue(entry, asked=False)
            self.connection.broker.touch(queue)
        else:
            queue.rejected(entry)

    def recover(self, then: Callable[[], None] = lambda: None) -> None:
        """Requeue all unsettled deliveries (basic.recover), then call back."""

        def recovered() -> None:
            self.unpark()
            then()

        self.connection.work(self.settling(self._take_all(), Outcome.REQUEUED), recovered)

    def unpark(self) -> None:
        """Let consumers that had no room take turns again, where they have some now.

        The queue that parked first is last, as it is the one that took the channel's last room: so queues that
        share a channel's prefetch are served in turns.
        """
        waiting = [consumer for consumer in self.parked if consumer.has_room()]
        last = waiting[0].queue if waiting else None
        for consumer in sorted(waiting, key=lambda consumer: consumer.queue is last):
            self.parked.pop(consumer, None)
            consumer.queue.turns.unpark(consumer)
            self.connection.broker.touch(consumer.queue)

    # -- consumers -------------------------------------------------------------------------------------

    def remove_consumer(self, consumer: Consumer) -> None:
        """End a consumer; what it has not settled stays with the channel. Its queue may go with its last one."""
        self.consumers.pop(consumer.tag, None)
        self.parked.pop(consumer, None)
        consumer.queue.remove_consumer(consumer)
        if consumer.queue.auto_delete and not len(consumer.queue.turns):
            self.vhost.delete_queue(consumer.queue)

    def on_queue_deleted(self, consumer: Consumer) -> None:
        """Forget a consumer whose queue is gone, and tell the client if it wants to know."""
        self.consumers.pop(consumer.tag, None)
        self.parked.pop(consumer, None)
        if self.connection.wants_cancel:
            # Behind the answer to whoever deleted it, which waits for the commit.
            tell = functools.partial(self._tell_cancelled, consumer.tag)
            loop = asyncio.get_running_loop()
            loop.call_soon(self.connection.broker.journal.after_commit, tell)

    def _tell_cancelled(self, tag: str) -> None:
        if self.is_open:
            self.connection.tell(self.number, BasicCancel(tag, nowait=True))

    # -- publishing ------------------------------------------------------------------------------------

    def not_taken(self) -> None:
        """Note that a queue refused the last publish, so that it is nacked."""
        self._rejected.append(self.published)

    def confirm(self, up_to: int) -> None:
        """Confirm what was published up to a delivery tag: everything before it is settled, so one ack does."""
        if not self.is_open:
            return
        frames: list[bytes] = []
        while self._rejected and self._rejected[0] <= up_to:
            tag = self._rejected.popleft()
            frames += (self._ack_up_to(tag - 1), hot.encode_nack(self.number, tag))
            self._confirmed = tag
            self._nacked += 1
        self.connection.driver.write(b"".join((*frames, self._ack_up_to(up_to))))

    @property
    def unconfirmed(self) -> int:
        """The number of publishes that wait for their confirm."""
        return self.published - self._confirmed

    def refuse(self, up_to: int) -> None:
        """Nack publishes that could not be stored: all up to a delivery tag that are not confirmed yet."""
        self._rejected = deque(sorted({*self._rejected, *range(self._confirmed + 1, up_to + 1)}))
        self.confirm(up_to)

    def _ack_up_to(self, tag: int) -> bytes:
        if tag <= self._confirmed:
            return b""
        multiple = tag - self._confirmed > 1
        self._confirmed = tag
        return hot.encode_ack(self.number, tag, multiple)

    # -- counting --------------------------------------------------------------------------------------

    def counts(self) -> tuple[int, ...]:
        """Return the channel's counts in the order of `counts.CHANNEL`. Some are derived from the delivery tags."""
        got = self._got
        deliver_no_ack = self._sent_no_ack - self._got_no_ack
        return (
            self.published + self.published_unconfirmed,
            self._confirmed - self._nacked,
            self.returned,
            self.dropped,
            self._delivered,
            deliver_no_ack,
            got - self._got_no_ack,
            self._got_no_ack,
            self._got_nothing,
            self._acked,
            self._redelivered,
        )

    # -- closing ---------------------------------------------------------------------------------------

    def closing(self) -> Iterator[None]:
        """Close at once, so that nothing more is delivered or confirmed, and return the steps of what is left to do.

        They end the consumers, discard an open transaction, and requeue unsettled deliveries.
        """
        self.is_open = self.can_deliver = False
        self.vhost.totals.add_channel(self.counts())
        self.connection.broker.churn.channel_closed += 1
        if self.reply_to is not None:
            self.connection.broker.replies.pop(self.reply_to.name, None)
            self.reply_to = None
        return self._closing()

    def _closing(self) -> Iterator[None]:
        while self.consumers:  # deleting a queue removes its consumers
            self.remove_consumer(next(iter(self.consumers.values())))
            yield
        if self.transaction is not None:
            self.transaction.roll_back(self)
        yield from self.settling(self._take_all(), Outcome.RETURNED)


def _holder(tag: int, held: Held, outcome: Outcome) -> str:
    """Return who has a delivery; to a quorum queue a basic.get that is given back is a consumer, named as its tag."""
    if held[1] is not None:
        return held[1].tag
    return str(tag) if outcome is Outcome.RETURNED else ""


def _with_delivery_count(message: Message, deliveries: int) -> bytes:
    """Return a content header that counts earlier deliveries by a quorum queue (RabbitMQ's docs/quorum-queues)."""
    properties = decode_header(message.header)
    headers = {**(properties.headers or {}), "x-delivery-count": TaggedInt(deliveries, b"l")}
    return encode_header(properties._replace(headers=headers), len(message.body))
