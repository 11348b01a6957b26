"""Work over a channel of its own that begins anew whenever the broker ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import (
    AlreadySettled,
    ChannelClosed,
    ConnectionClosed,
    ConsumerCancelled,
    PublishError,
    RequestTimeout,
)
from rabbitry.runtime.backoff import Backoff

PAUSES: Final = Backoff(0.5, 30.0)
"""Before work that failed is begun again."""
FAILURES: Final = (AlreadySettled, ChannelClosed, ConnectionClosed, ConsumerCancelled, PublishError, RequestTimeout)
"""What work over a channel raises if the broker ends it."""

_logger = logging.getLogger(__name__)


async def again(
    what: str,
    work: Callable[[], Awaitable[None]],
    connection: Connection,
    redeclare: Callable[[], Awaitable[None]],
    failed: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Do `work` for ever, after a pause if it failed.

    Args:
        what: The app and the work in words, for the log.
        work: Called again and again.
        connection: The connection that it uses.
        redeclare: Declares the app's topology; called after a failure, since a part of it may have been deleted.
        failed: Called after each failure.

    Raises:
        ConnectionClosed: The connection is closed for good.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            if failures:
                await redeclare()
            await work()
            failures = 0
        except FAILURES as error:
            if connection.close_reason is not None:
                raise connection.close_reason from error
            # Work that ran for longer than any pause had succeeded: its failure is a first one.
            failures = 1 if loop.time() - began > PAUSES.longest else failures + 1
            pause = PAUSES.pause(failures)
            _logger.warning("%s: %s; trying again in %.1f s", what, error, pause)
            failed()
            await asyncio.sleep(pause)
