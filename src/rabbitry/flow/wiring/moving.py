"""Moving the messages of one queue to another: in order, confirmed before they are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from rabbitry.amqp.client import Channel, Connection, Consumer, Delivery, Properties
from rabbitry.exceptions import NotFound, RabbitryError
from rabbitry.flow._fitting import fit
from rabbitry.flow.message import EXCHANGE, ROUTING_KEY, origin, plain_headers, properties_of

BATCH: Final = 500
"""Messages that are published and perhaps not acknowledged, at most: after a kill they are in both queues."""
_BATCH_BYTES: Final = 8 << 20
"""Bytes of a batch, unless a single message has more."""
_LOOK: Final = 0.1
"""Seconds without a delivery after which the queue is counted."""
_PATIENCE: Final = 60.0
"""Seconds that a queue may count messages and deliver none."""


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
    BATCH in both queues. They keep body and properties, but for what belongs to one publish: the user id, and headers
    that brokers write (`CC`, `x-death`). Their first exchange and routing key become headers.

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
        await connection.channel() as publishing,
        await connection.channel(prefetch=batch_size) as channel,
        channel.consume(source, exclusive=not is_shared) as deliveries,
    ):
        while most is None or moved < most:
            batch = await _batch(channel, deliveries, batch_size if most is None else min(batch_size, most - moved))
            if not batch:
                break
            receipts = [
                await publishing.send(one.body, routing_key=target, properties=_moved(one, connection.frame_limit))
                for one in batch
            ]
            for receipt in receipts:
                await receipt
            for one in batch:
                one.ack()
            await channel.qos(batch_size)  # answered behind the acks, which a channel processes in order
            moved += len(batch)
            if go_on is not None and not await go_on(moved):
                break
    return moved


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
