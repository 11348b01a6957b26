"""A channel of a client, seen from the broker: what it consumes, what it has not settled, what it has published."""

from __future__ import annotations

import heapq
import itertools
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Final, Protocol

from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection as Core
from rabbitry.amqp.protocol.methods import BasicCancel, Method
from rabbitry.amqp.protocol.properties import decode_header, encode_header
from rabbitry.amqp.protocol.tables import Table, TaggedInt, encode_short
from rabbitry.broker._confirms import Confirms
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._ordering import in_order
from rabbitry.broker._queues import Queue, ReplyTo
from rabbitry.broker._transaction import Held, Holder, Outcome, Transaction
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.message import Entry, Message

_MOST_UNREAD: Final = 32 << 20
"""Bytes that a client has not taken from which on it gets no direct replies: nothing else holds back who sends them."""
_STEP: Final = 200
"""Deliveries settled in one step, where many are settled at once."""
_LETTERS: Final = 20
"""Rejected deliveries settled in one step: each may become a dead letter, which takes twenty times as long."""
_TAKEN_AT_ONCE: Final = 5_000
"""Deliveries taken off the channel in one step: each step first passes over the gap that those before it have left."""
_TAG: Final = itemgetter(0)
_DELIVER_MIDDLE: Final = struct.Struct(">QB")


class Connection(Protocol):
    """The connection of a channel, as far as the channel needs it."""

    @property
    def name(self) -> str:
        """What operators know it by."""

    @property
    def user(self) -> str:
        """The name of the user."""

    @property
    def peer(self) -> str:
        """The client's address and port."""

    @property
    def driver(self) -> Driver:
        """Writes to the client."""

    @property
    def core(self) -> Core:
        """Knows the largest frame that was agreed on."""

    @property
    def wants_cancel(self) -> bool:
        """Whether the client is told of consumers that end because their queue is gone."""

    def stop_delivering(self) -> None:
        """Stop all channels from delivering until the socket takes data again."""

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection or the channel has been closed meanwhile."""

    def work(self, steps: Iterator[None], then: Callable[[], None] = ...) -> None:
        """Take the steps of a long operation in turns with other clients, then call back."""


class Consumer:
    """A consumer: which channel it is on, what it may have, and what it has."""

    __slots__ = (
        "arguments",
        "channel",
        "exclusive",
        "most",
        "no_ack",
        "parked",
        "prefetch",
        "prefix",
        "priority",
        "queue",
        "tag",
        "unsettled",
    )

    def __init__(
        self,
        channel: Channel,
        queue: Queue,
        tag: str,
        *,
        no_ack: bool,
        exclusive: bool,
        prefetch: int,
        priority: int,
        arguments: Table,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.most = prefetch if prefetch and not no_ack else sys.maxsize
        """The number of unsettled deliveries that it may have; one without acknowledgements never has any."""
        self.priority = priority
        self.arguments = arguments
        self.unsettled = 0
        self.parked = False
        self.prefix = hot.deliver_prefix(encode_short(tag))

    def has_room(self) -> bool:
        """Return whether prefetch (consumer's and channel's) and the socket's buffer allow another message."""
        channel = self.channel
        # The channel's prefetch holds for consumers without acknowledgements too, though they never fill it.
        return (
            channel.can_deliver
            and self.unsettled < self.most
            and (not channel.channel_prefetch or channel.unsettled_by_consumers < channel.channel_prefetch)
        )

    def park(self) -> None:
        """Take no turns until the channel has room."""
        self.parked = True
        self.channel.parked[self] = None

    def deliver(self, entry: Entry) -> None:
        """Send it a message."""
        channel = self.channel
        if self.no_ack or entry.redelivered:
            tag = channel.hold(self.queue, None if self.no_ack else self, entry, no_ack=self.no_ack)
        else:  # as `hold` does
            tag = channel.next_tag
            channel.next_tag = tag + 1
            queue = self.queue
            queue.delivered += 1
            channel.unsettled[tag] = (queue, self, entry)
            self.unsettled += 1
        message = entry.message
        payload = self.prefix + _DELIVER_MIDDLE.pack(tag, entry.redelivered) + message.destination
        connection = channel.connection
        if entry.deliveries or len(message.body) > connection.core.frame_limit:
            channel.write(payload, entry)
            return
        driver = connection.driver
        driver.write(hot.encode_message(channel.number, payload, message.header, message.body))
        if not driver.can_write:
            connection.stop_delivering()

    def on_queue_deleted(self) -> None:
        """End, since the queue is gone."""
        self.channel.forget(self)

    def tell_cancelled(self) -> None:
        """Notify the client, if it wants to know, that the queue is gone."""
        channel = self.channel
        if channel.is_open and channel.connection.wants_cancel:
            channel.connection.tell(channel.number, BasicCancel(self.tag, nowait=True))


class Channel:
    """An open channel. It is made with channel.open and gone with its close; a new one may have its number."""

    # Attributes in slots are read faster than those of an instance with more than 30 of them.
    __slots__ = (
        "__weakref__",
        "_acked",
        "_got",
        "_got_no_ack",
        "_got_nothing",
        "_operation",
        "_redelivered",
        "_replies",
        "_sent_no_ack",
        "_settled_by_consumers",
        "can_deliver",
        "channel_prefetch",
        "confirms",
        "connection",
        "consumer_prefetch",
        "consumers",
        "dropped",
        "is_open",
        "last_queue",
        "next_tag",
        "number",
        "parked",
        "published_unconfirmed",
        "replies",
        "reply_to",
        "returned",
        "transaction",
        "unsettled",
        "vhost",
    )

    def __init__(self, connection: Connection, number: int, vhost: VirtualHost, replies: dict[str, ReplyTo]) -> None:
        self.connection = connection
        self.vhost = vhost
        self.replies = replies
        """The consumers of direct replies of all channels of the broker, by name."""
        self.number = number
        self.consumers: dict[str, Consumer] = {}
        self.parked: dict[Consumer, None] = {}
        """Consumers without room, in the order in which they lost it."""
        self.unsettled: dict[int, Held] = {}
        self.consumer_prefetch = 0
        self.channel_prefetch = 0
        self.last_queue = ""
        self.confirms: Confirms | None = None
        """None outside of confirm mode."""
        self.transaction: Transaction | None = None
        self.reply_to: ReplyTo | None = None
        self.is_open = True
        self.can_deliver = True
        self.published_unconfirmed = 0
        """Publishes outside of confirm mode, which nobody is told of."""
        self.returned = self.dropped = 0
        self._settled_by_consumers = 0
        self.next_tag = 1
        self._operation: Iterator[None] = iter(())
        """The steps that are left of what the client asked for last; its later frames are held meanwhile."""
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
        return self.next_tag - 1 - self._replies - self._got - (self._sent_no_ack - self._got_no_ack)

    def deliver_got(self, queue: Queue, entry: Entry, *, no_ack: bool) -> None:
        """Send a message that basic.get asked for; one of a quorum queue always says how often it was delivered."""
        tag = self.hold(queue, None, entry, no_ack=no_ack)
        self._got += 1
        if no_ack:
            self._got_no_ack += 1
            queue.got_no_ack += 1
        payload = hot.get_ok_payload(
            tag, redelivered=entry.redelivered, destination=entry.message.destination, message_count=len(queue)
        )
        self.write(payload, entry, counted=queue.rules.quorum)

    def got_nothing(self, queue: Queue) -> None:
        """Count a basic.get that found its queue empty."""
        self._got_nothing += 1
        queue.got_nothing += 1

    def deliver_reply(self, prefix: bytes, message: Message) -> None:
        """Send a direct reply; to a client that has left too many unread it is lost, as to one that is gone."""
        if self.is_open and self.connection.driver.unsent < _MOST_UNREAD:
            tag = self.next_tag
            self.next_tag = tag + 1
            self._replies += 1
            self.write(prefix + _DELIVER_MIDDLE.pack(tag, False) + message.destination, Entry(0, message))

    def write(self, payload: bytes, entry: Entry, *, counted: bool = False) -> None:
        """Send a method that carries a message; `counted`: with the number of its deliveries, even if that is 0."""
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

    def hold(self, queue: Queue, consumer: Consumer | None, entry: Entry, *, no_ack: bool) -> int:
        """Assign a tag to a delivery, and keep the delivery until it is settled if it has to be."""
        tag = self.next_tag
        self.next_tag = tag + 1
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
            self.settle(tag, multiple=False)
            return
        queue, consumer, entry = held
        if consumer is not None:
            consumer.unsettled -= 1
            self._settled_by_consumers += 1
        self._acked += 1
        queue.settled(entry)
        if self.parked:
            self._unpark_after(consumer)

    def settle(self, tag: int, *, multiple: bool, outcome: Outcome = Outcome.ACKED) -> None:
        """Settle a delivery, or all up to it (0: all there are). Raises 406 for a tag that is not open.

        In a transaction it counts from its commit on.
        """
        if not multiple:
            held = self.unsettled.pop(tag, None)
            if held is None:
                raise precondition_failed(f"unknown delivery tag {tag}")
            if self.transaction is not None:
                self.transaction.settled.append((tag, held, outcome))
                return
            self.release(held, outcome)
            if self.parked:
                self._unpark_after(held[1])
            return
        if tag and tag not in self.unsettled:
            raise precondition_failed(f"unknown delivery tag {tag}")
        if outcome is Outcome.ACKED and self.transaction is None and (few := self._take_few(tag)) is not None:
            for held in few:
                self.release(held, outcome)
            self._unpark_some()
            return
        self.operate(self._settling_up_to(tag, outcome), self._unpark_some)

    def _is_last(self, tag: int) -> bool:
        """Return whether a tag (0: all there are) says that all deliveries are meant."""
        return not tag or tag == next(reversed(self.unsettled))

    def _take_few(self, tag: int) -> Iterable[Held] | None:
        """Take the deliveries up to a tag off the channel, unless they are many: then return None."""
        if self._is_last(tag):
            return self._take_all().values() if len(self.unsettled) <= _STEP else None
        # Tags ascend in the order of insertion.
        tags = list(itertools.islice(itertools.takewhile(tag.__ge__, self.unsettled), _STEP + 1))
        return [self.unsettled.pop(known) for known in tags] if len(tags) <= _STEP else None

    def operate(self, steps: Iterator[None], then: Callable[[], None]) -> None:
        """Take the steps of what the client asks for, then call back. The end of the channel waits for all of them."""
        self._operation = steps
        self.connection.work(steps, then)

    def _settling_up_to(self, tag: int, outcome: Outcome) -> Iterator[None]:
        """Settle all deliveries up to a tag (0: all there are) in steps; in a transaction, note that they are."""
        settled: dict[int, Held] = {}
        if self._is_last(tag):
            settled = self._take_all()
        else:
            while tags := list(itertools.islice(itertools.takewhile(tag.__ge__, self.unsettled), _TAKEN_AT_ONCE)):
                for known in tags:
                    settled[known] = self.unsettled.pop(known)
                yield
        if self.transaction is not None:
            yield from self.transaction.noting(settled, outcome)
        else:
            yield from self.settling(_popped(settled), outcome)

    def settling(self, latest_first: Iterable[tuple[int, Held]], outcome: Outcome) -> Iterator[None]:
        """Settle many deliveries in steps, given with their tags.

        Like RabbitMQ it tells their queue of them consumer by consumer, those of basic.get first. That shows in the
        order of dead letters, and of what comes back to a quorum queue. A queue to which something comes back delivers
        nothing before all has: what comes late stands in front.
        """
        taken = iter(latest_first)
        if outcome is Outcome.ACKED:
            while some := list(itertools.islice(taken, _STEP)):
                for _, held in some:
                    self.release(held, outcome)
                yield
            return
        groups: dict[str, list[Held]] = {}
        while some := list(itertools.islice(taken, _STEP)):
            for tag, held in some:
                groups.setdefault(_holder(tag, held, outcome), []).append(held)
            yield
        names = yield from in_order(list(groups), str)
        returning: set[Queue] = set()
        number = 0
        step = _LETTERS if outcome is Outcome.REJECTED else _STEP
        try:
            for name in names:
                group = groups.pop(name)
                while group:
                    held = group.pop()
                    if outcome is not Outcome.REJECTED and held[0] not in returning:
                        returning.add(held[0])
                        held[0].returning += 1
                    self.release(held, outcome)
                    number += 1
                    if not number % step:
                        yield
        finally:
            for queue in returning:
                queue.returning -= 1
                self.vhost.dispatcher.touch(queue)

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
            self.vhost.dispatcher.touch(queue)
        elif outcome is Outcome.RETURNED:
            queue.requeue(entry, asked=False)
            self.vhost.dispatcher.touch(queue)
        else:
            queue.rejected(entry)

    def recover(self, then: Callable[[], None] = lambda: None) -> None:
        """Requeue all unsettled deliveries (basic.recover), then call back."""

        def recovered() -> None:
            self.unpark()
            then()

        self.connection.work(self.settling(_popped(self._take_all()), Outcome.REQUEUED), recovered)

    def unpark(self) -> None:
        """Add consumers that had no room, and have some now, to the round robin again.

        The queue that parked first is last, as it is the one that took the channel's last room: so queues that
        share a channel's prefetch are served in turns.
        """
        waiting = [consumer for consumer in self.parked if consumer.has_room()]
        last = waiting[0].queue if waiting else None
        for consumer in sorted(waiting, key=lambda consumer: consumer.queue is last):
            self.parked.pop(consumer, None)
            consumer.queue.turns.unpark(consumer)
            self.vhost.dispatcher.touch(consumer.queue)

    def _unpark_after(self, consumer: Holder | None) -> None:
        """Unpark who may have room after a consumer has settled a delivery: others only share the channel's limit."""
        if self.channel_prefetch:
            self.unpark()
        elif isinstance(consumer, Consumer) and consumer in self.parked and consumer.has_room():
            del self.parked[consumer]
            consumer.queue.turns.unpark(consumer)
            self.vhost.dispatcher.touch(consumer.queue)

    # -- consumers -------------------------------------------------------------------------------------

    def removing(self, consumer: Consumer) -> Iterator[None]:
        """End a consumer in steps: its auto-delete queue, which may have very many bindings, goes with its last one.

        Unsettled deliveries stay with the channel.
        """
        self.forget(consumer)
        consumer.queue.remove_consumer(consumer)
        if consumer.queue.auto_delete and not len(consumer.queue.turns):
            yield from self.vhost.deleting_queue(consumer.queue)

    def forget(self, consumer: Consumer) -> None:
        """Forget a consumer that has ended."""
        self.consumers.pop(consumer.tag, None)
        self.parked.pop(consumer, None)

    # -- publishing ------------------------------------------------------------------------------------

    def start_confirming(self) -> None:
        """Confirm what is published from now on."""
        if self.confirms is None:
            self.confirms = Confirms(self.number, self.connection.driver.write)

    def consume_replies(self, reply_to: ReplyTo) -> None:
        """Set the channel's one consumer of direct replies."""
        self.reply_to = reply_to
        self.replies[reply_to.name] = reply_to

    def forget_replies(self) -> None:
        """End the consumer of direct replies, if there is one."""
        if self.reply_to is not None:
            self.replies.pop(self.reply_to.name, None)
            self.reply_to = None

    def rolling_back(self, transaction: Transaction) -> Iterator[None]:
        """Forget the publishes of a transaction, in steps; what was settled is open again, under its old tags."""
        publishes, settled = transaction.take()
        while publishes:
            del publishes[-_STEP:]
            yield
        if not settled:
            return
        again = yield from in_order(settled, _TAG)
        kept, self.unsettled = self.unsettled, {}
        opened: dict[int, Held] = {}
        settled_before = ((tag, held) for tag, held, _ in again)
        waiting: Iterator[tuple[int, Held]] = heapq.merge(settled_before, iter(kept.items()), key=_TAG)
        while True:
            some = list(itertools.islice(waiting, _STEP))
            if not some:
                if len(self.unsettled) <= _STEP:
                    break
                kept, self.unsettled = self.unsettled, {}  # delivered meanwhile, so their tags are higher
                waiting = iter(kept.items())
            opened.update(some)
            yield
        opened.update(self.unsettled)
        self.unsettled = opened

    # -- counting --------------------------------------------------------------------------------------

    def counts(self) -> tuple[int, ...]:
        """Return the channel's counts in the order of `counts.CHANNEL`. Some are derived from the delivery tags."""
        got = self._got
        confirms = self.confirms
        deliver_no_ack = self._sent_no_ack - self._got_no_ack
        return (
            self.published_unconfirmed + (confirms.published if confirms is not None else 0),
            confirms.acked if confirms is not None else 0,
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
        if self.confirms is not None:
            self.confirms.stop()
        self.forget_replies()
        return self._closing()

    def _closing(self) -> Iterator[None]:
        self.vhost.totals.add_channel(self.counts())
        yield
        while self.consumers:  # deleting a queue removes its consumers
            yield from self.removing(next(iter(self.consumers.values())))
            yield
        yield from self._operation
        if self.transaction is not None:
            yield from self.rolling_back(self.transaction)
        yield from self.settling(_popped(self._take_all()), Outcome.RETURNED)


def _popped(held: dict[int, Held]) -> Iterator[tuple[int, Held]]:
    """Take deliveries out of a dictionary, the latest first, so that they are freed one by one."""
    while held:
        yield held.popitem()


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
