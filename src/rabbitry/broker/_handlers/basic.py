"""Class basic: qos, consume, cancel, get, settling (section 1.8). Publish, deliver and ack are on the hot path."""

from __future__ import annotations

import functools
import secrets

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.methods import (
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
from rabbitry.amqp.protocol.tables import Table, type_name
from rabbitry.broker._channel import Channel, Consumer
from rabbitry.broker._errors import ConnectionRefusal, access_refused, not_implemented, precondition_failed
from rabbitry.broker._handlers.client import Client
from rabbitry.broker._handlers.queue import named
from rabbitry.broker._queues import Queue, ReplyTo, Subscription
from rabbitry.broker._queues.reply_to import REPLY_TO
from rabbitry.broker._transaction import Outcome
from rabbitry.exceptions import ProtocolViolation


def qos(client: Client, channel: Channel, method: BasicQos) -> BasicQosOk:
    """Set the prefetch of future consumers, or with global that of the channel (RabbitMQ's docs/consumer-prefetch).

    Without global it lifts the channel's limit, as in RabbitMQ (`rabbit_limiter:unlimit_prefetch`).
    """
    if method.prefetch_size:
        raise not_implemented(f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        channel.channel_prefetch = method.prefetch_count
    else:
        channel.consumer_prefetch = method.prefetch_count
        channel.channel_prefetch = 0
    channel.unpark()
    return BasicQosOk()


def consume(client: Client, channel: Channel, method: BasicConsume) -> BasicConsumeOk | None:
    """Start a consumer."""
    tag = method.consumer_tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
    if tag in channel.consumers:
        raise ConnectionRefusal(Reply.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
    if method.queue == REPLY_TO:
        _consume_replies(channel, tag, no_ack=method.no_ack)
        return None if method.nowait else BasicConsumeOk(tag)
    client.permissions.check("read", "queue", method.queue or channel.last_queue)
    queue = named(client, channel, method.queue)
    alone = method.exclusive and queue.has_exclusive_consumers
    if queue.turns.has_exclusive or (alone and (len(queue.turns) or queue.rules.single_active_consumer)):
        raise access_refused(f"queue '{queue.name}' in vhost '{channel.vhost.name}' in exclusive use")
    priority = _priority(queue, method.arguments)
    shares = channel.channel_prefetch > 0
    queue.check_consumer(Subscription(method.arguments, channel.consumer_prefetch, method.no_ack, shares))
    consumer = Consumer(
        channel,
        queue,
        tag,
        no_ack=method.no_ack,
        exclusive=alone,
        prefetch=channel.consumer_prefetch,
        priority=priority,
        arguments=method.arguments,
    )
    channel.consumers[tag] = consumer
    channel.has_streams = channel.has_streams or queue.rules.kind == "stream"
    queue.add_consumer(consumer)
    channel.vhost.dispatcher.touch(queue)
    return None if method.nowait else BasicConsumeOk(tag)


def _consume_replies(channel: Channel, tag: str, *, no_ack: bool) -> None:
    """Set the channel's only consumer of direct replies."""
    if channel.reply_to is not None:
        raise precondition_failed("reply consumer already set")
    if not no_ack:
        raise precondition_failed("reply consumer cannot acknowledge")
    channel.consume_replies(ReplyTo(channel, tag, f"{REPLY_TO}.{secrets.token_urlsafe(24)}"))


def _priority(queue: Queue, arguments: Table) -> int:
    """Check a consumer's arguments, and return its priority (RabbitMQ's docs/consumer-priority)."""
    where = queue.where
    refused = queue.refused_of_consumers
    value = arguments.get("x-priority", 0)
    if "x-priority" not in refused and (isinstance(value, bool) or not isinstance(value, int)):
        wrong = f"expected integer, got {type_name(value)}"
        raise precondition_failed(f"invalid arg 'x-priority' for {where}: \"{wrong}\"")
    checks_mirroring = queue.vhost.release.checks_mirroring
    on_failover = arguments.get("x-cancel-on-ha-failover", False)
    if checks_mirroring and "x-cancel-on-ha-failover" not in refused and not isinstance(on_failover, bool):
        wrong = f"{{unacceptable_type,{type_name(on_failover)}}}"
        raise precondition_failed(f"invalid arg 'x-cancel-on-ha-failover' for {where}: {wrong}")
    for argument in refused:
        if argument in arguments:
            kind = queue.rules.kind
            raise precondition_failed(f"invalid arg '{argument}' for {where} of queue type rabbit_{kind}_queue")
    # The argument was for AMQP 1.0; RabbitMQ's channel crashed on it.
    if checks_mirroring and queue.rules.kind != "stream" and not isinstance(arguments.get("x-credit", {}), dict):
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
    return value if isinstance(value, int) else 0


def cancel(client: Client, channel: Channel, method: BasicCancel) -> BasicCancelOk | None:
    """End a consumer; one that does not exist is no error."""
    consumer = channel.consumers.get(method.consumer_tag)
    answer = None if method.nowait else BasicCancelOk(method.consumer_tag)
    if consumer is not None:
        client.change(channel.number, channel.removing(consumer), lambda: answer)
        return None
    if channel.reply_to is not None and channel.reply_to.tag == method.consumer_tag:
        channel.forget_replies()
    return answer


def get(client: Client, channel: Channel, method: BasicGet) -> BasicGetEmpty | None:
    """Send the first message of a queue."""
    client.permissions.check("read", "queue", method.queue or channel.last_queue)
    queue = named(client, channel, method.queue)
    queue.check_get()
    entry = queue.get()
    if entry is None and queue.is_busy:
        client.carry_out_again(channel.number, method)
        return None
    if entry is None:
        if not queue.ready:
            channel.got_nothing(queue)
            return BasicGetEmpty()
        client.carry_out_when_loaded(channel.number, method, queue)  # all messages are only in the store
        return None
    channel.deliver_got(queue, entry, no_ack=method.no_ack)
    return None


def nack(client: Client, channel: Channel, method: BasicNack) -> None:
    """Nack deliveries (RabbitMQ's docs/nack)."""
    outcome = Outcome.REQUEUED if method.requeue else Outcome.REJECTED
    channel.settle(method.delivery_tag, multiple=method.multiple, outcome=outcome)


def reject(client: Client, channel: Channel, method: BasicReject) -> None:
    """Reject one delivery."""
    channel.settle(
        method.delivery_tag, multiple=False, outcome=Outcome.REQUEUED if method.requeue else Outcome.REJECTED
    )


def recover(client: Client, channel: Channel, method: BasicRecover) -> None:
    """Requeue all unsettled deliveries."""
    _refuse_keeping(requeue=method.requeue)
    channel.recover(functools.partial(client.tell, channel.number, BasicRecoverOk()))


def recover_async(client: Client, channel: Channel, method: BasicRecoverAsync) -> None:
    """Requeue all unsettled deliveries, without an answer."""
    _refuse_keeping(requeue=method.requeue)
    channel.recover()


def _refuse_keeping(*, requeue: bool) -> None:
    if not requeue:
        raise not_implemented("requeue=false")
