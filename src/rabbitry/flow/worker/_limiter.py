"""Waiting for the tokens of a stage's rate, one for each message; see `rabbitry.flow.wiring.rates`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import AlreadySettled
from rabbitry.flow.message import Publication
from rabbitry.flow.wiring.rates import tokens_queue
from rabbitry.flow.worker._again import again

if TYPE_CHECKING:
    from rabbitry.amqp.client import Consumer, Delivery
    from rabbitry.flow.worker._waiting import Waiting


class Limiter:
    """The consumer of the tokens of one stage's messages in this worker; on the I/O thread.

    It consumes only while a message waits, one token at a time, so that no worker keeps tokens that it does not use.
    """

    def __init__(
        self,
        app: str,
        stage: str,
        connection: Connection,
        waiting: Waiting,
        publish: Callable[[Publication], Awaitable[None]],
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        """Create a limiter.

        Args:
            app: The app's name.
            stage: The stage's name.
            connection: The worker's connection for consuming.
            waiting: The messages.
            publish: Publishes a message over another connection; see `Slots`.
            redeclare: Declares the app's topology again.
        """
        self._what = f"app '{app}', tokens of stage '{stage}'"
        self._queue = tokens_queue(app, stage)
        self._connection = connection
        self._waiting = waiting
        self._publish = publish
        self._redeclare = redeclare

    async def run(self) -> NoReturn:
        """Pass messages on until cancelled. Raises ConnectionClosed if the connection is closed for good."""
        await again(self._what, self._consume, self._connection, self._redeclare)

    async def _consume(self) -> None:
        async with await self._connection.channel(prefetch=1) as channel:
            while True:
                await self._waiting.wanted.wait()
                async with channel.consume(self._queue) as tokens:
                    async for token in tokens:
                        await self._use(token, tokens)

    async def _use(self, token: Delivery, tokens: Consumer) -> None:
        """Use a token for the first message that waits. The iteration ends if no other message waits."""
        # A worker that was killed may have used it. A token too few in place of each that a killed worker had is the
        # price for never one too many.
        if token.redelivered:
            token.ack()
            return
        if self._waiting.count() <= 1:
            # Before the ack, which makes the broker send the next token, that nothing here would use.
            await tokens.cancel(give_back=False)
        job = self._waiting.next()
        try:
            if job is None:  # it was returned meanwhile; if requeued, the token would come redelivered
                await self._publish(Publication("", self._queue, token.body, token.properties, mandatory=False))
            token.ack()
        except AlreadySettled:  # its connection was lost, and it may be another worker's
            if job is not None:
                self._waiting.put_back(job)
            raise
        if job is not None:
            self._waiting.begin(job)
        if not self._waiting.count():
            self._waiting.wanted.clear()
