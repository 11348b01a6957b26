"""Leases: waiting for the message in a queue with a single active consumer.

See `rabbitry.flow.wiring.slots` and `rabbitry.flow.wiring.keys`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn

from rabbitry.amqp.client import Channel, Consumer, Properties
from rabbitry.exceptions import Closed, PublishError, RequestTimeout
from rabbitry.flow.message import Publication

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery

_FIRST: Final = 0.25
"""Seconds after which a worker that waits for a token publishes one, if another worker seems to have one."""
_LOOK: Final = 30.0
"""Seconds after which it publishes another one: the broker may have lost the token."""


async def waited(
    channel: Channel, queue: str, publish: Callable[[Publication], Awaitable[None]], *, is_unused: bool = False
) -> tuple[Consumer, Delivery]:
    """Wait for the lease of a queue, which lasts until the channel is closed. Return the consumer and the token.

    No worker can see whether there is a token, since another one may hold it. A worker that waits publishes one: at
    once if nobody uses the queue, as that of a new key.

    Args:
        channel: The channel, over which nothing else is consumed.
        queue: The queue.
        publish: Publishes a message over another connection; see `Slots`.
        is_unused: Whether the queue has no message and no consumer.
    """
    tokens = channel.consume(queue)
    await tokens.start()  # raises if the queue was deleted
    async with _offering(queue, 0.0 if is_unused else _FIRST, publish):
        return tokens, await anext(tokens)


@contextlib.asynccontextmanager
async def _offering(
    queue: str, seconds: float, publish: Callable[[Publication], Awaitable[None]]
) -> AsyncIterator[None]:
    """Publish tokens within the block, the first one after so many seconds."""
    offering = asyncio.create_task(_offer(queue, seconds, publish))
    try:
        yield
    finally:
        offering.cancel()
        await asyncio.wait((offering,))


async def _offer(queue: str, seconds: float, publish: Callable[[Publication], Awaitable[None]]) -> NoReturn:
    while True:
        await asyncio.sleep(seconds)
        with contextlib.suppress(Closed, PublishError, RequestTimeout):  # then the consumer fails too
            await publish(Publication("", queue, b"", Properties(delivery_mode=1), mandatory=False))
        seconds = _LOOK
