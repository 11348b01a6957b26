"""A channel for scripts."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rabbitry.amqp.client._receipts import Receipt
from rabbitry.amqp.client._transaction import Transaction
from rabbitry.amqp.client._window import as_body, header_too_large
from rabbitry.amqp.client.blocking._declaring import BlockingDeclaring
from rabbitry.amqp.client.blocking._outbox import Outbox
from rabbitry.amqp.client.blocking.consuming import BlockingConsumer, BlockingConsumers, BlockingDelivery
from rabbitry.amqp.client.blocking.receipts import BlockingReceipt
from rabbitry.amqp.client.channel import Channel
from rabbitry.amqp.client.consuming import Consumers
from rabbitry.amqp.protocol.properties import EncodedProperties, Properties, encode_header
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import Closed
from rabbitry.runtime.io_thread import IOThread


class BlockingChannel(BlockingDeclaring):
    """A channel. Created by `BlockingConnection.channel`; a context manager that closes it.

    It has the methods of the asyncio client's channel; each waits until it is done. Leaving its block without an error
    waits until all sent messages are confirmed, and raises the failures that nobody has retrieved as one
    ExceptionGroup. Leaving it with an error closes at once.
    """

    def __init__(self, channel: Channel, outbox: Outbox, io: IOThread, owner: object) -> None:
        """owner: the connection, kept alive as long as its channels."""
        self._channel = channel
        self._core = channel._core
        self._outbox = outbox
        self._io = io
        self._owner = owner
        self._checked: Properties | None = None

    def __repr__(self) -> str:
        return repr(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A closed connection has reported the unconfirmed messages.
        self._io.run_at_end(self._leave(error))

    async def _leave(self, error: BaseException | None) -> None:
        if error is not None:
            await self._channel.__aexit__(type(error), error, None)
            return
        try:
            await self._outbox.settled()
        finally:
            await self._channel.close()
        self._outbox.raise_unseen()

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return self._channel.is_open

    @property
    def close_reason(self) -> Closed | None:
        """Why the channel is closed; None while it is open."""
        return self._channel.close_reason

    @property
    def number(self) -> int:
        """The channel's number on the connection."""
        return self._channel.number

    def open(self, *, timeout: float | None = None) -> None:
        """Open the channel again after it was closed; the connection is unaffected. Consumers are not restarted.

        Does nothing if it is open. Waits while the connection recovers.
        """
        self._io.run(self._channel.open(timeout=timeout))

    def close(self, *, timeout: float | None = None) -> None:
        """Close in order: send channel.close, and wait for close-ok.

        Unconfirmed messages fail, and unsettled deliveries return to their queues. Does nothing if the channel is
        closed. When cancelled, it leaves the rest to the broker.
        """
        self._io.run(self._channel.close(timeout=timeout))

    def qos(self, prefetch: int, *, timeout: float | None = None) -> None:
        """Limit each consumer that starts from now on to `prefetch` unsettled deliveries (0: no limit)."""
        self._io.run(self._channel.qos(prefetch, timeout=timeout))

    def limit(self, unsettled: int, *, timeout: float | None = None) -> None:
        """Limit the unsettled deliveries of all consumers of this channel together, from now on (0: no limit).

        Those of quorum queues are not limited (basic.qos with global; RabbitMQ's docs/consumer-prefetch).
        """
        self._io.run(self._channel.limit(unsettled, timeout=timeout))

    def publish(
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
        self._io.run(
            self._channel.publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=mandatory,
                timeout=timeout,
            )
        )

    def send(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        properties: Properties | EncodedProperties | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
    ) -> BlockingReceipt:
        """Publish a message and return its receipt, a future that is done when the broker has confirmed it.

        Waits only while too many messages are unconfirmed. Arguments and errors are those of `publish`;
        UsageError is raised at once, the others come from the receipt, and from `wait_for_confirms`.
        """
        body = as_body(body)
        self._check_properties(properties)
        self._io.check()  # before queueing the message, which otherwise would never be sent
        made = self._core.window.new_id()
        own = properties.message_id if isinstance(properties, Properties) else None
        send = functools.partial(
            self._send, made, body, exchange, routing_key, properties, mandatory=mandatory, timeout=timeout
        )
        return self._outbox.put(send, made.decode() if own is None else own, len(body))

    async def _send(
        self,
        message_id: bytes,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: Properties | EncodedProperties | None,
        *,
        mandatory: bool,
        timeout: float | None,
    ) -> Receipt:
        """Send a message in the I/O thread; the outbox reports its failure."""
        seconds = self._core.publishing.begin(timeout)
        return await self._core.window.send(
            body, exchange, routing_key, properties, mandatory=mandatory, timeout=seconds, tracked=False,
            message_id=message_id,
        )  # fmt: skip

    def _check_properties(self, properties: Properties | EncodedProperties | None) -> None:
        """Refuse invalid properties in the caller's thread, since the I/O thread would raise too late."""
        link = self._core.session.link
        if not isinstance(properties, Properties) or properties is self._checked or link is None:
            return
        header = encode_header(properties, 0)
        if len(header) > link.core.frame_limit:
            raise header_too_large(header, link.core.frame_limit)
        # Headers are the one part that the caller can change in place.
        self._checked = properties if properties.headers is None else None

    @property
    def has_unconfirmed(self) -> bool:
        """Whether messages wait to be sent or confirmed."""
        return not (self._outbox.is_empty and self._core.window.is_idle)

    def wait_for_confirms(self, *, timeout: float | None = None) -> None:
        """Wait until everything sent before is confirmed.

        Raises the failures since the last call as one ExceptionGroup, and PublishTimeout when `timeout` seconds (None:
        only the messages' own deadlines) have passed.
        """
        self._io.run(self._outbox.wait_for_confirms(timeout))

    def get(self, queue: str, *, no_ack: bool = False, timeout: float | None = None) -> BlockingDelivery | None:
        """Get one message from a queue, None if it is empty."""
        delivery = self._io.run(self._channel.get(queue, no_ack=no_ack, timeout=timeout))
        return None if delivery is None else BlockingDelivery(delivery, self._io)

    def consume(
        self,
        queue: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Table | None = None,
        restore: bool = False,
    ) -> BlockingConsumer:
        """Return a consumer of `queue`, to be entered with `with`, which starts it. See `Channel.consume`."""
        consumer = self._channel.consume(
            queue, no_ack=no_ack, exclusive=exclusive, consumer_tag=consumer_tag, arguments=arguments, restore=restore
        )
        return BlockingConsumer(consumer, self._io, self)

    def transaction(self) -> BlockingTransaction:
        """Return a transaction, to be entered with `with`. See `Channel.transaction`."""
        return BlockingTransaction(self._channel.transaction(), self._io, self._outbox)

    def consume_all(self, queues: Iterable[str], *, no_ack: bool = False, restore: bool = False) -> BlockingConsumers:
        """Return consumers of several queues as one context manager and iterator. See `Channel.consume_all`."""

        async def make() -> Consumers:  # in the I/O thread, whose loop they belong to
            return self._channel.consume_all(queues, no_ack=no_ack, restore=restore)

        return BlockingConsumers(self._io.run(make()), self._io, self)


class BlockingTransaction:
    """One transaction, a context manager. Created by `BlockingChannel.transaction`."""

    def __init__(self, transaction: Transaction, io: IOThread, outbox: Outbox) -> None:
        self._transaction = transaction
        self._io = io
        self._outbox = outbox

    def __enter__(self) -> Self:
        self._io.run(self._transaction.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The block's own error is not replaced; without one, a transaction that was not committed raises.
        (self._io.run if error is None else self._io.run_at_end)(self._end(error))

    async def _end(self, error: BaseException | None) -> None:
        await self._outbox.sent()  # `send` only queues: its messages belong to the transaction too
        await self._transaction.__aexit__(None if error is None else type(error), error, None)
