"""A channel of a client, seen from the broker: what it consumes, what it has not settled, what it has published."""

import struct
from typing import TYPE_CHECKING, Final

from warren.amqp.protocol import hot
from warren.amqp.protocol.methods import BasicCancel, Method
from warren.broker.errors import precondition_failed
from warren.broker.queues import Consumer, Entry, Queue

if TYPE_CHECKING:
    from warren.broker.connection import ClientConnection

_DELIVER_MIDDLE: Final = struct.Struct(">QB")


class Channel:
    """An open channel. It is made with channel.open and gone with its close; a new one may have its number."""

    def __init__(self, connection: "ClientConnection", number: int) -> None:
        self.connection = connection
        self.vhost = connection.vhost
        self.number = number
        self.consumers: dict[str, Consumer] = {}
        self.parked: set[Consumer] = set()
        self.unsettled: dict[int, tuple[Queue, Consumer | None, Entry]] = {}
        self.consumer_prefetch = 0
        self.channel_prefetch = 0
        self.last_queue = ""
        self.confirming = False
        self.is_open = True
        self.can_deliver = True
        self._unsettled_by_consumers = 0
        self._next_tag = 1
        self._published = 0

    def send(self, method: Method) -> None:
        """Send a method to the client."""
        self.connection.send(self.number, method)

    # -- delivering ------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether the channel's own prefetch (basic.qos with global) allows another delivery."""
        return not self.channel_prefetch or self._unsettled_by_consumers < self.channel_prefetch

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        tag = self._hold(consumer.queue, None if consumer.no_ack else consumer, entry, consumer.no_ack)
        message = entry.message
        payload = consumer.prefix + _DELIVER_MIDDLE.pack(tag, entry.redelivered) + message.destination
        connection = self.connection
        connection.driver.write(
            hot.encode_method_frame(self.number, payload)
            + hot.encode_content(self.number, message.header, message.body, connection.core.frame_limit)
        )
        if not connection.driver.can_write:
            connection.stop_delivering()

    def take(self, queue: Queue, entry: Entry, no_ack: bool) -> int:
        """Note that a message was got from a queue; gives its delivery tag."""
        return self._hold(queue, None, entry, no_ack)

    def _hold(self, queue: Queue, consumer: Consumer | None, entry: Entry, no_ack: bool) -> int:
        tag = self._next_tag
        self._next_tag = tag + 1
        if not no_ack:
            self.unsettled[tag] = (queue, consumer, entry)
            queue.unsettled += 1
            if consumer is not None:
                consumer.unsettled += 1
                self._unsettled_by_consumers += 1
        return tag

    # -- settling --------------------------------------------------------------------------------------

    def settle(self, tag: int, multiple: bool, *, requeue: bool) -> None:
        """Settle a delivery, or all up to it (0: all there are). Raises 406 for a tag that is not open."""
        if not multiple:
            held = self.unsettled.pop(tag, None)
            if held is None:
                raise precondition_failed(f"unknown delivery tag {tag}")
            self._release(*held, requeue=requeue)
        else:
            tags = []
            for known in self.unsettled:  # they rise, as they were put in
                if known > tag > 0:
                    break
                tags.append(known)
            if not tags and tag:
                raise precondition_failed(f"unknown delivery tag {tag}")
            for known in tags:
                self._release(*self.unsettled.pop(known), requeue=requeue)
        if self.parked:
            self.unpark()

    def _release(self, queue: Queue, consumer: Consumer | None, entry: Entry, *, requeue: bool) -> None:
        queue.unsettled -= 1
        if consumer is not None:
            consumer.unsettled -= 1
            self._unsettled_by_consumers -= 1
        if requeue:
            queue.requeue(entry)
            self.connection.broker.touch(queue)

    def recover(self) -> None:
        """Put everything that is not settled back to its queue (basic.recover)."""
        self.settle(0, True, requeue=True)

    def unpark(self) -> None:
        """Let consumers that had no room take turns again, where they have some now."""
        for consumer in [consumer for consumer in self.parked if consumer.has_room()]:
            self.parked.discard(consumer)
            consumer.queue.unpark(consumer)
            self.connection.broker.touch(consumer.queue)

    # -- consumers -------------------------------------------------------------------------------------

    def remove_consumer(self, consumer: Consumer) -> None:
        """End a consumer; what it has not settled stays with the channel. Its queue may go with its last one."""
        self.consumers.pop(consumer.tag, None)
        self.parked.discard(consumer)
        consumer.queue.remove_consumer(consumer)
        if consumer.queue.auto_delete and not consumer.queue.consumers:
            self.vhost.delete_queue(consumer.queue)

    def on_queue_deleted(self, consumer: Consumer) -> None:
        """Forget a consumer whose queue is gone, and tell the client if it wants to know."""
        self.consumers.pop(consumer.tag, None)
        self.parked.discard(consumer)
        if self.is_open and self.connection.wants_cancel:
            self.send(BasicCancel(consumer.tag, nowait=True))

    # -- publishing ------------------------------------------------------------------------------------

    def count_publish(self) -> None:
        """Note a publish that is to be confirmed with the others of its batch."""
        self._published += 1
        self.connection.to_confirm.add(self)

    def confirm_batch(self) -> None:
        """Confirm all that was published so far: everything before it is confirmed, so one ack does."""
        if self.is_open:
            self.connection.driver.write(hot.encode_ack(self.number, self._published, True))

    # -- closing ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """End consumers, and put back what is not settled."""
        self.is_open = False
        for consumer in list(self.consumers.values()):
            self.remove_consumer(consumer)
        for held in self.unsettled.values():
            self._release(*held, requeue=True)
        self.unsettled.clear()
