"""Redeclaring everything that was declared over a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client._session import Session
from rabbitry.amqp.client._topology import Declarer
from rabbitry.exceptions import ChannelClosed, ConnectionClosed, ResourceLocked, UsageError

LOCKED_PAUSE: Final = 0.5
LOCKED_PATIENCE: Final = 30.0
LOCKED_HEARTBEATS: Final = 4
"""An exclusive queue stays locked until the broker notices that the old connection is dead, after two to three
heartbeats. It is retried for four heartbeats, and for at least LOCKED_PATIENCE seconds."""
_logger = logging.getLogger(__name__)


class DeclaringChannel(Declarer, Protocol):
    """A channel to declare over, not opened yet."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""

    async def restore(self, link: Link) -> None:
        """Open it on `link`."""

    async def close(self) -> None:
        """Close it."""


async def restore_topology(session: Session, link: Link, new_channel: Callable[[], DeclaringChannel]) -> None:
    """Run the program's declarations, and redeclare everything else.

    Uses a channel of its own, created by `new_channel`, and another one after each refusal. Raises ConnectionClosed,
    and any error of the program's `declare`.
    """
    await session.declaring.run()
    patience = max(LOCKED_PATIENCE, LOCKED_HEARTBEATS * link.heartbeat)
    locked_until = session.loop.time() + patience
    channel: DeclaringChannel | None = None
    session.deletions.forget_expired()
    for step in session.topology.steps():
        while True:
            if channel is None or not channel.is_open:
                channel = new_channel()
                await channel.restore(link)
            try:
                await step(channel)
            except ResourceLocked as error:
                if session.loop.time() > locked_until:
                    text = "%s: not restored, still locked after %d s: %s"
                    _logger.error(text, session.url, patience, error)  # noqa: TRY400 - not a defect of this code
                    break
                await asyncio.sleep(LOCKED_PAUSE)
            except (ChannelClosed, UsageError) as error:  # UsageError: too long for the new connection's frames
                # A queue that exists with other flags by now must not keep the others from being restored.
                _logger.error("%s: not restored: %s", session.url, error)  # noqa: TRY400 - not a defect of this code
                break
            else:
                break
    if channel is not None:
        await channel.close()
    if not link.is_open:
        raise ConnectionClosed(0, "the new connection was lost before everything was redeclared")
