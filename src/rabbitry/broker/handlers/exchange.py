"""Class exchange: declare, delete, bind, unbind (section 1.5, and RabbitMQ's docs/e2e)."""

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
from rabbitry.broker.channel import Channel
from rabbitry.broker.vhost import plain_name


def declare(channel: Channel, method: ExchangeDeclare) -> ExchangeDeclareOk | None:
    """Declare an exchange, or with passive see that it is there."""
    vhost = channel.vhost
    vhost.refuse_default(method.exchange)
    if method.passive:
        vhost.exchange(method.exchange)
    else:
        check = channel.connection.check
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


def delete(channel: Channel, method: ExchangeDelete) -> None:
    """Delete an exchange."""
    channel.vhost.refuse_default(method.exchange)
    channel.connection.check("configure", "exchange", method.exchange)
    steps = channel.vhost.deleting_exchange(method.exchange, method.if_unused)
    channel.connection.change(channel.number, steps, lambda: None if method.nowait else ExchangeDeleteOk())


def bind(channel: Channel, method: ExchangeBind) -> ExchangeBindOk | None:
    """Bind an exchange to another."""
    vhost = channel.vhost
    vhost.refuse_default(method.destination, method.source)
    _check(channel, method)
    source = vhost.exchange(method.source)  # where both are missing, it is the source that is named
    channel.connection.check_topic("read", source, method.routing_key)
    vhost.bind(method.source, vhost.exchange(method.destination), method.routing_key, method.arguments)
    return None if method.nowait else ExchangeBindOk()


def unbind(channel: Channel, method: ExchangeUnbind) -> ExchangeUnbindOk | None:
    """Undo bind; what is not there is no error."""
    vhost = channel.vhost
    vhost.refuse_default(method.destination, method.source)
    _check(channel, method)
    if method.source in vhost.exchanges:
        channel.connection.check_topic("read", vhost.exchanges[method.source], method.routing_key)
    destination = vhost.exchanges.get(method.destination)
    if destination is not None and method.source in vhost.exchanges:
        vhost.unbind(method.source, destination, method.routing_key, method.arguments)
    return None if method.nowait else ExchangeUnbindOk()


def _check(channel: Channel, method: ExchangeBind | ExchangeUnbind) -> None:
    channel.connection.check("write", "exchange", method.destination)
    channel.connection.check("read", "exchange", method.source)
