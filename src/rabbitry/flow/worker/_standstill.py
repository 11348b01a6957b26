"""Restarting consumers that get nothing though their queue is not empty."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import ChannelClosed, RequestTimeout
from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._intake import Intake

LOOK: Final = 10.0
"""Seconds between two looks at the queues; a consumer is restarted at the second that finds it standing still."""

_logger = logging.getLogger(__name__)


async def watch_queues(
    intakes: Sequence[Intake], connection: Connection, in_hand: Callable[[Stage], int], every: float = LOOK
) -> None:
    """Restart consumers that are connected, have nothing in hand and get nothing from a queue that is not empty."""
    seen = {intake.queue: -1 for intake in intakes}
    suspects: set[str] = set()
    while True:
        await asyncio.sleep(every)
        for intake in intakes:
            name, taken = intake.queue, intake.taken
            is_still = intake.is_served and taken == seen[name] and not in_hand(intake.stage)
            seen[name] = taken
            if not (is_still and connection.is_open and await _has_messages(connection, name)):
                suspects.discard(name)
            elif name in suspects:
                suspects.discard(name)
                _logger.error(
                    "stage '%s': queue '%s' has messages and none comes; consuming anew", intake.stage.name, name
                )
                await intake.restart()
            else:
                suspects.add(name)


async def _has_messages(connection: Connection, queue: str) -> bool:
    with contextlib.suppress(ChannelClosed, RequestTimeout):  # the intake itself meets the same, and says so
        async with await connection.channel() as channel:
            return (await channel.declare_queue(queue, passive=True)).message_count > 0
    return False
