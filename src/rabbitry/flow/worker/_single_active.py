"""Stages of which one worker at a time is active.

The broker chooses the worker: the stage's queue has `x-single-active-consumer` (RabbitMQ's docs/consumers, "Single
Active Consumer"). The stage's suspects wait in a queue of their own, and of two such queues each could have its active
consumer at another worker. Therefore a worker takes suspects only while it is active for the stage's queue. AMQP 0-9-1
tells no consumer that it is active, but a delivery does, and it stays active until its consumer, channel or connection
ends.

RabbitMQ before 3.12 has a defect (rabbitmq-server issue 5460): if the active consumer of a classic queue is
cancelled, the next one is not served, and with the next publish the queue crashes. Closing the channel does neither,
but what is on its way over it then comes redelivered. Therefore a worker that stops first blocks its channel: it takes
a message from a queue of its own over that channel, limits the channel to one unsettled delivery, and never settles it.

If suspects wait and the stage's queue is empty, no delivery tells. Then a worker publishes a probe to the stage's
queue: an empty message that the active worker drops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.client import Connection, Delivery, Properties
from rabbitry.exceptions import Closed, PublishError, RequestTimeout
from rabbitry.flow.message import Publication, properties_of
from rabbitry.flow.worker._intake import Intake
from rabbitry.flow.worker._window import Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rabbitry.flow._outlet import Outlet
    from rabbitry.flow.spec import QueueType
    from rabbitry.flow.stage import Stage
    from rabbitry.flow.worker._job import Job

LOOK: Final = 2.0
"""Seconds between two looks of a worker whether suspects wait for one that is active."""
PROBE: Final = "x-rabbitry-probe"
_PROBE_BYTES: Final = PROBE.encode()
_MENDED: Final = (3, 12)
_PROBE_LIFE: Final = "10000"
"""Milliseconds after which the queue drops a probe that nobody took."""

_logger = logging.getLogger(__name__)


class ActiveIntake(Intake):
    """The consumer of a stage's queue, which may be the active one. See Intake."""

    def __init__(
        self,
        stage: Stage,
        queue: str,
        connection: Connection,
        prefetch: int,
        take: Callable[[Job], None],
        redeclare: Callable[[], Awaitable[None]],
        queue_type: QueueType,
        window: Window | None = None,
    ) -> None:
        """queue_type: of the stage's queue. The others are Intake's."""
        super().__init__(stage, queue, connection, prefetch, take, redeclare, window)
        self.active = asyncio.Event()
        """Set while it is known to be the active one: something was delivered to it."""
        self.inactive = asyncio.Event()
        self.inactive.set()
        self.is_blocked = False
        """Whether nothing more is delivered, so that what is given back goes to the next worker."""
        self._queue_type = queue_type

    @property
    def is_served(self) -> bool:
        """See Intake."""
        return super().is_served and self.active.is_set()

    def lose(self) -> None:
        """See Intake; the next delivery tells whether it is active again."""
        super().lose()
        self.active.clear()
        self.inactive.set()
        self.is_blocked = False

    @property
    def _can_be_cancelled(self) -> bool:
        """Whether the consumer can be cancelled without harm to its queue; see the module."""
        has_defect = () < self._connection.server_version < _MENDED and self._queue_type == "classic"
        return not (has_defect and self.active.is_set())

    async def block(self) -> None:
        """Stop deliveries if cancelling the consumer would harm its queue; see the module."""
        channel = self._channel
        if channel is None or self.is_blocked or self._can_be_cancelled:
            return
        await self._keep_size()
        await channel.limit(0)  # in a full window there is no room for the message
        async with await self._connection.channel() as own:
            queue = (await own.declare_queue("", exclusive=True)).name
            await own.publish(b"", routing_key=queue)
        consumer = channel.consume(queue)
        await consumer.start()
        await anext(consumer)
        await channel.limit(1)
        self.is_blocked = True

    async def pause(self) -> None:
        """See Intake. To be called when nothing is in hand: another worker may be the active one afterwards."""
        if self._channel is not None and not self._can_be_cancelled:
            self._allowed.clear()
            with contextlib.suppress(RequestTimeout):  # the channel is closed all the same
                await self._channel.close()
            await self._taken_all.wait()
        else:
            await super().pause()
        self.active.clear()
        self.inactive.set()

    async def stop(self) -> None:
        """See Intake. One that is blocked has nothing in hand any more that could be settled."""
        if self.is_blocked and self._channel is not None:
            self._is_stopped = True
            await self._channel.close()
        else:
            await super().stop()

    def _on_delivery(self, delivery: Delivery) -> None:
        self.active.set()
        self.inactive.clear()
        # The bytes first, since decoding its properties would be paid for each message.
        if _PROBE_BYTES in delivery.header and PROBE in (properties_of(delivery).headers or {}):
            delivery.ack()
        else:
            super()._on_delivery(delivery)


class SuspectsIntake(Intake):
    """The consumer of the suspects of a stage, while the worker is active for its queue. See Intake."""

    def __init__(
        self,
        leader: ActiveIntake,
        queue: str,
        connection: Connection,
        take: Callable[[Job], None],
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        """leader: the consumer of the stage's queue."""
        super().__init__(leader.stage, queue, connection, 1, take, redeclare)
        self._leader = leader

    @property
    def is_ready(self) -> bool:
        """See Intake."""
        return super().is_ready or not self._leader.active.is_set()

    async def wait_ready(self) -> None:
        """See Intake. It may be ready without consuming."""

    async def run(self) -> None:
        """See Intake."""
        while not self._is_stopped:
            await self._leader.active.wait()
            consuming = asyncio.create_task(super().run())
            leaving = asyncio.create_task(self._leader.inactive.wait())
            try:
                # If the connection was lost, the consumer is ended before recovery, which has to connect first,
                # would bring it back.
                await asyncio.wait((consuming, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (leaving, consuming):
                    task.cancel()
                await asyncio.wait((leaving, consuming))
            if not consuming.cancelled():
                consuming.result()


async def probe(leader: ActiveIntake, suspects: str, connection: Connection, outlet: Outlet) -> None:
    """Publish probes while suspects wait and no worker takes them, until cancelled.

    The worker that receives a probe knows that it is the active one.
    """
    message = Publication(
        "",
        leader.queue,
        b"",
        Properties(headers={PROBE: True}, delivery_mode=1, expiration=_PROBE_LIFE),
        mandatory=False,
    )
    while True:
        await asyncio.sleep(LOOK)
        if leader.active.is_set() or not leader.consuming.is_set() or not connection.is_open:
            continue
        try:
            async with await connection.channel() as channel:
                found = await channel.declare_queue(suspects, passive=True)
            if found.message_count and not found.consumer_count:
                await (await outlet.send(message))
        except (Closed, PublishError, RequestTimeout) as error:
            _logger.debug("stage '%s': its active worker can't be asked: %s", leader.stage.name, error)
