"""Publishing the tokens of a stage's rate while this worker holds its state; see `rabbitry.flow.wiring.rates`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.exceptions import ConnectionClosed
from rabbitry.flow.codec import JSON
from rabbitry.flow.wiring.rates import Minted, encode_minted, rate_queue, read_minted, tokens_queue
from rabbitry.flow.worker._again import again
from rabbitry.flow.worker._scheduler import RENEWED, arrived, returned, settle

if TYPE_CHECKING:
    from rabbitry.amqp.client import Consumer, Delivery
    from rabbitry.flow._rate import Rate

_STEP: Final = 0.05
"""The least seconds between two looks at the tokens, each of which publishes all that are due."""
_FULL: Final = 0.25
"""Seconds between two looks at tokens of which as many wait as may."""
_LOOK: Final = 30.0
"""Seconds after which the clock is looked at again: it may have been set, or the machine may have slept."""
_AHEAD: Final = 1.0
"""Seconds by which the clock of the worker that published the last tokens may have been ahead of this one's."""
_MOST_STATES: Final = 100


class Bucket(NamedTuple):
    """Tokens that fall due in time. until: the Unix time up to which they were published. is_full: when last seen."""

    until: float
    is_full: bool = False

    def due(self, rate: Rate, waiting: int, now: float) -> tuple[int, Bucket]:
        """Return how many tokens to publish, and the bucket with them.

        No token falls due while the bucket is full. When it was full at the last look, nobody knows when the first
        token was taken: it is taken to be this moment, so that never too many are published.

        Args:
            rate: The rate.
            waiting: Tokens in the queue, which nobody has used.
            now: The Unix time.
        """
        if waiting >= rate.burst:
            return 0, Bucket(now, is_full=True)
        # A clock that is far ahead of this one's must not stop the stage.
        until = now if self.is_full or self.until > now + _AHEAD else self.until
        number = int(max(0.0, now - until) * rate.per_second + 1e-6)
        room = rate.burst - waiting
        if number > room:
            return room, Bucket(now)
        return number, Bucket(until + number / rate.per_second)

    def pause(self, rate: Rate, now: float) -> float:
        """Return the seconds until the next look."""
        if self.is_full:
            return _FULL
        return min(max(_STEP, self.until + 1 / rate.per_second - now), _LOOK)


class Minter:
    """Publishes the tokens of one stage; on the I/O thread.

    All workers of the stage have one, and one at a time holds the state.
    """

    def __init__(
        self, app: str, stage: str, rate: Rate, connection: Connection, redeclare: Callable[[], Awaitable[None]]
    ) -> None:
        """Create a minter.

        Args:
            app: The app's name.
            stage: The stage's name.
            rate: Its rate.
            connection: The worker's connection for publishing.
            redeclare: Declares the app's topology again.
        """
        self._app = app
        self._stage = stage
        self._rate = rate
        self._connection = connection
        self._redeclare = redeclare
        self._queue = rate_queue(app, stage)
        self._tokens = tokens_queue(app, stage)
        # A slow limit must outlive the broker, and a fast one must not wait for its disk many times a second: the
        # tokens that it loses are those of a second.
        self._mode = 2 if rate.per_second < 1 else 1

    async def run(self) -> NoReturn:
        """Publish tokens until cancelled. Raises ConnectionClosed if the connection is closed for good."""
        what = f"app '{self._app}', rate of stage '{self._stage}'"
        await again(what, self._hold, self._connection, self._redeclare)

    async def _hold(self) -> None:
        async with await self._connection.channel(prefetch=_MOST_STATES, confirms=False) as channel:
            states = channel.consume(self._queue)
            await states.start()  # closing the channel ends it, and returns the state
            held = await self._take(channel, states)
            bucket = Bucket(_latest(held) or time.time() - 1 / self._rate.per_second)  # the first message need not wait
            loop = asyncio.get_running_loop()
            renewed = loop.time()
            while True:
                bucket, number = await self._look(channel, bucket)
                # A state that is ahead of a clock that was set back is replaced at once: else it would count again.
                is_ahead = bucket.until < _latest(held)
                if number or is_ahead or len(held) > 1 or loop.time() - renewed > RENEWED:
                    async with channel.transaction():
                        settle(held)  # first, so that nothing is published once the state is another worker's
                        for _ in range(number):
                            await self._publish(channel, self._tokens, b"")
                        await self._publish(channel, self._queue, encode_minted(Minted(bucket.until)))
                    held, renewed = [await returned(states)], loop.time()
                await asyncio.sleep(bucket.pause(self._rate, time.time()))
                held += await arrived(states)
                if all(each.is_lost for each in held):
                    raise ConnectionClosed(0, "the connection was lost, so that another worker may have the state")
                bucket = bucket._replace(until=max(bucket.until, _latest(held)))

    async def _take(self, channel: Channel, states: Consumer) -> list[Delivery]:
        """Wait until this worker is the one that gets the state, of which there may be several. Return all.

        No worker can see whether there is one, since another one may hold it. Therefore each publishes one without a
        time.
        """
        first = None
        while first is None:
            async with channel.transaction():
                await self._publish(channel, self._queue, encode_minted(Minted()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEWED):
                    first = await anext(states)
        for _ in range(2):  # RabbitMQ may answer the first request before it sends the deliveries that its channel has
            await channel.declare_queue(self._queue, passive=True)
        return [first, *await arrived(states)]

    async def _look(self, channel: Channel, bucket: Bucket) -> tuple[Bucket, int]:
        """Drop tokens that are too many; return the bucket with those that are due, and their number."""
        waiting = (await channel.declare_queue(self._tokens, passive=True)).message_count
        for _ in range(waiting - self._rate.burst):  # the tokens of a version of the app with a higher rate
            if await channel.get(self._tokens, no_ack=True) is None:
                break
        number, bucket = bucket.due(self._rate, waiting, time.time())
        return bucket, number

    async def _publish(self, channel: Channel, queue: str, body: bytes) -> None:
        properties = Properties(content_type=JSON if body else None, delivery_mode=self._mode, app_id=self._app)
        await channel.publish(body, routing_key=queue, properties=properties)


def _latest(held: list[Delivery]) -> float:
    """Return the latest time of states."""
    return max(read_minted(delivery.body).until for delivery in held)
