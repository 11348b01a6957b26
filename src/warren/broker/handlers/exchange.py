"""Class exchange: declare, delete, bind, unbind (section 1.5, and RabbitMQ's docs/e2e)."""

from warren.amqp.protocol.methods import (
    ExchangeBind,
    ExchangeBindOk,
    ExchangeDeclare,
    ExchangeDeclareOk,
    ExchangeDelete,
    ExchangeDeleteOk,
    ExchangeUnbind,
    ExchangeUnbindOk,
)
from warren.broker.access import check, check_target
from warren.broker.channel import Channel
from warren.broker.vhost import plain_name


def declare(channel: Channel, method: ExchangeDeclare) -> ExchangeDeclareOk | None:
    """Declare an exchange, or with passive see that it is there."""
    vhost = channel.vhost
    vhost.refuse_default(method.exchange)
    if method.passive:
        vhost.exchange(method.exchange)
    else:
        name = plain_name(method.exchange)
        check(channel.connection, "configure", "exchange", name)
        if name not in vhost.exchanges:
            check_target(channel.connection, "exchange", name, method.arguments.get("alternate-exchange"))
        vhost.declare_exchange(
            name,
            method.type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments,
        )
    return None if method.nowait else ExchangeDeclareOk()


def delete(channel: Channel, method: ExchangeDelete) -> ExchangeDeleteOk | None:
    """Delete an exchange."""
    vhost = channel.vhost
    vhost.refuse_system(method.exchange)
    check(channel.connection, "configure", "exchange", method.exchange)
    vhost.delete_exchange(method.exchange, method.if_unused)
    return None if method.nowait else ExchangeDeleteOk()


def _check_binding(channel: Channel, source: str, destination: str) -> None:
    """Refuse (403) what may not be bound: it takes write on the destination and read on the source."""
    check(channel.connection, "write", "exchange", destination)
    channel.vhost.refuse_default(destination, source)
    check(channel.connection, "read", "exchange", source)


def bind(channel: Channel, method: ExchangeBind) -> ExchangeBindOk | None:
    """Bind an exchange to another."""
    vhost = channel.vhost
    _check_binding(channel, method.source, method.destination)
    vhost.bind(method.source, vhost.exchange(method.destination), method.routing_key, method.arguments)
    return None if method.nowait else ExchangeBindOk()


def unbind(channel: Channel, method: ExchangeUnbind) -> ExchangeUnbindOk | None:
    """Undo bind; what is not there is no error."""
    vhost = channel.vhost
    _check_binding(channel, method.source, method.destination)
    destination = vhost.exchanges.get(method.destination)
    if destination is not None and method.source in vhost.exchanges:
        vhost.unbind(method.source, destination, method.routing_key, method.arguments)
    return None if method.nowait else ExchangeUnbindOk()
