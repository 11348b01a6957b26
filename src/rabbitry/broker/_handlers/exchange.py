"""Class exchange: declare, delete, bind, unbind (section 1.5, and RabbitMQ's docs/e2e)."""

from __future__ import annotations

from rabbitry.amqp.protocol.methods import (
    ExchangeBind,
    ExchangeBindOk,
    ExchangeDeclare,
    ExchangeDeclareOk,
    ExchangeDelete,
    ExchangeDeleteOk,
    ExchangeUnbind,
    ExchangeUnbindOk,
)
from rabbitry.broker._channel import Channel
from rabbitry.broker._handlers.client import Client
from rabbitry.broker._handlers.queue import plain_name


def declare(client: Client, channel: Channel, method: ExchangeDeclare) -> ExchangeDeclareOk | None:
    """Declare an exchange, or with passive check that it exists."""
    vhost = channel.vhost
    vhost.refuse_default(method.exchange)
    if method.passive:
        vhost.exchange(method.exchange)
    else:
        check = client.permissions.check
        check("configure", "exchange", method.exchange)
        other = method.arguments.get("alternate-exchange")
        if isinstance(other, str):
            check("read", "exchange", method.exchange)
            check("write", "exchange", other)
        vhost.declare_exchange(
            plain_name(method.exchange),
            method.type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments,
        )
    return None if method.nowait else ExchangeDeclareOk()


def delete(client: Client, channel: Channel, method: ExchangeDelete) -> None:
    """Delete an exchange."""
    channel.vhost.refuse_default(method.exchange)
    client.permissions.check("configure", "exchange", method.exchange)
    steps = channel.vhost.deleting_exchange(method.exchange, if_unused=method.if_unused)
    client.change(channel.number, steps, lambda: None if method.nowait else ExchangeDeleteOk())


def bind(client: Client, channel: Channel, method: ExchangeBind) -> ExchangeBindOk | None:
    """Bind an exchange to another."""
    vhost = channel.vhost
    vhost.refuse_default(method.destination, method.source)
    _check(client, method)
    source = vhost.exchange(method.source)  # if both are missing, the error names the source
    client.permissions.check_topic("read", source, method.routing_key)
    vhost.bind(method.source, vhost.exchange(method.destination), method.routing_key, method.arguments)
    return None if method.nowait else ExchangeBindOk()


def unbind(client: Client, channel: Channel, method: ExchangeUnbind) -> ExchangeUnbindOk | None:
    """Undo bind; a binding that does not exist is no error."""
    vhost = channel.vhost
    vhost.refuse_default(method.destination, method.source)
    _check(client, method)
    if method.source in vhost.exchanges:
        client.permissions.check_topic("read", vhost.exchanges[method.source], method.routing_key)
    destination = vhost.exchanges.get(method.destination)
    if destination is not None and method.source in vhost.exchanges:
        vhost.unbind(method.source, destination, method.routing_key, method.arguments)
    return None if method.nowait else ExchangeUnbindOk()


def _check(client: Client, method: ExchangeBind | ExchangeUnbind) -> None:
    client.permissions.check("write", "exchange", method.destination)
    client.permissions.check("read", "exchange", method.source)
