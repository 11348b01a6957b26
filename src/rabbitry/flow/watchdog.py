"""Noticing what stands still: a consumer that gets nothing though its queue is not empty, a loop that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import ChannelClosed, RequestTimeout
from rabbitry.flow.executors import stack_of
from rabbitry.flow.intake import Intake
from rabbitry.flow.stage import Stage

LOOK: Final = 10.0
"""Seconds between two looks at the queues; a consumer is restarted at the second that finds it standing still."""
STALL: Final = 2.0
"""Seconds without an answer from the handlers' loop after which its stack is logged."""

log = logging.getLogger("rabbitry.flow")


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
                log.error("stage '%s': queue '%s' has messages and none comes; consuming anew", intake.stage.name, name)
                await intake.restart()
            else:
                suspects.add(name)


async def _has_messages(connection: Connection, queue: str) -> bool:
    with contextlib.suppress(ChannelClosed, RequestTimeout):  # the intake itself meets the same, and says so
        async with await connection.channel() as channel:
            return (await channel.declare_queue(queue, passive=True)).message_count > 0
    return False


def _answer(asker: asyncio.AbstractEventLoop, answered: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile, and its loop is closed
        asker.call_soon_threadsafe(answered.set)


async def watch_loop(loop: asyncio.AbstractEventLoop, thread_id: int, every: float = STALL) -> None:
    """Look from the I/O thread whether the loop of the handlers turns; name what keeps it where it does not."""
    mine = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every)
        answered = asyncio.Event()
        asked = time.monotonic()
        loop.call_soon_threadsafe(_answer, mine, answered)
        waiting = asyncio.ensure_future(answered.wait())
        try:
            await asyncio.wait((waiting,), timeout=every)
            if waiting.done():
                continue
            log.error("a handler keeps the worker's loop for %g s and more:\n%s", every, stack_of(thread_id))
            await waiting
            log.warning("the worker's loop goes on after %.1f s", time.monotonic() - asked)
        finally:
            waiting.cancel()
