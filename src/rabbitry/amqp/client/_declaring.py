"""The part of a channel that declares, binds, purges and deletes exchanges and queues."""

from __future__ import annotations

from rabbitry._fields import Fields
from rabbitry.amqp.client._channel import ChannelCore
from rabbitry.amqp.protocol.methods import (
    NO_ARGUMENTS,
    ExchangeBind,
    ExchangeBindOk,
    ExchangeDeclare,
    ExchangeDeclareOk,
    ExchangeDelete,
    ExchangeDeleteOk,
    ExchangeUnbind,
    ExchangeUnbindOk,
    QueueBind,
    QueueBindOk,
    QueueDeclare,
    QueueDeclareOk,
    QueueDelete,
    QueueDeleteOk,
    QueuePurge,
    QueuePurgeOk,
    QueueUnbind,
    QueueUnbindOk,
)
from rabbitry.amqp.protocol.tables import Table


class QueueInfo(Fields):
    """The broker's figures for a queue: name, ready messages, consumers."""

    name: str
    message_count: int
    consumer_count: int


class Declaring:
    """The operations of `Channel` on exchanges and queues; each is recorded for recovery once the broker agrees."""

    _core: ChannelCore

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
        self._core.notes.queue_declared(method, self._core.topology.known(answer.queue), self._core.session.loop.time())
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
        method = QueueUnbind(self._core.topology.current(queue), exchange, routing_key, arguments or NO_ARGUMENTS)
        await self._core.line.request(method, QueueUnbindOk, timeout=timeout)
        self._core.topology.queue_unbound(QueueBind(queue, exchange, routing_key, arguments=method.arguments), queue)

    async def purge_queue(self, queue: str, *, timeout: float | None = None) -> int:
        """Drop all ready messages of a queue, and return their number."""
        method = QueuePurge(self._core.topology.current(queue))
        return (await self._core.line.request(method, QueuePurgeOk, timeout=timeout)).message_count

    async def delete_queue(
        self, queue: str, *, if_unused: bool = False, if_empty: bool = False, timeout: float | None = None
    ) -> int:
        """Delete a queue with its messages, and return their number. One that does not exist is no error."""
        method = QueueDelete(self._core.topology.current(queue), if_unused, if_empty)
        count = (await self._core.line.request(method, QueueDeleteOk, timeout=timeout)).message_count
        self._core.topology.queue_deleted(queue)
        return count
