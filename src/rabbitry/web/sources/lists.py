"""The lists of a management API that are tables of the feed: their columns, their fields, and how a row is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rabbitry.apps.management import part_of, place_of
from rabbitry.web.feed.tables import Column, Key, Row
from rabbitry.web.sources.fields import Object, features, number, rate, text


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of the API.

    Attributes:
        topic: The table's name in the feed.
        columns, keys: Of the table.
        fields: The fields of an object that a row needs, as the API's parameter `columns`.
        row: Reads an object.
        one: Returns the path of one object by its key; None if the API answers the whole list alone.
    """

    topic: str
    columns: tuple[Column, ...]
    keys: int
    fields: str
    row: Callable[[Object], Row]
    one: Callable[[Key], str] | None = None


def _columns(texts: str, numbers: str = "") -> tuple[Column, ...]:
    return (*(Column(name) for name in texts.split()), *(Column(name, "number") for name in numbers.split()))


def queue_row(queue: Object) -> Row:
    """Return a queue as a row. RabbitMQ has no figures of one in its first seconds, which then are 0."""
    stats = part_of(queue, "message_stats")
    return (
        text(queue.get("vhost")),
        text(queue.get("name")),
        text(queue.get("type")) or "classic",
        features(queue),
        text(queue.get("policy")),
        text(queue.get("state")) or "running",
        number(queue.get("messages_ready")),
        number(queue.get("messages_unacknowledged")),
        number(queue.get("messages")),
        number(queue.get("consumers")),
        number(queue.get("message_bytes")),
        rate(stats, "publish"),
        rate(stats, "deliver_get"),
        rate(stats, "ack"),
    )


def _exchange_row(exchange: Object) -> Row:
    stats = part_of(exchange, "message_stats")
    return (
        text(exchange.get("vhost")),
        text(exchange.get("name")),
        text(exchange.get("type")),
        features(exchange),
        text(exchange.get("policy")),
        rate(stats, "publish_in"),
        rate(stats, "publish_out"),
    )


def _connection_row(connection: Object) -> Row:
    named = part_of(connection, "client_properties")
    client = text(named.get("connection_name")) or text(named.get("product"))
    port = number(connection.get("peer_port"))
    return (
        text(connection.get("name")),
        client,
        f"{text(connection.get('peer_host'))}:{port:.0f}" if port else text(connection.get("peer_host")),
        text(connection.get("vhost")),
        text(connection.get("user")),
        text(connection.get("state")) or "running",
        text(connection.get("protocol")) + (" TLS" if connection.get("ssl") is True else ""),
        number(connection.get("channels")),
        rate(connection, "recv_oct"),
        rate(connection, "send_oct"),
        number(connection.get("connected_at")) / 1000,
    )


def _channel_row(channel: Object) -> Row:
    stats = part_of(channel, "message_stats")
    modes = (("confirm", "confirms"), ("transactional", "transaction"))
    return (
        text(channel.get("name")),
        text(channel.get("vhost")),
        text(channel.get("user")),
        " ".join(shown for name, shown in modes if channel.get(name) is True),
        text(channel.get("state")) or "running",
        number(channel.get("consumer_count")),
        number(channel.get("prefetch_count")),
        number(channel.get("messages_unacknowledged")),
        number(channel.get("messages_unconfirmed")),
        rate(stats, "publish"),
        rate(stats, "deliver_get"),
        rate(stats, "ack"),
    )


def consumer_row(consumer: Object) -> Row:
    """Return a consumer as a row."""
    queue = part_of(consumer, "queue")
    return (
        text(queue.get("vhost")),
        text(queue.get("name")),
        text(consumer.get("consumer_tag")),
        text(part_of(consumer, "channel_details").get("name")),
        "manual" if consumer.get("ack_required") is True else "automatic",
        "waiting" if consumer.get("active") is False else "active",
        number(consumer.get("prefetch_count")),
    )


def binding_row(binding: Object) -> Row:
    """Return a binding as a row."""
    names = ("vhost", "source", "destination_type", "destination", "properties_key", "routing_key")
    return tuple(text(binding.get(name)) for name in names)


def _exchange_path(key: Key) -> str:
    vhost, name = key
    return f"/api/exchanges/{place_of(vhost, name or 'amq.default')}"


QUEUE_FIELDS: Final = (
    "vhost,name,type,durable,auto_delete,exclusive,arguments,policy,state,messages,messages_ready,"
    "messages_unacknowledged,consumers,message_bytes,message_stats.publish_details.rate,"
    "message_stats.deliver_get_details.rate,message_stats.ack_details.rate"
)
"""The fields of a queue that a row needs."""
LISTINGS: Final = (
    Listing(
        "queues",
        _columns(
            "vhost name type features policy state",
            "ready unacked messages consumers bytes incoming delivered acked",
        ),
        2,
        QUEUE_FIELDS,
        queue_row,
        lambda key: f"/api/queues/{place_of(*key)}",
    ),
    Listing(
        "exchanges",
        _columns("vhost name type features policy", "incoming outgoing"),
        2,
        "vhost,name,type,durable,auto_delete,internal,arguments,policy,message_stats",
        _exchange_row,
        _exchange_path,
    ),
    Listing(
        "connections",
        _columns("name client address vhost user state protocol", "channels received sent since"),
        1,
        "name,client_properties,peer_host,peer_port,vhost,user,state,protocol,ssl,channels,recv_oct_details,"
        "send_oct_details,connected_at",
        _connection_row,
        lambda key: f"/api/connections/{place_of(*key)}",
    ),
    Listing(
        "channels",
        _columns(
            "name vhost user mode state",
            "consumers prefetch unacked unconfirmed publish delivered acked",
        ),
        1,
        "name,vhost,user,confirm,transactional,state,consumer_count,prefetch_count,messages_unacknowledged,"
        "messages_unconfirmed,message_stats",
        _channel_row,
        lambda key: f"/api/channels/{place_of(*key)}",
    ),
    Listing(
        "consumers",
        _columns("vhost queue tag channel ack state", "prefetch"),
        4,
        "queue,consumer_tag,channel_details,ack_required,active,prefetch_count",
        consumer_row,
    ),
    Listing(
        "bindings",
        _columns("vhost source destination_type destination properties_key routing_key"),
        5,
        "vhost,source,destination_type,destination,properties_key,routing_key",
        binding_row,
    ),
)
"""The lists. `incoming`, `delivered` and the like are messages a second, `received` and `sent` bytes a second."""
