"""Exchanges, queues and bindings as records of the store."""

import hashlib
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rabbitry.amqp.protocol.tables import FieldValue, Table, decode_table, encode_table
from rabbitry.broker.exchanges import TYPES, Binding, Exchange
from rabbitry.broker.queues.queue import Queue

if TYPE_CHECKING:
    from rabbitry.broker.vhost import VirtualHost

EXCHANGE: Final = "exchange"
QUEUE: Final = "queue"
BINDING: Final = "binding"
VHOST: Final = "vhost"
PARAMETER: Final = "global-parameter"


def key(*parts: str) -> str:
    """Join names to a record's key; names may be any bytes (see decode_text)."""
    return "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


def exchange_record(vhost: str, exchange: Exchange) -> tuple[str, Table]:
    """Return an exchange's key and value."""
    return key(vhost, exchange.name), {
        "vhost": vhost,
        "name": exchange.name,
        "type": exchange.type,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": encode_table(exchange.arguments),
    }


def read_exchange(value: Table) -> Exchange:
    """Make an exchange of its record."""
    return TYPES[_text(value, "type")](
        _text(value, "name"),
        auto_delete=value.get("auto_delete") is True,
        internal=value.get("internal") is True,
        arguments=arguments_of(value),
    )


def queue_record(vhost: str, queue: Queue) -> tuple[str, Table]:
    """Return a queue's key and value."""
    return key(vhost, queue.name), {
        "vhost": vhost,
        "name": queue.name,
        "id": queue.id,
        "auto_delete": queue.auto_delete,
        "recovered_to": queue.recovered_to,
        "arguments": encode_table(queue.arguments),
    }


def binding_record(vhost: str, binding: Binding) -> tuple[str, Table]:
    """Return a binding's key and value."""
    kind = "queue" if isinstance(binding.destination, Queue) else "exchange"
    digest = hashlib.sha256(encode_table(binding.arguments)).hexdigest()
    name = key(vhost, binding.source.name, kind, binding.destination.name, binding.routing_key, digest)
    return name, {
        "vhost": vhost,
        "source": binding.source.name,
        "kind": kind,
        "destination": binding.destination.name,
        "routing_key": binding.routing_key,
        "arguments": encode_table(binding.arguments),
    }


def vhost_record(vhost: "VirtualHost") -> Table:
    """Return the value of a virtual host's record."""
    return {
        "name": vhost.name,
        "description": vhost.description,
        "tags": list(vhost.tags),
        "limits": dict(vhost.limits),
    }


def read_vhost(vhost: "VirtualHost", value: Table) -> None:
    """Set a virtual host's description, tags and limits from its record; older records have only the name."""
    tags = value.get("tags")
    vhost.description = str(value.get("description", vhost.description))
    vhost.tags = tuple(map(str, tags)) if isinstance(tags, list) else ()
    limits = value.get("limits")
    items = limits.items() if isinstance(limits, dict) else ()
    vhost.limits = {name: limit for name, limit in items if isinstance(limit, int)}


def is_durable(binding: Binding) -> bool:
    """Whether a binding outlives a restart: both of its ends do."""
    destination = binding.destination
    kept = bool(destination.id) if isinstance(destination, Queue) else destination.durable
    return kept and binding.source.durable


def restore_binding(vhost: "VirtualHost", value: Table) -> None:
    """Bind again what a record says; where an end is missing there is nothing to bind."""
    name = _text(value, "destination")
    destination = vhost.queues.get(name) if value.get("kind") == "queue" else vhost.exchanges.get(name)
    if destination is not None and _text(value, "source") in vhost.exchanges:
        vhost.bind(_text(value, "source"), destination, _text(value, "routing_key"), arguments_of(value))


def _text(value: Table, name: str) -> str:
    text = value[name]
    return text if isinstance(text, str) else str(text)


def arguments_of(value: Table) -> Table:
    """Return the arguments of a record. They are kept encoded, so that a record is not nested deeper than they are."""
    arguments: FieldValue = value["arguments"]
    if isinstance(arguments, bytes):
        return decode_table(arguments)[0]
    return arguments if isinstance(arguments, dict) else {}
