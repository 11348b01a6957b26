"""Class basic: qos, consume, cancel, get, settling (section 1.8). Publish, deliver and ack are on the hot path."""

import secrets

from warren.amqp.protocol import hot
from warren.amqp.protocol.constants import Reply
from warren.amqp.protocol.methods import (
    BasicCancel,
    BasicCancelOk,
    BasicConsume,
    BasicConsumeOk,
    BasicGet,
    BasicGetEmpty,
    BasicNack,
    BasicQos,
    BasicQosOk,
    BasicRecover,
    BasicRecoverAsync,
    BasicRecoverOk,
    BasicReject,
)
from warren.broker.channel import Channel
from warren.broker.errors import ConnectionRefusal, access_refused, not_implemented
from warren.broker.handlers.queue import named
from warren.broker.queues import Consumer


def qos(channel: Channel, method: BasicQos) -> BasicQosOk:
    """Set the prefetch for consumers to come, or with global for the channel (RabbitMQ's docs/consumer-prefetch)."""
    if method.prefetch_size:
        raise not_implemented(f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        channel.channel_prefetch = method.prefetch_count
        channel.unpark()
    else:
        channel.consumer_prefetch = method.prefetch_count
    return BasicQosOk()


def consume(channel: Channel, method: BasicConsume) -> BasicConsumeOk | None:
    """Start a consumer."""
    queue = named(channel, method.queue)
    tag = method.consumer_tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
    if tag in channel.consumers:
        raise ConnectionRefusal(Reply.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
    if queue.has_exclusive_consumer or (method.exclusive and queue.consumers):
        raise access_refused(f"queue '{queue.name}' in vhost '{channel.vhost.name}' in exclusive use")
    consumer = Consumer(
        channel,
        queue,
        tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch=channel.consumer_prefetch,
        arguments=method.arguments,
    )
    channel.consumers[tag] = consumer
    queue.add_consumer(consumer)
    channel.connection.broker.touch(queue)
    return None if method.nowait else BasicConsumeOk(tag)


def cancel(channel: Channel, method: BasicCancel) -> BasicCancelOk | None:
    """End a consumer; one that is not there is no error."""
    consumer = channel.consumers.get(method.consumer_tag)
    if consumer is not None:
        channel.remove_consumer(consumer)
    return None if method.nowait else BasicCancelOk(method.consumer_tag)


def get(channel: Channel, method: BasicGet) -> BasicGetEmpty | None:
    """Give the first message of a queue."""
    queue = named(channel, method.queue)
    if queue.has_exclusive_consumer:
        raise access_refused(f"queue '{queue.name}' in vhost '{channel.vhost.name}' in exclusive use")
    entry = queue.pop()
    if entry is None:
        return BasicGetEmpty()
    tag = channel.take(queue, entry, method.no_ack)
    message = entry.message
    payload = hot.get_ok_payload(tag, entry.redelivered, message.destination, len(queue))
    connection = channel.connection
    connection.driver.write(
        hot.encode_method_frame(channel.number, payload)
        + hot.encode_content(channel.number, message.header, message.body, connection.core.frame_limit)
    )
    return None


def nack(channel: Channel, method: BasicNack) -> None:
    """Settle as not done (RabbitMQ's docs/nack)."""
    channel.settle(method.delivery_tag, method.multiple, requeue=method.requeue)


def reject(channel: Channel, method: BasicReject) -> None:
    """Settle one as not done."""
    channel.settle(method.delivery_tag, False, requeue=method.requeue)


def recover(channel: Channel, method: BasicRecover) -> BasicRecoverOk:
    """Put back all that is not settled."""
    _refuse_keeping(method.requeue)
    channel.recover()
    return BasicRecoverOk()


def recover_async(channel: Channel, method: BasicRecoverAsync) -> None:
    """Put back all that is not settled, without an answer."""
    _refuse_keeping(method.requeue)
    channel.recover()


def _refuse_keeping(requeue: bool) -> None:
    if not requeue:
        raise not_implemented("basic.recover with requeue=false")
