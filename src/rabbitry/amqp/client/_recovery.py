"""Connecting, the first time and again: a lost connection comes back with everything that was on it.

The order is that of RabbitMQ's own clients (docs/api-guide, "Automatic Recovery From Network Failures"): link,
channels with their prefetch, exchanges, queues, bindings, consumers; then what was not confirmed is sent again.
A queue that the broker had named gets a new name, and the old one is translated wherever the program uses it. What the
program's `declare` function declares is declared by that function, before the rest.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client.channel import Channel
from rabbitry.exceptions import (
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    NotFound,
    RabbitryError,
    RequestTimeout,
    ResourceLocked,
    UsageError,
    VirtualHostRefused,
)
from rabbitry.runtime import backoff

if TYPE_CHECKING:
    from rabbitry.amqp.client.connection import Connection

RECOVERABLE: Final = (0, 320, 541)
"""Reply codes after which a connection is worth making again: none (lost), forced by an operator, internal error."""
HELD: Final = 3.0
"""Seconds after which a connection counts as held: one that is lost earlier is another failed attempt."""
LOCKED_PAUSE: Final = 0.5
LOCKED_PATIENCE: Final = 30.0
LOCKED_HEARTBEATS: Final = 4
"""An exclusive queue stays locked until the broker notices that the old connection is dead, after two to three
heartbeats. It is tried again for four, and at least for LOCKED_PATIENCE seconds."""

FAILURES: Final = (ConnectFailed, ConnectionClosed, RequestTimeout, NotFound)
"""Errors after which another attempt may go better. NotFound: of `declare`, for a queue whose node is down."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveryEvent:
    """A step on the way to a connection.

    The first connection: `connecting` after each failed attempt that is followed by another one. A recovery: `lost`,
    then `recovering` before each attempt and the pause before it, at last `recovered` or `failed`.

    attempt: the number of the next attempt in `connecting` and `recovering`, 0 in `lost`, and of the last one in
    `recovered` and `failed`. error: why the connection was lost, or why the last attempt failed.
    """

    kind: Literal["connecting", "lost", "recovering", "recovered", "failed"]
    attempt: int
    error: Exception | None


class Listener:
    """The program's side of connecting: its `on_recovery`, and the log's level for losses and failed attempts."""

    def __init__(self, url: str, on_recovery: Callable[[RecoveryEvent], None] | None, level: int) -> None:
        self._url = url
        self._on_recovery = on_recovery
        self._level = level

    def tell(self, event: RecoveryEvent) -> None:
        """Call `on_recovery`."""
        if self._on_recovery is not None:
            try:
                self._on_recovery(event)
            except Exception:  # noqa: BLE001 - a user's code; the connection is to come back all the same
                _log.exception("on_recovery failed at %r; the recovery goes on", event.kind)

    def log_loss(self, error: Exception) -> None:
        """Log that the connection was lost."""
        _log.log(self._level, "%s: %s; connecting again", self._url, error)

    def log_failure(self, error: Exception, attempt: int, most: int | None, seconds: float) -> None:
        """Log that an attempt failed, and when the next one is made. most: the number of attempts, None: no limit."""
        of = "" if most is None else f" (attempt {attempt} of {most})"
        shown = f"{seconds:.0f}" if seconds >= 1 else f"{seconds:.1f}"
        _log.log(self._level, "%s%s; trying again in %s s", error, of, shown)


async def connect_first(connection: "Connection", most: int | None, listener: Listener) -> None:
    """Connect for the first time, with at most so many attempts (None: no limit) and growing pauses between them.

    Raises LoginRefused and VirtualHostRefused at once, what the last attempt failed with, and what the program's
    `declare` raises.
    """
    for attempt in itertools.count(1):
        try:
            await establish(connection)
        except (LoginRefused, VirtualHostRefused):
            raise
        except FAILURES as error:
            if connection.close_reason is not None:
                raise connection.close_reason.fresh() from error
            if attempt == most:
                if isinstance(error, ConnectionClosed) and error.reply_code in RECOVERABLE:
                    raise ConnectFailed(f"{error}, before the connection could be used") from error
                raise
            seconds = backoff.AT_START.pause(attempt)
            listener.log_failure(error, attempt, most, seconds)
            listener.tell(RecoveryEvent("connecting", attempt + 1, error))
            if connection.link is not None:
                connection.link.driver.abort()
            await asyncio.sleep(seconds)
        else:
            return


class Recovery:
    """The recovery of one connection."""

    def __init__(self, timeout: float | None, most: int | None, listener: Listener) -> None:
        """timeout: seconds that one recovery may take. most: attempts of one recovery. None: no limit."""
        self._timeout = timeout
        self._most = most
        self._listener = listener
        self._recovered_at: float | None = None
        self._short_lived = 0
        """How many recoveries in a row did not last."""

    async def run(self, connection: "Connection", error: ConnectionClosed) -> None:
        """Bring a connection back, or end it with the reason why that is of no use.

        The first attempt is made at once. Pauses grow from attempt to attempt, and from loss to loss until a connection
        has held: a broker, or what stands before it, may take every connection and drop it.
        """
        loop = asyncio.get_running_loop()
        self._listener.log_loss(error)
        self._listener.tell(RecoveryEvent("lost", 0, error))
        is_new = self._recovered_at is not None and loop.time() - self._recovered_at < HELD
        self._short_lived = self._short_lived + 1 if is_new else 0
        if self._short_lived > 1:  # one may be chance
            await asyncio.sleep(backoff.AGAIN.pause(self._short_lived - 1))
        attempt = 1
        try:
            async with asyncio.timeout(self._timeout):
                self._listener.tell(RecoveryEvent("recovering", attempt, error))
                while True:
                    try:
                        await establish(connection)
                    except (LoginRefused, VirtualHostRefused):
                        raise
                    except FAILURES as failed:
                        if connection.close_reason is not None:
                            return  # the new link was closed for a reason that no retry helps against
                        if connection.link is not None:
                            connection.link.driver.abort()
                        if attempt == self._most:
                            raise
                        seconds = backoff.AGAIN.pause(self._short_lived + attempt)
                        self._listener.log_failure(failed, attempt, self._most, seconds)
                        attempt += 1
                        self._listener.tell(RecoveryEvent("recovering", attempt, failed))
                        await asyncio.sleep(seconds)
                    else:
                        break
        except (RabbitryError, TimeoutError) as final:
            why = str(final) or f"not within {self._timeout} s"
            reason = ConnectionClosed(0, f"{error}; it did not come back: {why}")
            reason.__cause__ = final
            self._listener.tell(RecoveryEvent("failed", attempt, final))
            connection.end(reason)
            return
        except Exception as defect:  # noqa: BLE001 - nobody may wait for ever for a recovery that has ended
            # Nobody awaits this task, so the log has it.
            _log.exception("%s: recovering failed", connection.url)
            reason = ConnectionClosed(0, f"{error}; recovering failed: {defect!r}")
            reason.__cause__ = defect
            connection.end(reason)
            return
        self._recovered_at = loop.time()
        _log.info("%s: connected again, at attempt %d", connection.url, attempt)
        self._listener.tell(RecoveryEvent("recovered", attempt, None))


async def establish(connection: "Connection") -> None:
    """Make a link, and restore over it what the connection had, which is nothing the first time.

    Raises one of FAILURES, LoginRefused, VirtualHostRefused, and what the program's `declare` raises.
    """
    link = await connection.new_link()
    connection.link = link
    channels = list(connection.channels)  # without those that `declare` opens, over the new link
    # A channel that its owner, or the broker, closes meanwhile has told everybody who waits, and is left out.
    for channel in channels:
        if channel in connection.channels:
            with contextlib.suppress(ChannelClosed):
                await channel.restore(link)
    await restore_topology(connection, link)
    for channel in channels:
        if channel in connection.channels:
            with contextlib.suppress(ChannelClosed):
                await channel.resume(link)
    if not link.is_open:
        raise ConnectionClosed(0, "the new connection was lost at once")
    # Nothing waits between here and the end of the recovery, so a link that is lost now finds no recovery under way.
    connection.resumed()


async def restore_topology(connection: "Connection", link: Link) -> None:
    """Run the program's declarations, and declare again everything else that was declared.

    That is over a channel of its own, opened anew after each refusal. Raises ConnectionClosed, and what the program's
    `declare` raises.
    """
    await connection.declare()
    loop = asyncio.get_running_loop()
    patience = max(LOCKED_PATIENCE, LOCKED_HEARTBEATS * link.heartbeat)
    locked_until = loop.time() + patience
    channel: Channel | None = None
    connection.forget_expired()
    for step in connection.topology.steps():
        while True:
            if channel is None or not channel.is_open:
                channel = Channel(connection, 0)
                await channel.restore(link)
            try:
                await step(channel)
            except ResourceLocked as error:
                if loop.time() > locked_until:
                    _log.error("%s: not restored, still locked after %d s: %s", connection.url, patience, error)
                    break
                await asyncio.sleep(LOCKED_PAUSE)
            except (ChannelClosed, UsageError) as error:  # UsageError: too long for the frames of the new connection
                # One thing that exists otherwise by now must not keep all others from coming back.
                _log.error("%s: not restored: %s", connection.url, error)
                break
            else:
                break
    if channel is not None:
        await channel.close()
    if not link.is_open:
        raise ConnectionClosed(0, "the new connection was lost before all was declared again")
