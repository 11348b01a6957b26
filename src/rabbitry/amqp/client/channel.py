"""A channel: declaring, publishing, consuming and closing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rabbitry._fields import Fields
from rabbitry.amqp.client._channel import ChannelCore
from rabbitry.amqp.client._receipts import Receipt
from rabbitry.amqp.client._settlements import Delivery
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.methods import (
    ExchangeDeclare,
    ExchangeDeclareOk,
    QueueBind,
    QueueBindOk,
    QueueDeclare,
    QueueDeclareOk,
)
from rabbitry.amqp.protocol.properties import EncodedProperties, Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import Closed, UsageError

if TYPE_CHECKING:
    # When the program runs, they are imported by the methods that return them: many programs only publish, few have
    # transactions (benchmarks/importing.py).
    from rabbitry.amqp.client._transaction import Transaction
    from rabbitry.amqp.client.consuming import Consumer, Consumers

__all__ = ["Channel", "QueueInfo", "Receipt"]


class QueueInfo(Fields):
    """The broker's figures for a queue: name, ready messages, consumers."""

    name: str
    message_count: int
    consumer_count: int


class Channel:
    """A channel of a connection. Created by `Connection.channel`; an async context manager that closes it.

    Leaving its block without an error waits until all sent messages are confirmed, and raises the failures that nobody
    has retrieved as one ExceptionGroup. Leaving it with an error closes at once.

    Every waiting method takes `timeout` in seconds (None: the connection's `request_timeout`) and raises RequestTimeout
    after it; ChannelClosed or ConnectionClosed with the broker's text if the broker closes them over the request;
    UsageError for invalid arguments. Cancelling a waiting method leaves the channel usable: the answer is discarded
    when it arrives.
    """

    def __init__(self, core: ChannelCore) -> None:
        self._core = core
        self._publishing = core.publishing
        self._window = core.window
        self._consumer_numbers = itertools.count(1)
        self._consumer_suffix = os.urandom(6).hex()

    def __repr__(self) -> str:
        return f"<Channel {self.number} {'open' if self.is_open else 'closed'} of {self._core.session!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._core.leave(error)

    @property
    def number(self) -> int:
        """The channel's number on the connection."""
        return self._core.line.number

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return self._core.is_open

    @property
    def close_reason(self) -> Closed | None:
        """Why the channel is closed; None while it is open."""
        return self._core.line.closed

    async def open(self, *, timeout: float | None = None) -> None:
        """Open the channel again after it was closed; the connection is unaffected. Consumers are not restarted.

        Does nothing if it is open. Waits while the connection recovers.
        """
        await self._core.open(timeout)

    async def close(self, *, timeout: float | None = None) -> None:
        """Close in order: send channel.close, and wait for close-ok.

        Unconfirmed messages fail, and unsettled deliveries return to their queues. Does nothing if the channel is
        closed. When cancelled, it leaves the rest to the broker; and also while the broker blocks the connection, which
        it does not read then.
        """
        await self._core.close(timeout)

    async def limit(self, unsettled: int, *, timeout: float | None = None) -> None:
        """Limit the unsettled deliveries of all consumers of this channel together, from now on (0: no limit).

        Those of quorum queues are not limited (basic.qos with global; RabbitMQ's docs/consumer-prefetch).
        """
        await self._core.limit(unsettled, timeout)

    async def qos(self, prefetch: int, *, timeout: float | None = None) -> None:
        """Limit each consumer that starts from now on to `prefetch` unsettled deliveries (0: no limit)."""
        await self._core.qos(prefetch, timeout)

    # -- publishing ------------------------------------------------------------------------------------

    async def declare_exchange(
        self,
        name: str,
        type: str = "direct",
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Declare an exchange. One that exists already must have the same type, flags and arguments.

        Args:
            name: Its name, not beginning with `amq.`.
            type: "direct", "topic", "fanout", "headers", or another that the broker knows.
            durable: Whether it survives a restart of the broker.
            auto_delete: Whether it is deleted with the last binding from it.
            internal: Whether clients can't publish to it, only other exchanges can pass messages on to it.
            passive: Only check that it exists; the rest is ignored.
            arguments: Further arguments for the broker.
            timeout: Seconds; None for the connection's `request_timeout`.

        Raises:
            PreconditionFailed: It exists with other properties. The broker has closed the channel: `open` it again.
            NotFound: Passive, and it does not exist; the channel is closed, too.
        """
        method = ExchangeDeclare(
            name, type, passive, durable, auto_delete, internal, arguments=arguments or NO_ARGUMENTS
        )
        await self._core.line.request(method, ExchangeDeclareOk, timeout=timeout)
        self._core.notes.exchange_declared(method)

    async def delete_exchange(self, name: str, *, if_unused: bool = False, timeout: float | None = None) -> None:
        """Delete an exchange with its bindings. One that does not exist is no error."""
        from rabbitry.amqp.protocol.methods import ExchangeDelete, ExchangeDeleteOk

        await self._core.line.request(ExchangeDelete(name, if_unused), ExchangeDeleteOk, timeout=timeout)
        self._core.topology.exchange_deleted(name)

    async def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Bind exchange `destination` to `source`, which then routes messages on to it (RabbitMQ's docs/e2e)."""
        from rabbitry.amqp.protocol.methods import ExchangeBind, ExchangeBindOk

        method = ExchangeBind(destination, source, routing_key, arguments=arguments or NO_ARGUMENTS)
        await self._core.line.request(method, ExchangeBindOk, timeout=timeout)
        self._core.notes.exchange_bound(method)

    async def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Undo `bind_exchange`. A binding that does not exist is no error."""
        from rabbitry.amqp.protocol.methods import ExchangeBind, ExchangeUnbind, ExchangeUnbindOk

        method = ExchangeUnbind(destination, source, routing_key, arguments=arguments or NO_ARGUMENTS)
        await self._core.line.request(method, ExchangeUnbindOk, timeout=timeout)
        self._core.topology.exchange_unbound(ExchangeBind(destination, source, routing_key, arguments=method.arguments))

    async def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        passive: bool = False,
        arguments: Table | None = None,
        restore: bool = True,
        timeout: float | None = None,
    ) -> QueueInfo:
        """Declare a queue, and return its name and the numbers of its ready messages and consumers.

        One that exists already must have the same flags and arguments.

        Args:
            name: Its name; empty for one that the broker chooses.
            durable: Whether it survives a restart of the broker, with its persistent messages.
            exclusive: Whether only this connection may use it; it is deleted with the connection.
            auto_delete: Whether it is deleted with its last consumer.
            passive: Only check that it exists, and count; the rest is ignored.
            arguments: Further arguments for the broker, such as `{"x-queue-type": "quorum"}`.
            restore: Whether the queue is declared again when a lost connection has been recovered. False for queues of
                which there are always new ones: the connection remembers every other one for its life.
            timeout: Seconds; None for the connection's `request_timeout`.

        Raises:
            PreconditionFailed: It exists with other properties. The broker has closed the channel: `open` it again.
            ResourceLocked: It is exclusive to another connection; the channel is closed, too.
            NotFound: Passive, and it does not exist; the channel is closed, too.
        """
        method = QueueDeclare(
            self._core.topology.current(name),
            passive,
            durable,
            exclusive,
            auto_delete,
            arguments=arguments or NO_ARGUMENTS,
        )
        answer = await self._core.line.request(method, QueueDeclareOk, timeout=timeout)
        if restore:
            known = self._core.topology.known(answer.queue)
            self._core.notes.queue_declared(method, known, self._core.session.loop.time())
        return QueueInfo(answer.queue, answer.message_count, answer.consumer_count)

    async def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Bind a queue to an exchange."""
        current = self._core.topology.current(queue)
        method = QueueBind(current, exchange, routing_key, arguments=arguments or NO_ARGUMENTS)
        await self._core.line.request(method, QueueBindOk, timeout=timeout)
        self._core.notes.queue_bound(method, queue)

    async def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Undo `bind_queue`. A binding that does not exist is no error."""
        from rabbitry.amqp.protocol.methods import QueueUnbind, QueueUnbindOk

        method = QueueUnbind(self._core.topology.current(queue), exchange, routing_key, arguments or NO_ARGUMENTS)
        await self._core.line.request(method, QueueUnbindOk, timeout=timeout)
        self._core.topology.queue_unbound(QueueBind(queue, exchange, routing_key, arguments=method.arguments), queue)

    async def purge_queue(self, queue: str, *, timeout: float | None = None) -> int:
        """Drop all ready messages of a queue, and return their number."""
        from rabbitry.amqp.protocol.methods import QueuePurge, QueuePurgeOk

        method = QueuePurge(self._core.topology.current(queue))
        return (await self._core.line.request(method, QueuePurgeOk, timeout=timeout)).message_count

    async def delete_queue(
        self, queue: str, *, if_unused: bool = False, if_empty: bool = False, timeout: float | None = None
    ) -> int:
        """Delete a queue with its messages, and return their number. One that does not exist is no error."""
        from rabbitry.amqp.protocol.methods import QueueDelete, QueueDeleteOk

        method = QueueDelete(self._core.topology.current(queue), if_unused, if_empty)
        count = (await self._core.line.request(method, QueueDeleteOk, timeout=timeout)).message_count
        self._core.topology.queue_deleted(queue)
        return count

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        properties: Properties | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Publish a message and return when the broker has confirmed it.

        Without a delivery mode in `properties` it is persistent; without a message id it gets one. After cancelling,
        the outcome is unknown.

        Args:
            body: The body.
            exchange: The exchange's name; empty for the default exchange.
            routing_key: The routing key.
            properties: The message's properties; None for a persistent message with a new id.
            mandatory: Whether the broker returns a message that it can't route to any queue.
            timeout: Seconds for waiting to send and for the confirm; None for the connection's `publish_timeout`.

        Raises:
            PublishReturned: The message is mandatory and was not routed to any queue.
            PublishRefused: The broker refused the message.
            PublishTimeout: The broker did not confirm in time; the outcome is unknown.
            ChannelClosed: The broker closed the channel.
            ConnectionClosed: The connection was closed, or lost for good.
        """
        seconds = self._publishing.begin(timeout)
        await (
            await self._window.send(
                body, exchange, routing_key, properties, mandatory=mandatory, timeout=seconds, tracked=False
            )
        )

    async def send(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        properties: Properties | EncodedProperties | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish a message and return its receipt, a future that is done when the broker has confirmed it.

        Waits only while too many messages are unconfirmed. Arguments and errors are those of `publish`, except
        that properties may be encoded already; the errors come from the receipt, and from `wait_for_confirms`.
        """
        seconds = self._publishing.begin(timeout)
        return await self._window.send(
            body, exchange, routing_key, properties, mandatory=mandatory, timeout=seconds, tracked=True
        )

    @property
    def has_unconfirmed(self) -> bool:
        """Whether messages wait to be sent or confirmed."""
        return not self._window.is_idle

    async def wait_for_confirms(self, *, timeout: float | None = None) -> None:
        """Wait until everything sent before is confirmed.

        Raises the failures since the last call as one ExceptionGroup, and PublishTimeout when `timeout` seconds (None:
        only the messages' own deadlines) have passed.
        """
        await self._publishing.wait_for_confirms(timeout)

    def transaction(self) -> Transaction:
        """Return a transaction, to be entered with `async with`, on a channel opened with `confirms=False`.

        The end of the block commits the publishes and settlements made over this channel within it. An exception or
        a cancellation rolls them back: nothing is published, and deliveries settled in the block stay unsettled until
        the channel is closed. After its first transaction the channel can publish within transactions only.

        See class tx of AMQP 0-9-1 and RabbitMQ's page docs/semantics.

        Raises:
            UsageError: when the block is entered, on a channel with confirms or within another transaction.
            ConnectionClosed: when the block ends, if the connection was lost within it. Nothing took effect; the
                outcome is unknown only if it was lost during the commit.
            ChannelClosed: when the block ends, if the broker closed the channel. Nothing took effect.
            RequestTimeout: when the broker does not answer within the connection's `request_timeout`.
        """
        from rabbitry.amqp.client._transaction import Transaction

        return Transaction(self._core.line, self._publishing)

    # -- consuming -------------------------------------------------------------------------------------

    def consume(
        self,
        queue: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Table | None = None,
        restore: bool = False,
    ) -> Consumer:
        """Return a consumer of `queue`, to be entered with `async with`, which starts it.

        Args:
            queue: The queue's name.
            no_ack: Whether deliveries count as settled when sent; they are then lost with the connection.
            exclusive: Whether the queue may have no other consumer.
            consumer_tag: The consumer's tag; empty for one that the client makes.
            arguments: Arguments for the broker.
            restore: Whether to declare the queue again and restart the consumer, with growing pauses, if the broker
                cancels it (its queue was deleted, its node went down). Otherwise the iteration raises
                ConsumerCancelled.

        Raises:
            UsageError: `queue` is not text.
        """
        from rabbitry.amqp.client._subscription import Subscription
        from rabbitry.amqp.client.consuming import Consumer

        if not isinstance(queue, str):
            raise UsageError(f"consume takes the name of a queue, not {type(queue).__name__}; consume_all takes a list")
        consumers = self._core.consumers
        subscription = Subscription(
            consumers,
            queue,
            consumer_tag or f"rabbitry.{self._consumer_suffix}.{next(self._consumer_numbers)}",
            no_ack=no_ack,
            exclusive=exclusive,
            arguments=arguments,
            restore=restore,
        )
        return Consumer(consumers, subscription)

    def consume_all(self, queues: Iterable[str], *, no_ack: bool = False, restore: bool = False) -> Consumers:
        """Return consumers of several queues as one async context manager and iterator.

        Arguments are those of `consume`. The channel's prefetch applies to each queue by itself. The iteration raises
        the error of the first consumer that fails, as that of `consume` does.

        Raises:
            UsageError: `queues` is empty, or not a list of names.
        """
        from rabbitry.amqp.client.consuming import Consumers

        if isinstance(queues, str):
            raise UsageError(f"consume_all takes a list of queues, not one name: pass [{queues!r}], or use consume")
        consumers = [self.consume(queue, no_ack=no_ack, restore=restore) for queue in queues]
        if not consumers:
            raise UsageError("consume_all needs at least one queue: pass a list of their names")
        return Consumers(consumers)

    async def get(self, queue: str, *, no_ack: bool = False, timeout: float | None = None) -> Delivery | None:
        """Get one message from a queue, None if it is empty. If the caller is cancelled, the message is requeued."""
        return await self._core.get(queue, no_ack=no_ack, timeout=timeout)
