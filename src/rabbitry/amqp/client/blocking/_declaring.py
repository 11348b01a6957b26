"""The part of a blocking channel that declares, binds, purges and deletes exchanges and queues."""

from __future__ import annotations

from rabbitry.amqp.client.channel import Channel, QueueInfo
from rabbitry.amqp.protocol.tables import Table
from rabbitry.runtime.io_thread import IOThread


class BlockingDeclaring:
    """The operations of `BlockingChannel` on exchanges and queues, each as that of `Channel`."""

    _channel: Channel
    _io: IOThread

    def declare_exchange(
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
        self._io.run(
            self._channel.declare_exchange(
                name,
                type,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                passive=passive,
                arguments=arguments,
                timeout=timeout,
            )
        )

    def delete_exchange(self, name: str, *, if_unused: bool = False, timeout: float | None = None) -> None:
        """Delete an exchange with its bindings. One that does not exist is no error."""
        self._io.run(self._channel.delete_exchange(name, if_unused=if_unused, timeout=timeout))

    def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Bind exchange `destination` to `source`, which then routes messages on to it (RabbitMQ's docs/e2e)."""
        self._io.run(
            self._channel.bind_exchange(destination, source, routing_key, arguments=arguments, timeout=timeout)
        )

    def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Undo `bind_exchange`. A binding that does not exist is no error."""
        self._io.run(
            self._channel.unbind_exchange(destination, source, routing_key, arguments=arguments, timeout=timeout)
        )

    def declare_queue(
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
        return self._io.run(
            self._channel.declare_queue(
                name,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                passive=passive,
                arguments=arguments,
                restore=restore,
                timeout=timeout,
            )
        )

    def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Bind a queue to an exchange."""
        self._io.run(self._channel.bind_queue(queue, exchange, routing_key, arguments=arguments, timeout=timeout))

    def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Table | None = None,
        timeout: float | None = None,
    ) -> None:
        """Undo `bind_queue`. A binding that does not exist is no error."""
        self._io.run(self._channel.unbind_queue(queue, exchange, routing_key, arguments=arguments, timeout=timeout))

    def purge_queue(self, queue: str, *, timeout: float | None = None) -> int:
        """Drop all ready messages of a queue, and return their number."""
        return self._io.run(self._channel.purge_queue(queue, timeout=timeout))

    def delete_queue(
        self, queue: str, *, if_unused: bool = False, if_empty: bool = False, timeout: float | None = None
    ) -> int:
        """Delete a queue with its messages, and return their number. One that does not exist is no error."""
        return self._io.run(self._channel.delete_queue(queue, if_unused=if_unused, if_empty=if_empty, timeout=timeout))
