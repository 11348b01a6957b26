"""Recovery: a lost connection comes back with everything that was on it.

The order is that of RabbitMQ's own clients (docs/api-guide, "Automatic Recovery From Network Failures"): link,
channels with their prefetch, exchanges, queues, bindings, consumers; then what was not confirmed is sent again.
A queue that the broker had named gets a new name, and the old one is translated wherever the program uses it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rabbitry.amqp.client.channel import Channel
from rabbitry.amqp.client.link import Link
from rabbitry.amqp.client.pause import pause
from rabbitry.exceptions import (
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    RequestTimeout,
    ResourceLocked,
    UsageError,
    VirtualHostRefused,
)

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

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveryEvent:
    """A step of a recovery: `lost`, then `recovering` before each attempt, at last `recovered` or `failed`.

    attempt: 1 for the first, 0 in `lost`. error: why it was lost, or why the last attempt failed.
    """

    kind: Literal["lost", "recovering", "recovered", "failed"]
    attempt: int
    error: Exception | None


class Recovery:
    """The recovery of one connection."""

    def __init__(self, timeout: float | None, tell: Callable[[RecoveryEvent], None] | None) -> None:
        """timeout: seconds that one recovery may take, or None. tell: is called with each step."""
        self._timeout = timeout
        self._listener = tell
        self._recovered_at: float | None = None
        self._short_lived = 0
        """How many recoveries in a row did not last."""

    def _tell(self, event: RecoveryEvent) -> None:
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception:  # noqa: BLE001 - a user's code; the connection is to come back all the same
                _log.exception("on_recovery failed at %r; the recovery goes on", event.kind)

    async def run(self, connection: "Connection", error: ConnectionClosed) -> None:
        """Bring a connection back, or end it with the reason why that is of no use.

        The first attempt is made at once. Pauses grow from attempt to attempt, and from loss to loss until a connection
        has held: a broker, or what stands before it, may take every connection and drop it.
        """
        loop = asyncio.get_running_loop()
        self._tell(RecoveryEvent("lost", 0, error))
        _log.warning("%s: %s; connecting again", connection.url, error)
        is_new = self._recovered_at is not None and loop.time() - self._recovered_at < HELD
        self._short_lived = self._short_lived + 1 if is_new else 0
        if self._short_lived > 1:  # one may be chance
            await asyncio.sleep(pause(self._short_lived - 1))
        attempt = 0
        try:
            async with asyncio.timeout(self._timeout):
                cause: Exception = error
                while True:
                    attempt += 1
                    self._tell(RecoveryEvent("recovering", attempt, cause))
                    try:
                        await self._attempt(connection)
                    except (LoginRefused, VirtualHostRefused):
                        raise
                    except (ConnectFailed, ConnectionClosed, RequestTimeout) as failed:
                        cause = failed
                        if connection.close_reason is not None:
                            return  # the new link was closed for a reason that no retry helps against
                        if connection.link is not None:
                            connection.link.driver.abort()
                        await asyncio.sleep(pause(self._short_lived + attempt))
                    else:
                        break
        except (LoginRefused, VirtualHostRefused, TimeoutError) as final:
            why = str(final) or f"not within {self._timeout} s"
            reason = ConnectionClosed(0, f"{error}; it did not come back: {why}")
            reason.__cause__ = final
            self._tell(RecoveryEvent("failed", attempt, final))
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
        self._tell(RecoveryEvent("recovered", attempt, None))

    async def _attempt(self, connection: "Connection") -> None:
        link = await connection.new_link()
        connection.link = link
        # A channel that its owner, or the broker, closes meanwhile has told everybody who waits, and is left out.
        for channel in list(connection.channels):
            if channel in connection.channels:
                with contextlib.suppress(ChannelClosed):
                    await channel.restore(link)
        await restore_topology(connection, link)
        for channel in list(connection.channels):
            if channel in connection.channels:
                with contextlib.suppress(ChannelClosed):
                    await channel.resume(link)
        if not link.is_open:
            raise ConnectionClosed(0, "the new connection was lost at once")
        # Nothing waits between here and the end of `run`, so a link that is lost now finds no recovery under way.
        connection.resumed()


async def restore_topology(connection: "Connection", link: Link) -> None:
    """Declare everything again over a channel of its own, opened anew after each refusal."""
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
