"""Waiting for a slot for each call of a stage's handler; see `rabbitry.flow.wiring.slots`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rabbitry.amqp.client import Connection
from rabbitry.flow.message import Publication
from rabbitry.flow.worker._again import again
from rabbitry.flow.worker._leases import waited

if TYPE_CHECKING:
    from rabbitry.flow.worker._job import Job
    from rabbitry.flow.worker._waiting import Waiting

_TURN: Final = 1.0
"""Seconds after which a slot is given to the next worker that waits for it, once the call in it has ended."""


class Slots:
    """The slots of one stage in this worker; on the I/O thread. A message holds its slot until it is settled."""

    def __init__(
        self,
        what: str,
        queues: Sequence[str],
        connection: Connection,
        waiting: Waiting,
        publish: Callable[[Publication], Awaitable[None]],
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        """Create the slots.

        Args:
            what: The app and the stage in words, for the log.
            queues: The queue of each slot.
            connection: The worker's connection for consuming.
            waiting: The messages.
            publish: Publishes a message over another connection: a broker short of memory stops reading one over which
                something is published (RabbitMQ's docs/alarms), and with it the acks.
            redeclare: Declares the app's topology again.
        """
        self._what = what
        self._queues = queues
        self._connection = connection
        self._waiting = waiting
        self._publish = publish
        self._redeclare = redeclare
        self._running: dict[Job, asyncio.Event] = {}
        """The messages that hold a slot, with the event of each that it is settled."""

    def works(self) -> list[Coroutine[Any, Any, NoReturn]]:
        """Return what is to run for each slot until cancelled; see `again`."""
        return [
            again(f"{self._what}, queue '{queue}'", partial(self._hold, queue), self._connection, self._redeclare)
            for queue in self._queues
        ]

    def held(self) -> int:
        """Return how many messages hold a slot."""
        return len(self._running)

    def settled(self, job: Job) -> None:
        """Note that a message is settled."""
        if (event := self._running.pop(job, None)) is not None:
            event.set()

    async def _hold(self, queue: str) -> None:
        """Wait until a message waits, then for the slot, and handle messages in it."""
        loop = asyncio.get_running_loop()
        await self._waiting.wanted.wait()
        # Leaving the channel's block gives the slot back. Cancelling the consumer would not do on RabbitMQ before 3.12:
        # see `_single_active`.
        async with await self._connection.channel(prefetch=1) as channel:
            _, token = await waited(channel, queue, self._publish)
            until = loop.time() + _TURN
            while not token.is_lost and (job := self._waiting.next()) is not None:
                event = self._running[job] = asyncio.Event()
                self._waiting.begin(job)
                await event.wait()
                if loop.time() >= until:
                    return
            if not self._waiting.count():
                self._waiting.wanted.clear()
