"""The firehose: copies of what is published and delivered, for `amq.rabbitmq.trace` (RabbitMQ's docs/firehose)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table, encode_short, encode_text, encode_timestamp
from rabbitry.broker._product import node_name
from rabbitry.broker.message import Entry, Message, origin_of
from rabbitry.exceptions import UsageError

TRACE: Final = "amq.rabbitmq.trace"
"""The exchange of the copies; its own messages are not copied."""


class TracedConnection(Protocol):
    """The part of a connection that a copy names."""

    @property
    def name(self) -> str:
        """Its name for operators."""

    @property
    def user(self) -> str:
        """The name of the user."""


class TracedChannel(Protocol):
    """The part of a channel that a copy names."""

    @property
    def number(self) -> int:
        """Its number on its connection."""

    @property
    def connection(self) -> TracedConnection:
        """Its connection."""


class Firehose:
    """Copies the messages of a virtual host while its tracing is on.

    Args:
        vhost: The name of the virtual host.
        publish: Publishes a copy with a routing key and properties.
    """

    def __init__(self, vhost: str, publish: Callable[[Message, str, Properties], None]) -> None:
        self._vhost = vhost
        self._publish = publish

    def published(self, channel: TracedChannel, message: Message, queues: Sequence[str]) -> None:
        """Copy a message that a client published. `queues`: the names of those that it was routed to."""
        exchange, key = origin_of(message)
        # The default exchange routes to the name, whether the queue exists or not.
        routed: Table = {"routed_queues": list(queues) if exchange else [key]}
        self._copy(f"publish.{exchange}", channel, message, routed)

    def delivered(self, queue: str, channel: TracedChannel, entry: Entry) -> None:
        """Copy a message that a queue delivered to a consumer, or for basic.get."""
        self._copy(f"deliver.{queue}", channel, entry.message, {"redelivered": int(entry.redelivered)})

    def _copy(self, key: str, channel: TracedChannel, message: Message, more: Table) -> None:
        exchange, own_key = origin_of(message)
        if exchange == TRACE:
            return
        properties = decode_header(message.header)
        given = {name: _plain(value) for name, value in properties._asdict().items() if value is not None}
        copied = (properties.headers or {}).get("CC")
        headers: Table = {
            "exchange_name": exchange,
            "routing_keys": [own_key, *(copied if isinstance(copied, list) else []), *message.hidden_keys],
            "properties": given,
            "node": node_name(),
            "vhost": self._vhost,
            "connection": channel.connection.name,
            "channel": channel.number,
            "user": channel.connection.user,
            **more,
        }
        about = Properties(headers=headers)
        try:
            header = encode_header(about, len(message.body))
        except UsageError:
            # The copy's own headers hold those of the message two levels deeper, which may be one too deep for a table.
            given.pop("headers", None)
            header = encode_header(about, len(message.body))
        raw_key = encode_text(key)[:255]  # the names in it may take more than a short string has room for
        destination = encode_short(TRACE) + bytes((len(raw_key),)) + raw_key
        self._publish(Message(destination, header, message.body, False), key, about)


def _plain(value: FieldValue) -> FieldValue:
    return encode_timestamp(value) if isinstance(value, datetime) else value
