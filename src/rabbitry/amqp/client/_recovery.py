"""Connecting, for the first time and after a loss; recovery restores everything that was on the connection.

The order is that of RabbitMQ's own clients (docs/api-guide, "Automatic Recovery From Network Failures"): link,
channels with their prefetch, exchanges, queues, bindings, consumers; then unconfirmed messages are resent. A
server-named queue gets a new name, and the old one is translated wherever the program uses it. The program's `declare`
function runs first and restores its own declarations.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import Final, Literal

from rabbitry._fields import Fields
from rabbitry.amqp.client._channel import ChannelCore
from rabbitry.amqp.client._session import CLOSE_TIMEOUT, RECOVERABLE, Session, restore_topology
from rabbitry.exceptions import (
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    NotFound,
    RabbitryError,
    RequestTimeout,
    VirtualHostRefused,
)

HELD: Final = 3.0
"""Seconds after which a connection counts as stable: one that is lost earlier is another failed attempt."""
FAILURES: Final = (ConnectFailed, ConnectionClosed, RequestTimeout, NotFound)
"""Errors after which another attempt may succeed. NotFound: of `declare`, for a queue whose node is down."""

_logger = logging.getLogger(__name__)


class RecoveryEvent(Fields):
    """A step in making or recovering a connection.

    The first connection: `connecting` after each failed attempt that is followed by another. A recovery: `lost`, then
    `recovering` before each attempt and its pause, finally `recovered` or `failed`.

    attempt: the number of the next attempt in `connecting` and `recovering`, 0 in `lost`, and of the last one in
    `recovered` and `failed`. error: why the connection was lost, or why the last attempt failed.
    """

    kind: Literal["connecting", "lost", "recovering", "recovered", "failed"]
    attempt: int
    error: Exception | None


class Listener:
    """The program's `on_recovery`, and the log level of losses and failed attempts."""

    def __init__(self, label: str, on_recovery: Callable[[RecoveryEvent], None] | None, level: int) -> None:
        """label: of the connection, in the log."""
        self._label = label
        self._on_recovery = on_recovery
        self._level = level

    def tell(self, event: RecoveryEvent) -> None:
        """Call `on_recovery`."""
        if self._on_recovery is not None:
            try:
                self._on_recovery(event)
            except Exception:
                _logger.exception("on_recovery failed at %r; the recovery goes on", event.kind)

    def log_loss(self, error: Exception) -> None:
        """Log that the connection was lost."""
        _logger.log(self._level, "%s: %s; connecting again", self._label, error)

    def log_failure(self, error: Exception, attempt: int, most: int | None, seconds: float) -> None:
        """Log a failed attempt, and the time of the next one. most: the number of attempts, None: no limit."""
        of = "" if most is None else f" (attempt {attempt} of {most})"
        shown = f"{seconds:.0f}" if seconds >= 1 else f"{seconds:.1f}"
        _logger.log(self._level, "%s%s; trying again in %s s", error, of, shown)


async def connect_first(session: Session, most: int | None, listener: Listener) -> None:
    """Connect for the first time, in at most `most` attempts (None: no limit) with growing pauses between them.

    Raises LoginRefused and VirtualHostRefused at once, the error of the last attempt, and any error of the program's
    `declare`; in these cases, and when cancelled, the session is closed.
    """
    session.connecting = asyncio.current_task()  # a link lost meanwhile counts as another failed attempt
    try:
        await _try_first(session, most, listener)
    except BaseException as error:
        if session.link is not None and not isinstance(error, Exception):
            session.link.driver.abort()  # cancelled: no time for an orderly close
        await session.close(CLOSE_TIMEOUT)
        raise
    finally:
        session.connecting = None


async def _try_first(session: Session, most: int | None, listener: Listener) -> None:
    for attempt in itertools.count(1):
        try:
            await establish(session)
        except (LoginRefused, VirtualHostRefused):
            raise
        except FAILURES as error:
            if session.close_reason is not None:
                raise session.close_reason.fresh() from error
            if attempt == most:
                if isinstance(error, ConnectionClosed) and error.reply_code in RECOVERABLE:
                    raise ConnectFailed(f"{error}, before the connection could be used") from error
                raise
            seconds = _pause(attempt, at_start=True)
            listener.log_failure(error, attempt, most, seconds)
            listener.tell(RecoveryEvent("connecting", attempt + 1, error))
            if session.link is not None:
                session.link.driver.abort()
            await asyncio.sleep(seconds)
        else:
            return


def _pause(attempt: int, *, at_start: bool = False) -> float:
    """Return the seconds to wait after the failed attempt of this number."""
    from rabbitry.runtime import backoff  # most connections are neither refused nor lost

    return (backoff.AT_START if at_start else backoff.AGAIN).pause(attempt)


class Recovery:
    """The recovery of one connection."""

    def __init__(self, session: Session, timeout: float | None, most: int | None, listener: Listener) -> None:
        """timeout: limit of one recovery, in seconds. most: limit of its attempts. None: no limit."""
        self._session = session
        self._timeout = timeout
        self._most = most
        self._listener = listener
        self._recovered_at: float | None = None
        self._short_lived = 0
        """Number of successive recoveries that did not last."""
        self._attempt = 0

    async def run(self, error: ConnectionClosed) -> None:
        """Recover the connection, or end it with the reason why that failed.

        The first attempt is made at once. Pauses grow with each attempt, and with each loss until a connection is
        stable: a broker, or a proxy in front of it, may accept every connection and drop it.
        """
        session = self._session
        self._listener.log_loss(error)
        self._listener.tell(RecoveryEvent("lost", 0, error))
        is_new = self._recovered_at is not None and session.loop.time() - self._recovered_at < HELD
        self._short_lived = self._short_lived + 1 if is_new else 0
        if self._short_lived > 1:  # a single one may be chance
            await asyncio.sleep(_pause(self._short_lived - 1))
        self._attempt = 1
        try:
            async with asyncio.timeout(self._timeout):
                is_back = await self._try(error)
        except (RabbitryError, TimeoutError) as final:
            why = str(final) or f"not within {self._timeout} s"
            self._listener.tell(RecoveryEvent("failed", self._attempt, final))
            session.end(_ended(f"{error}; it did not come back: {why}", final))
        except Exception as defect:
            # Nobody awaits this task, so log the error.
            _logger.exception("%s: recovering failed", session.dialing.label)
            session.end(_ended(f"{error}; recovering failed: {defect!r}", defect))
        else:
            if is_back:
                self._recovered_at = session.loop.time()
                _logger.info("%s: connected again, at attempt %d", session.dialing.label, self._attempt)
                self._listener.tell(RecoveryEvent("recovered", self._attempt, None))

    async def _try(self, error: ConnectionClosed) -> bool:
        """Make attempts until one succeeds; return False if the connection was closed for good meanwhile.

        Raises the error of the last attempt, or at once one that a retry can't cure.
        """
        session = self._session
        self._listener.tell(RecoveryEvent("recovering", self._attempt, error))
        while True:
            try:
                await establish(session)
            except (LoginRefused, VirtualHostRefused):
                raise
            except FAILURES as failed:
                if session.close_reason is not None:
                    return False  # the new link was closed for a reason that a retry can't cure
                if session.link is not None:
                    session.link.driver.abort()
                if self._attempt == self._most:
                    raise
                seconds = _pause(self._short_lived + self._attempt)
                self._listener.log_failure(failed, self._attempt, self._most, seconds)
                self._attempt += 1
                self._listener.tell(RecoveryEvent("recovering", self._attempt, failed))
                await asyncio.sleep(seconds)
            else:
                return True


def _ended(text: str, cause: Exception) -> ConnectionClosed:
    reason = ConnectionClosed(0, text)
    reason.__cause__ = cause
    return reason


async def establish(session: Session) -> None:
    """Open a link and restore everything that the connection had on it (nothing, the first time).

    Raises one of FAILURES, LoginRefused, VirtualHostRefused, and any error of the program's `declare`.
    """
    link = await session.dialing.new_link(session)
    session.link = link
    channels = list(session.channels)  # taken before `declare` opens its own over the new link
    # A channel that the program or the broker closes meanwhile has notified its waiters, and is skipped.
    for channel in channels:
        if channel in session.channels:
            with contextlib.suppress(ChannelClosed):
                await channel.restore(link)
    await restore_topology(session, link, lambda: ChannelCore(session, 0))
    for channel in channels:
        if channel in session.channels:
            with contextlib.suppress(ChannelClosed):
                await channel.resume(link)
    if not link.is_open:
        raise ConnectionClosed(0, "the new connection was lost at once")
    # Nothing is awaited between here and the end of the recovery, so a link lost now finds no recovery in progress.
    session.resumed()
