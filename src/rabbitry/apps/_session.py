"""Working over a connection that may be lost: connect, work, and when it is gone, pause and start over.

The client can recover a connection by itself. The programs here don't let it: they have a first connection to
wait for too, count their attempts, tell their users, and decide anew what to do about what exists otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rabbitry.amqp.client import BrokerURL, Connection, connect
from rabbitry.exceptions import (
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    LoginRefused,
    NotFound,
    RequestTimeout,
    VirtualHostRefused,
)
from rabbitry.runtime.tasks import until

FIRST_PAUSE = 2.0
"""Seconds between the first attempts to connect."""
LONGEST_PAUSE = 30.0
_GROWTH = 1.5

log = logging.getLogger("rabbitry.apps")


@dataclass(frozen=True, slots=True)
class Patience:
    """The number of attempts to connect that may fail in a row: at the start, and after a connection was lost.

    None is for ever.
    """

    at_start: int | None = None
    after_loss: int | None = None


FOR_EVER = Patience()


async def stay_connected(
    url: str | BrokerURL,
    session: Callable[[Connection], Awaitable[None]],
    *,
    name: str,
    stop: asyncio.Event,
    patience: Patience,
    lost: Callable[[str], Awaitable[None]] | None = None,
    level: int = logging.WARNING,
) -> None:
    """Run `session(connection)`; whenever what it needs is lost, connect and run it anew.

    That is the connection, a consumer, or an exchange or queue that somebody deleted.

    Between attempts it waits, 2 s at first and growing to 30 s, and says so. It returns when a session
    returns, or when `stop` is set while there is no connection; within a session, `stop` is the session's own
    business. `name` is the connection's name at the broker. `lost` is told each time why there is no
    connection; `level` is what it is logged at. Cancelling closes the connection.

    Raises:
        LoginRefused, VirtualHostRefused: at once, since trying again won't help.
        ConnectFailed: more attempts in a row failed than `patience` has.
    """
    pause, failures, ever = FIRST_PAUSE, 0, False
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        try:
            connection = await until(stop, connect(url, name=name, recover=False))
            if connection is None:
                return
        except (LoginRefused, VirtualHostRefused):
            raise
        except ConnectFailed as error:
            failures += 1
            limit = patience.after_loss if ever else patience.at_start
            if limit is not None and failures >= limit:
                raise
            reason = str(error)
        else:
            ever, failures, since = True, 0, loop.time()
            try:
                async with connection:
                    await session(connection)
                return
            except (ConnectionClosed, ConsumerCancelled, NotFound, RequestTimeout) as error:
                reason = str(error)
                if stop.is_set():
                    return
            if loop.time() - since > LONGEST_PAUSE:
                pause = FIRST_PAUSE  # one that is lost as soon as it is made is worth growing pauses too
        log.log(level, "%s; trying again in %.0f s", reason, pause)
        if lost is not None:
            await lost(reason)
        await until(stop, asyncio.sleep(pause))
        pause = min(pause * _GROWTH, LONGEST_PAUSE)
