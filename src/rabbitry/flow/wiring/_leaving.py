"""Leaving a channel of a broker that may have an alarm."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from rabbitry.amqp.client import Channel
from rabbitry.exceptions import RequestTimeout

_PATIENCE: Final = 2.0
"""Seconds that the broker may take to answer."""


@contextlib.asynccontextmanager
async def leaving(channel: Channel) -> AsyncIterator[Channel]:
    """Close a channel at the end of the block; an answer that does not come is no error.

    A broker that is short of memory or disk space confirms the first message of a connection, and then reads nothing
    more of it, as RabbitMQ does too. What the block did is done then.
    """
    try:
        yield channel
    finally:
        with contextlib.suppress(RequestTimeout):
            await channel.close(timeout=_PATIENCE)
