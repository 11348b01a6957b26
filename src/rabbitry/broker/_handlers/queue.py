"""Class queue: declare, bind, unbind, purge, delete (section 1.7)."""

from __future__ import annotations

from collections.abc import Iterator

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.methods import (
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
from rabbitry.broker._channel import Channel
from rabbitry.broker._errors import ChannelRefusal, not_found
from rabbitry.broker._handlers.client import Client
from rabbitry.broker._queues import Queue
from rabbitry.broker._queues.reply_to import REPLY_TO


def plain_name(name: str) -> str:
    """Remove line ends from a name, as RabbitMQ does."""
    return name.replace("\r", "").replace("\n", "")


def named(client: Client, channel: Channel, name: str) -> Queue:
    """Return the queue of that name; without a name, the last one declared on this channel (section 1.7.2)."""
    if not name:
        name = channel.last_queue
        if not name:
            raise ChannelRefusal(Reply.NOT_FOUND, "no previously declared queue")
    return channel.vhost.queue(name, client)


def declare(client: Client, channel: Channel, method: QueueDeclare) -> QueueDeclareOk | None:
    """Declare a queue, or with passive check that it exists."""
    if method.queue.startswith(REPLY_TO):
        return _declare_reply_to(channel, method)
    if method.passive:
        queue = channel.vhost.queue(method.queue, client)
        queue.note_use()
    else:
        name = plain_name(method.queue) or channel.vhost.new_queue_name()
        _check_declare(client, method._replace(queue=name))
        channel.vhost.check_queue_limit(name)
        queue = channel.vhost.declare_queue(
            name,
            client,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method.arguments,
            is_generated=not plain_name(method.queue),
        )
        if method.exclusive:
            client.exclusive_queues.add(queue)
    channel.last_queue = queue.name
    return None if method.nowait else QueueDeclareOk(queue.name, *queue.declared_counts)


def _check_declare(client: Client, method: QueueDeclare) -> None:
    check = client.permissions.check
    check("configure", "queue", method.queue)
    exchange = method.arguments.get("x-dead-letter-exchange")
    if isinstance(exchange, str):
        check("read", "queue", method.queue)
        check("write", "exchange", exchange)


def _declare_reply_to(channel: Channel, method: QueueDeclare) -> QueueDeclareOk | None:
    """Check that a consumer waits for direct replies (RabbitMQ's docs/direct-reply-to)."""
    name = method.queue
    if name != REPLY_TO and name not in channel.replies:
        raise not_found("queue", name, channel.vhost.name)
    return None if method.nowait else QueueDeclareOk(name, 0, 1)


def bind(client: Client, channel: Channel, method: QueueBind) -> QueueBindOk | None:
    """Bind a queue to an exchange. Without queue and key, the last queue's name is also the key."""
    channel.vhost.refuse_default(method.exchange)
    _check_binding(client, channel, method)
    exchange = channel.vhost.exchange(method.exchange)
    queue = named(client, channel, method.queue)
    key = queue.name if not method.queue and not method.routing_key else method.routing_key
    client.permissions.check_topic("read", exchange, key)
    channel.vhost.bind(method.exchange, queue, key, method.arguments)
    return None if method.nowait else QueueBindOk()


def unbind(client: Client, channel: Channel, method: QueueUnbind) -> QueueUnbindOk:
    """Undo bind; a missing binding is no error, so only an existing one can be locked by another connection."""
    vhost = channel.vhost
    vhost.refuse_default(method.exchange)
    _check_binding(client, channel, method)
    if not method.queue and not channel.last_queue:
        named(client, channel, "")  # raises the error
    if method.exchange in vhost.exchanges:
        client.permissions.check_topic("read", vhost.exchanges[method.exchange], method.routing_key)
    queue = vhost.queues.get(method.queue or channel.last_queue)
    if queue is not None and vhost.is_bound(method.exchange, queue, method.routing_key, method.arguments):
        vhost.queue(queue.name, client)
        vhost.unbind(method.exchange, queue, method.routing_key, method.arguments)
    return QueueUnbindOk()


def purge(client: Client, channel: Channel, method: QueuePurge) -> None:
    """Drop ready messages. For a stored queue, the answer waits until they are deleted from the store."""
    client.permissions.check("read", "queue", method.queue or channel.last_queue)
    queue = named(client, channel, method.queue)
    queue.check_purge()
    count, steps = queue.purge()
    answer = None if method.nowait else QueuePurgeOk(count)

    def purged() -> None:
        if queue.id:
            client.wait_for_commit(channel.number, answer)
        elif answer is not None:
            client.tell(channel.number, answer)

    client.work(steps, purged)


def delete(client: Client, channel: Channel, method: QueueDelete) -> None:
    """Delete a queue; one that does not exist is no error."""
    vhost = channel.vhost
    client.permissions.check("configure", "queue", method.queue or channel.last_queue)
    if not method.queue and not channel.last_queue:
        named(client, channel, "")  # raises the error
    queue = None
    if (method.queue or channel.last_queue) in vhost.queues:
        queue = named(client, channel, method.queue)
        queue.check_delete(if_unused=method.if_unused, if_empty=method.if_empty)
    count = 0

    def deleting() -> Iterator[None]:
        nonlocal count
        if queue is not None:
            if not (method.if_unused or method.if_empty):  # the check holds only in this iteration
                yield from vhost.unbinding(queue)
            count = vhost.delete_queue(queue)

    client.change(channel.number, deleting(), lambda: None if method.nowait else QueueDeleteOk(count))


def _check_binding(client: Client, channel: Channel, method: QueueBind | QueueUnbind) -> None:
    client.permissions.check("write", "queue", method.queue or channel.last_queue)
    client.permissions.check("read", "exchange", method.exchange)
