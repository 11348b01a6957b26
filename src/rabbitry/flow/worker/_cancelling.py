"""The cancelled jobs that a worker knows, and the tasks that read them from the broker.

Cancellations reach every running worker through a queue of its own. Those of the last hours are kept in a queue of the
app, which a worker reads when it starts and whenever its connection was lost. It takes the messages out of that queue
without acknowledging them, up to a marker that it published there itself, and returns them. The queue has a single
active consumer, so that no worker reads it while another has taken messages out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.client import Connection, Properties
from rabbitry.flow.message import properties_of
from rabbitry.flow.wiring.cancelling import KEPT, MOST, cancel_exchange, cancelled_queue
from rabbitry.flow.worker._again import again

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from rabbitry.amqp.client import Delivery

_MARKER: Final = "Marker"
_MARKER_KEPT: Final = "600000"
"""Milliseconds after which the marker of a worker that died is dropped."""
_READING: Final = 60.0
"""Seconds after which a worker that has not seen its marker publishes another one."""

_logger = logging.getLogger(__name__)


class Cancelled:
    """The ids of cancelled jobs, bounded in number and age. Written on the I/O thread, read in any thread."""

    def __init__(self) -> None:
        self.until: dict[bytes, float] = {}
        """Id → the time at which it is forgotten, on the monotonic clock; oldest first. Empty: no job was cancelled."""

    def __contains__(self, job: object) -> bool:
        until = self.until.get(job)  # type: ignore[call-overload] # any object may be looked up in a dict
        return until is not None and time.monotonic() < until

    def add(self, job: bytes, age: float = 0.0) -> None:
        """Add a job that was cancelled so many seconds ago."""
        self.until.pop(job, None)
        self.until[job] = time.monotonic() + KEPT - age
        while len(self.until) > MOST:
            del self.until[next(iter(self.until))]


class CancelListener:
    """Keeps the cancelled jobs of an app up to date; on the I/O thread. `listen` and `read` are two tasks."""

    def __init__(
        self,
        app: str,
        connection: Connection,
        cancelled: Cancelled,
        told: Callable[[], None],
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        """Create a listener.

        Args:
            app: The app's name.
            connection: The worker's connection for consuming.
            cancelled: Where the jobs are noted.
            told: Called after jobs were noted.
            redeclare: Declares the app's topology again after the exchange or the queue was deleted.
        """
        self._app = app
        self._connection = connection
        self._cancelled = cancelled
        self._told = told
        self._redeclare = redeclare
        self._missed = asyncio.Event()
        """Set while this worker may have missed cancellations."""
        self._missed.set()
        self._listens = asyncio.Event()
        self._has_read = asyncio.Event()

    async def listen(self) -> None:
        """Note jobs as they are cancelled, for ever. Raises ConnectionClosed if the connection is closed for good."""
        await self._again(self._listen, "cancellations")

    async def read(self) -> None:
        """Read the kept cancellations at the start and after each loss, without end. Raises as `listen` does."""
        await self._again(self._read, "earlier cancellations")

    def connected_again(self) -> None:
        """Read the kept cancellations again: the connection was lost and has recovered."""
        self._missed.set()

    async def wait_read(self) -> None:
        """Wait until all earlier cancellations are known."""
        await self._has_read.wait()

    async def _again(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        await again(f"app '{self._app}': {what}", work, self._connection, self._redeclare, self._missed.set)

    async def _listen(self) -> None:
        """Note each cancellation as it is published."""
        async with await self._connection.channel() as channel:
            queue = await channel.declare_queue("", exclusive=True)
            await channel.bind_queue(queue.name, cancel_exchange(self._app), "")
            async with channel.consume(queue.name, no_ack=True, restore=True) as deliveries:
                self._listens.set()
                try:
                    async for delivery in deliveries:
                        self._note(delivery)
                        self._told()
                finally:
                    self._listens.clear()

    async def _read(self) -> None:
        """Read the kept cancellations, once each time that some may have been missed."""
        await self._listens.wait()  # later cancellations come over the queue of `listen`
        await self._missed.wait()
        self._missed.clear()
        queue, marker = cancelled_queue(self._app), secrets.token_hex(8)
        try:
            async with asyncio.timeout(_READING), await self._connection.channel(prefetch=0) as channel:
                async with channel.consume(queue) as kept:  # leaving it returns what is not acknowledged
                    properties = Properties(type=_MARKER, message_id=marker, delivery_mode=1, expiration=_MARKER_KEPT)
                    await channel.publish(b"", routing_key=queue, properties=properties)
                    async for delivery in kept:
                        found = properties_of(delivery)
                        if found.message_id == marker:
                            delivery.ack()
                            break
                        if found.type != _MARKER:
                            self._note(delivery)
        except TimeoutError:
            _logger.warning("app '%s': not all that was cancelled before could be read; trying again", self._app)
            self._missed.set()
            return
        self._has_read.set()
        self._told()

    def _note(self, delivery: Delivery) -> None:
        at = properties_of(delivery).timestamp
        age = 0.0 if at is None else time.time() - (at if isinstance(at, int) else at.timestamp())
        self._cancelled.add(delivery.body, min(max(0.0, age), KEPT))
