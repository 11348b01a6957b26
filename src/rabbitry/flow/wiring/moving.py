"""Moving the messages of one queue to another: in order, confirmed before they are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

from rabbitry.amqp.client import Channel, Connection, Consumer, Delivery, Properties, connect
from rabbitry.exceptions import (
    Closed,
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    NotFound,
    PublishError,
    RabbitryError,
    RequestTimeout,
)
from rabbitry.flow._fitting import fit
from rabbitry.flow.message import EXCHANGE, ROUTING_KEY, origin, plain_headers, properties_of
from rabbitry.runtime.backoff import AGAIN

BATCH: Final = 500
"""Messages that are published and perhaps not acknowledged, at most: after a kill they are in both queues."""
_BATCH_BYTES: Final = 8 << 20
"""Bytes of a batch, unless a single message has more."""
_LOOK: Final = 0.1
"""Seconds without a delivery after which the queue is counted."""
_PATIENCE: Final = 60.0
"""Seconds that a queue may count messages and deliver none."""
MOST_CAUGHT: Final = 1000
"""Messages that a queue may have when `catch` deletes it. Of a quorum queue, RabbitMQ 3.10 delivers no more than 2,000
that are not acknowledged, whatever the prefetch is, and others come meanwhile."""
_PASSAGE: Final = ".filling"
_GONE: Final = 30.0
"""Seconds in which a broker tells a consumer that its queue was deleted."""

_logger = logging.getLogger(__name__)

Put: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Publishes messages to a queue, and returns when they are confirmed."""


class NotMoved(RabbitryError):
    """Messages can't be moved now, or an object can't be replaced. Nothing was lost, and it can be tried again."""


async def move(
    connection: Connection,
    source: str,
    target: str,
    *,
    most: int | None = None,
    size: float = 0.0,
    is_shared: bool = False,
    go_on: Callable[[int], Awaitable[bool]] | None = None,
) -> int:
    """Move messages, oldest first, until the source is empty; returns how many.

    Each is published to the target, confirmed, and then acknowledged, so that a kill loses none and leaves at most
    BATCH in both queues. They keep routing key, body and properties, but for what belongs to one publish: the user id,
    and headers that brokers write (`CC`, `x-death`). Their first exchange and routing key become headers.

    Args:
        connection: An open connection, which is not recovered.
        source: The queue that is emptied. Nobody else may consume it.
        target: The queue that gets the messages.
        most: How many at most; None for all.
        size: The average size of a message in bytes, 0 if it is not known.
        is_shared: Whether the source can't have an exclusive consumer, since it has a single active one.
        go_on: Awaited after each batch with the number of messages moved so far; False ends this.

    Raises:
        NotMoved: The source counts messages and does not deliver them.
        PublishRefused: The target does not take a message.
        ChannelClosed: Another program consumes the source.
    """
    batch_size = max(1, min(BATCH, int(_BATCH_BYTES / size) if size else BATCH))
    moved = 0
    async with (
        _filling(connection, target) as put,
        await connection.channel(prefetch=batch_size) as channel,
        channel.consume(source, exclusive=not is_shared) as deliveries,
    ):
        while most is None or moved < most:
            batch = await _batch(channel, deliveries, batch_size if most is None else min(batch_size, most - moved))
            if not batch:
                break
            await put(batch)
            for one in batch:
                one.ack()
            await channel.qos(batch_size)  # answered behind the acks, which a channel processes in order
            moved += len(batch)
            if go_on is not None and not await go_on(moved):
                break
    return moved


def passage(queue: str) -> str:
    """Return the name of the exchange over which a queue gets messages that are moved to it."""
    return f"{queue}{_PASSAGE}"


@contextlib.asynccontextmanager
async def _filling(connection: Connection, target: str) -> AsyncIterator[Put]:
    """Publish to a queue over an exchange of its own, so that messages keep the routing key that they came with.

    A queue dead-letters by that key. A message of a retry queue comes back by it to the queue of its stage: with the
    name of the retry queue as the key it would be dropped there, as one that goes in a circle.
    """
    name = passage(target)
    async with await connection.channel() as channel:
        await channel.declare_exchange(name, "fanout", durable=False, auto_delete=True)
        await channel.bind_queue(target, name, "")

        async def put(batch: Sequence[Delivery]) -> None:
            receipts = [
                await channel.send(
                    one.body,
                    exchange=name,
                    routing_key=one.routing_key,
                    properties=_moved(one, connection.frame_limit),
                )
                for one in batch
            ]
            for receipt in receipts:
                await receipt

        try:
            yield put
        finally:
            if channel.is_open:  # otherwise the next run deletes it
                await channel.delete_exchange(name)


async def catch(
    connection: Connection,
    source: str,
    target: str,
    delete: Callable[[], Coroutine[Any, Any, bool]],
    *,
    is_shared: bool,
) -> bool:
    """Delete a queue that can't be deleted on the condition that it is empty, and move what it has got until then.

    A consumer is there meanwhile: a message that comes between the last look at the queue and its deletion is delivered
    to it, and is published to the target. RabbitMQ confirms some messages while it deletes the queue, and does not
    deliver them.

    Args:
        connection: An open connection, which is not recovered.
        source: The queue.
        target: The queue that gets the messages.
        delete: Deletes the queue; returns whether it did.
        is_shared: See `move`.

    Returns:
        Whether it was deleted. It is not if it has more than MOST_CAUGHT messages.

    Raises:
        NotMoved: The broker does not tell that the queue is gone.
        ConnectionClosed: The connection was lost. What was here alone is in the target.
        ChannelClosed: Another program consumes the source.
    """
    if (await ready(connection, source) or 0) > MOST_CAUGHT:
        return False
    caught: list[Delivery] = []
    async with (
        _filling(connection, target) as put,
        await connection.channel(prefetch=0) as channel,
        channel.consume(source, exclusive=not is_shared) as deliveries,
    ):
        taking, deleting = asyncio.create_task(_take(deliveries, caught)), asyncio.create_task(delete())
        is_gone = is_told = False
        try:
            await asyncio.shield(deleting)
        finally:  # also if this is cancelled: the request is sent, and the messages may be here alone
            await asyncio.wait([deleting])
            if is_gone := not deleting.exception() and deleting.result():
                await asyncio.wait([taking], timeout=_GONE)
            is_told = taking.done()
            taking.cancel()
            await asyncio.wait([taking])
            # If the broker did not answer, nobody knows whether the queue is gone: they may be there twice then.
            if is_gone or isinstance(deleting.exception(), ConnectionClosed | RequestTimeout):
                await _put_at_last(connection, target, caught, put)
        if is_gone and not is_told:
            raise NotMoved(
                f"queue '{source}' was deleted, and the broker did not tell its consumer; run the command again"
            )
    return True


async def _take(deliveries: Consumer, caught: list[Delivery]) -> None:
    # Cancelled: the queue is gone, and all that it had was delivered before. Closed: its deletion fails too.
    with contextlib.suppress(ConsumerCancelled, Closed):
        async for delivery in deliveries:
            caught.append(delivery)


async def _put_at_last(connection: Connection, target: str, caught: Sequence[Delivery], put: Put) -> None:
    """Publish messages that are nowhere else, over further connections until one has confirmed all. Cancelling ends it.

    connection: the one of `put`, which may be lost.
    """
    try:
        await put(caught)
        return
    except (Closed, PublishError, RequestTimeout) as error:
        failure: RabbitryError = error
    failures = 0
    while caught:
        failures += 1
        _logger.warning(
            "queue '%s': %d messages of the deleted queue are held here alone, and are published again until they are "
            "confirmed (do not end this program): %s",
            target,
            len(caught),
            failure,
        )
        await asyncio.sleep(AGAIN.pause(failures))
        try:
            async with (
                connect(connection.url, name="rabbitry topology apply", recover=False) as other,
                _filling(other, target) as put,
            ):
                await put(caught)
            return
        except (Closed, ConnectFailed, PublishError, RequestTimeout) as error:
            failure = error


async def ready(connection: Connection, queue: str) -> int | None:
    """Return how many messages wait in a queue; None if there is no such queue."""
    async with await connection.channel() as channel:
        with contextlib.suppress(NotFound):
            return (await channel.declare_queue(queue, passive=True)).message_count
    return None


async def _batch(channel: Channel, deliveries: Consumer, most: int) -> list[Delivery]:
    """Return the next deliveries; none if the queue is empty.

    A delivery may be on its way while the broker counts no message. It then comes before the answer to a second count.
    """
    batch: list[Delivery] = []
    looks = 0
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE
    while len(batch) < most and looks < 2:
        try:
            async with asyncio.timeout(_LOOK):
                batch.append(await anext(deliveries))
        except TimeoutError:
            if batch:
                break
            found = await channel.declare_queue(deliveries.queue, passive=True)
            looks = 0 if found.message_count else looks + 1
            if loop.time() > until:
                raise NotMoved(
                    f"queue '{deliveries.queue}' has {found.message_count} messages and {found.consumer_count - 1} "
                    "other consumers, and delivers nothing here: stop the programs that consume it, and try again"
                ) from None
    return batch


def _moved(delivery: Delivery, limit: int) -> Properties:
    properties = properties_of(delivery)
    exchange, key = origin(delivery, properties.headers or {})
    return fit(
        properties._replace(user_id=None), plain_headers(properties), {EXCHANGE: exchange, ROUTING_KEY: key}, limit
    )
