"""The broker's side of a client's channel: consumers, unsettled deliveries, publishes."""

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
from rabbitry.amqp.protocol.tables import Table, encode_short
from rabbitry.broker._confirms import Confirms
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._ordering import in_order
from rabbitry.broker._queues import Queue, ReplyTo
from rabbitry.broker._transaction import Held, Holder, Outcome, Transaction, check_returns, popped
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.message import Entry, Message, with_delivery_count

_MOST_UNREAD: Final = 32 << 20
"""Bytes that a client has not read above which it gets no direct replies: nothing else limits those who send them."""
_STEP: Final = 200
"""Deliveries settled in one step when many are settled at once. A rejected one is a step: it may be dead-lettered."""
_TAKEN_AT_ONCE: Final = 5_000
"""Deliveries removed from the channel in one step: each step first skips the gap that the steps before it left."""
_TAG: Final = itemgetter(0)
_numbers = itertools.count()
_DELIVER_MIDDLE: Final = struct.Struct(">QB")


class Connection(Protocol):
    """The part of a connection that a channel uses."""

    @property
    def name(self) -> str:
        """Its name for operators."""

    @property
    def user(self) -> str:
        """The name of the user."""

    @property
    def peer(self) -> str:
        """The client's address and port."""

    @property
    def driver(self) -> Driver:
        """The driver that writes to the client."""

    @property
    def core(self) -> Core:
        """The protocol core, which has the agreed frame size."""

    @property
    def wants_cancel(self) -> bool:
        """Whether the client wants basic.cancel for consumers that end because their queue was deleted."""

    def stop_delivering(self) -> None:
        """Stop delivering on all channels until the socket has room again."""

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection or the channel is closed."""

    def work(self, steps: Iterator[None], then: Callable[[], None] = ...) -> None:
        """Run the steps of a long operation, alternating with other clients, then call `then`."""


class Consumer:
    """A consumer: its channel, its limits, and its unsettled deliveries."""

    __slots__ = (
        "arguments",
        "channel",
        "exclusive",
        "most",
        "no_ack",
        "number",
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
        self.number = next(_numbers)
        """Its place in the order of all subscriptions."""
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.most = prefetch if prefetch and not no_ack else sys.maxsize
        """Limit on its unsettled deliveries; a consumer without acknowledgements never has any."""
        self.priority = priority
        self.arguments = arguments
        self.unsettled = 0
        self.parked = False
        self.prefix = hot.deliver_prefix(encode_short(tag))

    def has_room(self) -> bool:
        """Return whether the prefetch of consumer and channel and the socket's buffer allow another message."""
        channel = self.channel
        # The channel's prefetch applies to consumers without acknowledgements too, though they never fill it.
        return (
            channel.can_deliver
            and self.unsettled < self.most
            and (not channel.channel_prefetch or channel.unsettled_by_consumers < channel.channel_prefetch)
        )

    def park(self) -> None:
        """Leave the round robin until the channel has room."""
        self.parked = True
        self.channel.parked[self] = None

    def deliver(self, entry: Entry) -> None:
        """Send a message to the client."""
        channel = self.channel
        if self.no_ack or entry.redelivered:
            tag = channel.hold(self.queue, None if self.no_ack else self, entry, no_ack=self.no_ack)
        else:  # inlined from `hold`
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
        """End the consumer: its queue was deleted."""
        self.channel.forget(self)

    def tell_cancelled(self) -> None:
        """Send basic.cancel if the client wants it: the queue was deleted."""
        channel = self.channel
        if channel.is_open and channel.connection.wants_cancel:
            channel.connection.tell(channel.number, BasicCancel(self.tag, nowait=True))


class Channel:
    """An open channel. Created by channel.open and dropped when closed; a new one may have its number."""

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
        "has_streams",
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
        """The consumers of direct replies of all the broker's channels, by name."""
        self.number = number
        self.consumers: dict[str, Consumer] = {}
        self.parked: dict[Consumer, None] = {}
        """Parked consumers, in the order in which they ran out of room."""
        self.unsettled: dict[int, Held] = {}
        self.consumer_prefetch = self.channel_prefetch = 0
        self.last_queue = ""
        self.confirms: Confirms | None = None
        """None unless in confirm mode."""
        self.transaction: Transaction | None = None
        self.reply_to: ReplyTo | None = None
        self.is_open = self.can_deliver = True
        self.has_streams = False
        """Whether it had a consumer of a stream: only streams may refuse to take deliveries back."""
        self.published_unconfirmed = 0
        """Number of publishes outside confirm mode, which are never confirmed."""
        self.returned = self.dropped = 0
        self._settled_by_consumers = 0
        self.next_tag = 1
        self._operation: Iterator[None] = iter(())
        """The remaining steps of the client's last operation; its later frames are held meanwhile."""
        self._replies = 0
        self._sent_no_ack = self._got = self._got_no_ack = self._got_nothing = 0
        self._acked = self._redelivered = 0

    # -- delivering ------------------------------------------------------------------------------------

    @property
    def unsettled_by_consumers(self) -> int:
        """Number of unsettled deliveries to consumers, including those that an open transaction settles."""
        return self._delivered - self._settled_by_consumers

    @property
    def _delivered(self) -> int:
        """Number of deliveries to consumers that acknowledge."""
        return self.next_tag - 1 - self._replies - self._got - (self._sent_no_ack - self._got_no_ack)

    def deliver_got(self, queue: Queue, entry: Entry, *, no_ack: bool) -> None:
        """Send a message for basic.get; in some releases, one from a quorum queue always has its delivery count."""
        tag = self.hold(queue, None, entry, no_ack=no_ack)
        if self.vhost.firehose is not None:
            self.vhost.firehose.delivered(queue.name, self, entry)
        self._got += 1
        if no_ack:
            self._got_no_ack += 1
            queue.got_no_ack += 1
        payload = hot.get_ok_payload(
            tag, redelivered=entry.redelivered, destination=entry.message.destination, message_count=len(queue)
        )
        self.write(payload, entry, counted=queue.rules.kind == "quorum" and self.vhost.release.counts_first_get)

    def got_nothing(self, queue: Queue) -> None:
        """Count a basic.get that found its queue empty."""
        self._got_nothing += 1
        queue.got_nothing += 1

    def deliver_reply(self, prefix: bytes, message: Message) -> None:
        """Send a direct reply; it is dropped if the client has too many unread bytes, as if the client were gone."""
        if self.is_open and self.connection.driver.unsent < _MOST_UNREAD:
            tag = self.next_tag
            self.next_tag = tag + 1
            self._replies += 1
            self.write(prefix + _DELIVER_MIDDLE.pack(tag, False) + message.destination, Entry(0, message))

    def write(self, payload: bytes, entry: Entry, *, counted: bool = False) -> None:
        """Send a method that carries a message; `counted`: with its delivery count, even if that is 0."""
        message = entry.message
        header = message.header
        if counted or entry.deliveries:
            header = with_delivery_count(message, entry.deliveries)
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
        """Assign a delivery tag, and keep the delivery if it has to be settled."""
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
        """Acknowledge one delivery: a fast path of `settle` for the most common case."""
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
        """Settle a delivery, or with `multiple` all up to it (0: all).

        In a transaction, it takes effect with the commit. Raises 406 for an unknown tag, 540 if a stream can't take a
        delivery back.
        """
        if not multiple:
            held = self.unsettled.pop(tag, None)
            if held is None:
                raise precondition_failed(f"unknown delivery tag {tag}")
            if outcome is not Outcome.ACKED:
                held[0].check_return()
            if self.transaction is not None:
                self.transaction.settled.append((tag, held, outcome))
                return
            self.release(held, outcome)
            if self.parked:
                self._unpark_after(held[1])
            return
        if tag and tag not in self.unsettled:
            raise precondition_failed(f"unknown delivery tag {tag}")
        if outcome is not Outcome.ACKED and self.has_streams:
            check_returns(self.unsettled, tag)
        if outcome is Outcome.ACKED and self.transaction is None and (few := self._take_few(tag)) is not None:
            for held in few:
                self.release(held, outcome)
            self._unpark_some()
            return
        self.operate(self._settling_up_to(tag, outcome), self._unpark_some)

    def _is_last(self, tag: int) -> bool:
        """Return whether a tag (0: all) covers all deliveries."""
        return not tag or tag == next(reversed(self.unsettled))

    def _take_few(self, tag: int) -> Iterable[Held] | None:
        """Remove the deliveries up to a tag from the channel; if they are many, leave them and return None."""
        if self._is_last(tag):
            return self._take_all().values() if len(self.unsettled) <= _STEP else None
        # Tags ascend in the order of insertion.
        tags = list(itertools.islice(itertools.takewhile(tag.__ge__, self.unsettled), _STEP + 1))
        return [self.unsettled.pop(known) for known in tags] if len(tags) <= _STEP else None

    def operate(self, steps: Iterator[None], then: Callable[[], None]) -> None:
        """Run the steps of an operation of the client, then call `then`. Closing the channel waits for all of them."""
        self._operation = steps
        self.connection.work(steps, then)

    def _settling_up_to(self, tag: int, outcome: Outcome) -> Iterator[None]:
        """Settle all deliveries up to a tag (0: all) in steps; in a transaction, only record them."""
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
            yield from self.settling(popped(settled), outcome)

    def settling(self, latest_first: Iterable[tuple[int, Held]], outcome: Outcome) -> Iterator[None]:
        """Settle many deliveries, given with their tags, in steps.

        Like RabbitMQ, settle them consumer by consumer, those of basic.get first. That determines the order of dead
        letters, and of messages that return to a quorum queue. A queue with returning messages delivers nothing before
        all have returned: the last to return go to the front.
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
                groups.setdefault(self._holder(tag, held, outcome), []).append(held)
            yield
        names = yield from in_order(list(groups), str)
        returning: set[Queue] = set()
        number = 0
        step = 1 if outcome is Outcome.REJECTED else _STEP
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

    def _holder(self, tag: int, held: Held, outcome: Outcome) -> str:
        """Return the name by which a quorum queue sorts the holder of a delivery; a returned basic.get has one too."""
        consumer = held[1]
        if outcome is Outcome.RETURNED and self.vhost.release.returns_consumers_first:
            return f"get {tag}" if consumer is None else f"consumer {consumer.number:020}"
        if consumer is not None:
            return consumer.tag
        return str(tag) if outcome is Outcome.RETURNED else ""

    def _unpark_some(self) -> None:
        if self.parked:
            self.unpark()

    def _take_all(self) -> dict[int, Held]:
        held, self.unsettled = self.unsettled, {}
        return held

    def release(self, held: Held, outcome: Outcome) -> None:
        """Remove a delivery from the channel."""
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
        """Requeue all unsettled deliveries (basic.recover), then call `then`. Raises 540 if one is a stream's."""
        if self.has_streams:
            check_returns(self.unsettled, 0)

        def recovered() -> None:
            self.unpark()
            then()

        self.connection.work(self.settling(popped(self._take_all()), Outcome.REQUEUED), recovered)

    def unpark(self) -> None:
        """Return consumers that have room again to the round robin.

        The queue that parked first goes last, since it took the channel's last room: queues that share a channel's
        prefetch are thus served in turns.
        """
        waiting = [consumer for consumer in self.parked if consumer.has_room()]
        last = waiting[0].queue if waiting else None
        for consumer in sorted(waiting, key=lambda consumer: consumer.queue is last):
            self.parked.pop(consumer, None)
            consumer.queue.turns.unpark(consumer)
            self.vhost.dispatcher.touch(consumer.queue)

    def _unpark_after(self, consumer: Holder | None) -> None:
        """Unpark consumers that may have room after `consumer` settled a delivery: others share its limit at most."""
        if self.channel_prefetch:
            self.unpark()
        elif isinstance(consumer, Consumer) and consumer in self.parked and consumer.has_room():
            del self.parked[consumer]
            consumer.queue.turns.unpark(consumer)
            self.vhost.dispatcher.touch(consumer.queue)

    # -- consumers -------------------------------------------------------------------------------------

    def removing(self, consumer: Consumer) -> Iterator[None]:
        """Remove a consumer in steps: with the last one goes its auto-delete queue, which may have very many bindings.

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
        """Enter confirm mode."""
        if self.confirms is None:
            self.confirms = Confirms(self.number, self.connection.driver.write)

    def consume_replies(self, reply_to: ReplyTo) -> None:
        """Set the channel's only consumer of direct replies."""
        self.reply_to = reply_to
        self.replies[reply_to.name] = reply_to

    def forget_replies(self) -> None:
        """Remove the consumer of direct replies, if there is one."""
        if self.reply_to is not None:
            self.replies.pop(self.reply_to.name, None)
            self.reply_to = None

    def rolling_back(self, transaction: Transaction) -> Iterator[None]:
        """Drop the publishes of a transaction, in steps; its settled deliveries are open again, with their old tags."""
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
                kept, self.unsettled = self.unsettled, {}  # delivered meanwhile, with higher tags
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
        """Stop delivering and confirming at once, and return the remaining steps of closing.

        The steps end the consumers, discard an open transaction, and requeue unsettled deliveries.
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
        yield from self.settling(popped(self._take_all()), Outcome.RETURNED)
