"""Running a program's work over one connection, which the client recovers, until the program is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from rabbitry.amqp.client import BrokerURL, Connection, Declare, RecoveryEvent, connect
from rabbitry.exceptions import (
    ConnectionClosed,
    ConsumerCancelled,
    NotFound,
    ProtocolViolation,
    RabbitryError,
    RequestTimeout,
    ResourceLocked,
)
from rabbitry.runtime import backoff
from rabbitry.runtime.tasks import background, until

Work: TypeAlias = Callable[[Connection], Awaitable[None]]
_ANEW: Final = (ConnectionClosed, ConsumerCancelled, NotFound, RequestTimeout, ResourceLocked)
"""Errors of work that may succeed over a new connection, which declares everything again: the connection was lost, a
queue or exchange was deleted, another connection has the exclusive queue, or the broker did not answer.
"""
HELD: Final = 30.0
"""Seconds after which work that fails counts as having worked, so that the pauses start short again."""

_logger = logging.getLogger(__name__)


async def run_connected(  # noqa: PLR0913 - most are passed on to `connect`
    url: str | BrokerURL,
    work: Work,
    *,
    name: str,
    stop: asyncio.Event,
    connect_attempts: int | None = None,
    recovery_attempts: int | None = None,
    declare: Declare | None = None,
    on_recovery: Callable[[RecoveryEvent], None] | None = None,
    log_level: int = logging.WARNING,
) -> None:
    """Connect, run `work(connection)` until it returns, and close the connection.

    The client restores a lost connection and everything on it. If the work fails because its queue or exchange was
    deleted, its exclusive queue was taken, or the broker does not answer, it starts again over a new connection.

    Args:
        url: The broker.
        work: The work. While the broker is there, the work itself ends at `stop`.
        name: The connection's name at the broker.
        stop: Ends the waiting for a broker at the start, and cancels the work while the connection is lost.
        connect_attempts: See `connect`; None is for ever.
        recovery_attempts: See `connect`.
        declare: See `connect`.
        on_recovery: Called as `connect` does, and with `lost` if the work failed.
        log_level: The level at which losses and failures are logged.

    Raises:
        RabbitryError: The error that ended the first connection, a recovery (LoginRefused, VirtualHostRefused,
            ConnectFailed past the attempts, an error of `declare`) or the work.
    """
    failures = 0
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        started = loop.time()
        away = asyncio.Event()

        def told(event: RecoveryEvent, away: asyncio.Event = away) -> None:
            away.clear() if event.kind == "recovered" else away.set()
            if on_recovery is not None:
                on_recovery(event)

        connecting = connect(
            url, name=name, connect_attempts=recovery_attempts if failures else connect_attempts, declare=declare,
            recovery_attempts=recovery_attempts, on_recovery=told, log_level=log_level,
        )  # fmt: skip
        connection = await until(stop, connecting)
        if connection is None:
            return
        away.clear()
        error = await _work_over(connection, stop, away, work)
        if error is None:
            return
        failures = 1 if loop.time() - started > HELD else failures + 1
        seconds = backoff.AT_START.pause(failures)
        _logger.log(log_level, "%s; trying again in %.0f s", error, seconds)
        told(RecoveryEvent("lost", 0, error))
        await until(stop, asyncio.sleep(seconds))


async def _work_over(
    connection: Connection, stop: asyncio.Event, away: asyncio.Event, work: Work
) -> RabbitryError | None:
    """Do the work and close the connection; return the error after which to start it again, None if it is done.

    Raises:
        RabbitryError: The error that ended a recovery, or another error of the work.
    """
    error: RabbitryError | None
    try:
        await _until_gone(connection, stop, away, work(connection))
        error = connection.close_reason
    except _ANEW as raised:
        error = connection.close_reason or raised
    finally:
        await connection.close()
    if error is None or stop.is_set():
        return None
    cause = error.__cause__ if isinstance(error, ConnectionClosed) else None
    if cause is not None and not isinstance(cause, OSError | ProtocolViolation):
        raise cause if isinstance(cause, RabbitryError) else error  # the error that ended the recovery
    return error


async def _until_gone(connection: Connection, stop: asyncio.Event, away: asyncio.Event, work: Awaitable[None]) -> None:
    """Await the work, until the connection is closed for good, or `stop` is set while it is lost."""
    gone = asyncio.Event()

    async def stopped_while_away() -> None:
        await stop.wait()
        await away.wait()
        gone.set()

    async def closed() -> None:
        await connection.wait_closed()
        gone.set()

    async with background(stopped_while_away()), background(closed()):
        await until(gone, work)
