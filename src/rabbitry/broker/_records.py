"""Exchanges, queues and bindings as records of the store."""

from __future__ import annotations

import hashlib
from typing import Final

from rabbitry.amqp.protocol.tables import FieldValue, Table, decode_table, encode_table
from rabbitry.broker._exchanges import TYPES, Binding, Exchange
from rabbitry.broker._queues import Queue
from rabbitry.broker._store.schema import record_key
from rabbitry.broker.compat import Release

EXCHANGE: Final = "exchange"
QUEUE: Final = "queue"
BINDING: Final = "binding"
VHOST: Final = "vhost"


def exchange_record(vhost: str, exchange: Exchange) -> tuple[str, Table]:
    """Return an exchange's key and value."""
    return record_key(vhost, exchange.name), {
        "vhost": vhost,
        "name": exchange.name,
        "type": exchange.type,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "waiting": 0 if exchange.waiting is None else exchange.waiting.id,
        "arguments": encode_table(exchange.arguments),
    }


def read_exchange(value: Table, release: Release) -> Exchange:
    """Return the exchange of a record."""
    return TYPES[text_of(value, "type")](
        text_of(value, "name"),
        auto_delete=value.get("auto_delete") is True,
        internal=value.get("internal") is True,
        arguments=arguments_of(value),
        release=release,
    )


def queue_record(vhost: str, queue: Queue) -> tuple[str, Table]:
    """Return a queue's key and value."""
    return record_key(vhost, queue.name), {
        "vhost": vhost,
        "name": queue.name,
        "id": queue.id,
        "auto_delete": queue.auto_delete,
        "recovered_to": queue.recovered_to,
        "arguments": encode_table(queue.arguments),
        **queue.more_of_record,
    }


def binding_record(vhost: str, binding: Binding) -> tuple[str, Table]:
    """Return a binding's key and value."""
    kind = "queue" if isinstance(binding.destination, Queue) else "exchange"
    digest = hashlib.sha256(encode_table(binding.arguments)).hexdigest()
    name = record_key(vhost, binding.source.name, kind, binding.destination.name, binding.routing_key, digest)
    return name, {
        "vhost": vhost,
        "source": binding.source.name,
        "kind": kind,
        "destination": binding.destination.name,
        "routing_key": binding.routing_key,
        "arguments": encode_table(binding.arguments),
    }


def is_durable(binding: Binding) -> bool:
    """Return whether a binding survives a restart: both of its ends have to be durable."""
    destination = binding.destination
    kept = bool(destination.id) if isinstance(destination, Queue) else destination.durable
    return kept and binding.source.durable


def text_of(value: Table, name: str) -> str:
    """Return a field of a record as text."""
    text = value[name]
    return text if isinstance(text, str) else str(text)


def arguments_of(value: Table) -> Table:
    """Return the arguments of a record. Stored encoded, they don't add to the record's nesting."""
    arguments: FieldValue = value["arguments"]
    if isinstance(arguments, bytes):
        return decode_table(arguments)[0]
    return arguments if isinstance(arguments, dict) else {}
