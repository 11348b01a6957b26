"""Waiting for the tokens of a stage's rate, one for each message; see `rabbitry.flow.wiring.rates`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import AlreadySettled
from rabbitry.flow.wiring.rates import tokens_queue
from rabbitry.flow.worker._again import again
from rabbitry.flow.worker._job import GIVEN_BACK, Job

if TYPE_CHECKING:
    from rabbitry.amqp.client import Channel, Consumer, Delivery
    from rabbitry.flow.worker._settlement import Settler

PATIENCE: Final = 300.0
"""Seconds after which a message that waits for a token is returned to the end of its queue: brokers close the channel
of a consumer that keeps a message for 30 minutes (RabbitMQ's docs/consumers, "Delivery Acknowledgement Timeout")."""
_LOOK: Final = 30.0
"""Seconds between two looks whether a message has waited too long."""


class Limiter:
    """The messages of one stage that wait in this worker, and the consumer of their tokens; on the I/O thread.

    It consumes only while a message waits, one token at a time, so that no worker keeps tokens that it does not use.
    """

    def __init__(
        self,
        app: str,
        stage: str,
        connection: Connection,
        settler: Settler,
        hand_over: Callable[[Job], None],
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        """Create a limiter.

        Args:
            app: The app's name.
            stage: The stage's name.
            connection: The worker's connection for consuming.
            settler: Settles the messages that are returned.
            hand_over: Called with each message that has its token.
            redeclare: Declares the app's topology again.
        """
        self._what = f"app '{app}', tokens of stage '{stage}'"
        self._queue = tokens_queue(app, stage)
        self._connection = connection
        self._settler = settler
        self._hand_over = hand_over
        self._redeclare = redeclare
        self._waiting: deque[Job] = deque()
        """At most as many as the prefetch, and those that a lost connection left until the next one comes."""
        self._wanted = asyncio.Event()
        """Set since a message waits, until a token was used for the last one."""
        self._is_closed = False
        """Whether messages are returned at once: the stage is paused, or the worker stops."""

    def take(self, job: Job) -> None:
        """Keep a message until it has its token."""
        if self._is_closed:
            self._settler.finish(job, GIVEN_BACK)
            return
        self._drop_stale()
        self._waiting.append(job)
        self._wanted.set()

    def close(self) -> None:
        """Return the messages that wait, and later ones as they arrive."""
        self._is_closed = True
        self._give_back(time.monotonic())

    def open(self) -> None:
        """Take messages again."""
        self._is_closed = False

    async def run(self) -> NoReturn:
        """Pass messages on until cancelled. Raises ConnectionClosed if the connection is closed for good."""
        watching = asyncio.create_task(self._watch())
        try:
            await again(self._what, self._consume, self._connection, self._redeclare)
        finally:
            watching.cancel()
            await asyncio.wait((watching,))

    async def _watch(self) -> NoReturn:
        while True:
            await asyncio.sleep(_LOOK)
            self._give_back(time.monotonic() - PATIENCE)

    def _give_back(self, received: float) -> None:
        """Return the messages that were received until then, on the monotonic clock."""
        while self._waiting and self._waiting[0].received <= received:
            self._settler.finish(self._waiting.popleft(), GIVEN_BACK)

    def _drop_stale(self) -> None:
        """Leave out the messages of a lost connection, which come again, and those that are not to be handled."""
        while self._waiting and (self._waiting[0].is_stale or self._settler.drops(self._waiting[0])):
            job = self._waiting.popleft()
            if job.is_stale:
                self._settler.finish(job, GIVEN_BACK)

    async def _consume(self) -> None:
        async with await self._connection.channel(prefetch=1) as channel:
            while True:
                await self._wanted.wait()
                async with channel.consume(self._queue) as tokens:
                    async for token in tokens:
                        await self._use(token, tokens, channel)

    async def _use(self, token: Delivery, tokens: Consumer, channel: Channel) -> None:
        """Use a token for the first message that waits. The iteration ends if no other message waits."""
        # A worker that was killed may have used it. A token too few in place of each that a killed worker had is the
        # price for never one too many.
        if token.redelivered:
            token.ack()
            return
        self._drop_stale()
        if len(self._waiting) <= 1:
            # Before the ack, which makes the broker send the next token, that nothing here would use.
            await tokens.cancel(give_back=False)
            self._drop_stale()
        job = self._waiting.popleft() if self._waiting else None
        try:
            if job is None:  # it was returned meanwhile; if requeued, the token would come redelivered
                await channel.publish(token.body, routing_key=self._queue, properties=token.properties)
            token.ack()
        except AlreadySettled:  # its connection was lost, and it may be another worker's
            if job is not None:
                self._waiting.appendleft(job)
            raise
        if job is not None:
            self._hand_over(job)
        if not self._waiting:
            self._wanted.clear()
