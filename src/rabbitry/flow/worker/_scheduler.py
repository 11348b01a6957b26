"""Publishing the ticks of a schedule while this worker holds its token; see `rabbitry.flow.wiring.schedules`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, NoReturn

from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.exceptions import AlreadySettled, ConnectionClosed, RequestTimeout
from rabbitry.flow.codec import JSON, encode
from rabbitry.flow.message import first_properties, node_name
from rabbitry.flow.schedule import GRACE, Schedule, Tick
from rabbitry.flow.wiring.schedules import KEPT, Fired, Token, encode_token, read_token, schedule_queue
from rabbitry.flow.worker._again import again
from rabbitry.telemetry import ScheduleState

if TYPE_CHECKING:
    from rabbitry.amqp.client import Consumer, Delivery
    from rabbitry.flow.stage import Stage

RENEWED: Final = 300.0
"""Seconds after which a token that waits is published anew: brokers close the channel of a consumer that keeps a
message for 30 minutes (RabbitMQ's docs/consumers, "Delivery Acknowledgement Timeout"). A worker that has waited so long
for a token publishes another one without a time: the broker may have lost the token."""
_LOOK: Final = 30.0
"""Seconds after which the clock is looked at again: it may have been set, or the machine may have slept."""
_MOST_TOKENS: Final = 100
_LOOKS: Final = 10
"""Most looks whether the queue has more tokens."""
_MOST_AT_ONCE: Final = 100
"""Missed ticks that one transaction publishes."""
_IDS: Final = uuid.UUID("6f1e3b1c-7a2f-5d7e-9c53-0a4bb3f0b8a1")
"""The namespace of the ids of ticks: a tick has the same id whoever publishes it."""

_logger = logging.getLogger(__name__)


class Scheduler:
    """Publishes the ticks of one stage's schedule to the stage's queue; on the I/O thread.

    All workers of the stage have one, and one at a time holds the token.
    """

    def __init__(
        self,
        app: str,
        stage: Stage,
        schedule: Schedule,
        connection: Connection,
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        """Create a scheduler.

        Args:
            app: The app's name.
            stage: The stage.
            schedule: Its schedule.
            connection: The worker's connection for publishing.
            redeclare: Declares the app's topology again.
        """
        self._app = app
        self._stage = stage
        self._schedule = schedule
        self._connection = connection
        self._redeclare = redeclare
        self._queue = schedule_queue(app, stage.name)
        self.state: ScheduleState | None = None
        """The schedule as this worker reports it; None while another one holds the token."""

    async def run(self) -> NoReturn:
        """Publish ticks until cancelled. Raises ConnectionClosed if the connection is closed for good."""
        what = f"app '{self._app}', schedule of stage '{self._stage.name}'"
        await again(what, self._hold, self._connection, self._redeclare)

    async def _hold(self) -> None:
        try:
            async with await self._connection.channel(prefetch=_MOST_TOKENS, confirms=False) as channel:
                tokens = channel.consume(self._queue)
                await tokens.start()  # closing the channel ends it, and returns the token
                held, token = await self._take(channel, tokens)
                while True:
                    token = await self._advance(channel, held, token)
                    held = [await returned(tokens)]
                    token = await self._until_due(tokens, held, token)
        finally:
            self.state = None

    async def _take(self, channel: Channel, tokens: Consumer) -> tuple[list[Delivery], Token]:
        """Wait until this worker is the one that gets the tokens. Return all deliveries, and the latest token."""
        first = None
        while first is None:
            async with channel.transaction():
                await self._publish_token(channel, Token())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEWED):
                    first = await anext(tokens)
        for _ in range(_LOOKS):
            if not (await channel.declare_queue(self._queue, passive=True)).message_count:
                break
        # RabbitMQ may answer one request before it sends the deliveries that its channel has. After the answer to a
        # second one, all of them are here; the latest may be the last.
        await channel.declare_queue(self._queue, passive=True)
        held = [first, *await arrived(tokens)]
        token = latest(Token(), held)
        if token.done > time.time() + GRACE:
            _logger.warning(
                "app '%s', stage '%s': ticks up to %s were published already, by a machine whose clock was ahead of "
                "this one's; the next ones come after that, or once queue '%s' was deleted",
                self._app, self._stage.name, token.since.isoformat(), self._queue,
            )  # fmt: skip
        return held, token if token.done else Token(int(time.time()))

    async def _until_due(self, tokens: Consumer, held: list[Delivery], token: Token) -> Token:
        """Wait until a tick is due or the token must be renewed. Return the latest token.

        Args:
            tokens: The consumer.
            held: The deliveries of tokens; those that come meanwhile are added.
            token: The last token that this worker published. An earlier one may come from the queue before it: another
                worker's without a time.

        Raises:
            ConnectionClosed: The connection was lost, and with it all that are held.
        """
        loop = asyncio.get_running_loop()
        renewed_at = loop.time() + RENEWED
        while True:
            token = latest(token, held)
            due = self._schedule.after(token.since).timestamp()
            self.state = ScheduleState(
                self._schedule.when,
                self._schedule.missed,
                due,
                [(each.due, each.at, each.host) for each in token.fired],
            )
            seconds = min(due - time.time(), renewed_at - loop.time())
            if seconds <= 0 or len(held) > 1:  # several become one at once
                return token
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, _LOOK)):
                    held.append(await anext(tokens))
            if all(each.is_lost for each in held):
                raise ConnectionClosed(0, "the connection was lost, so that another worker may have the token")

    async def _advance(self, channel: Channel, held: Sequence[Delivery], token: Token) -> Token:
        """Publish the ticks that are due and the next token, and acknowledge those held, in one transaction.

        Returns:
            The next token.
        """
        now = datetime.now(UTC)
        ticks, done = due_ticks(self._schedule, token.since, now)
        fired = [Fired(int(tick.timestamp()), time.time(), node_name()) for tick in ticks]
        following = Token(int(done.timestamp()), [*token.fired, *fired][-KEPT:])
        if ticks:  # its queue may have been deleted, and a commit does not say that a message went nowhere
            await channel.declare_queue(self._stage.queue, passive=True)
        async with channel.transaction():
            # First, so that nothing is published once the token is another worker's.
            settle(held)
            for tick in ticks:
                await self._publish_tick(channel, tick)
            await self._publish_token(channel, following)
        for tick in ticks:
            _logger.debug("app '%s', stage '%s': tick of %s", self._app, self._stage.name, tick.isoformat())
        return following

    async def _publish_tick(self, channel: Channel, tick: datetime) -> None:
        encoded = encode(Tick(self._stage.name, tick))
        identity = uuid.uuid5(_IDS, f"{self._queue} {tick.isoformat()}").hex
        properties = first_properties(self._app, encoded.content_type, encoded.type_name)
        await channel.publish(
            encoded.body,
            routing_key=self._stage.queue,
            properties=properties._replace(message_id=identity, correlation_id=identity),
        )

    async def _publish_token(self, channel: Channel, token: Token) -> None:
        properties = Properties(content_type=JSON, delivery_mode=2, type="Token", app_id=self._app)
        await channel.publish(encode_token(token), routing_key=self._queue, properties=properties)


def due_ticks(schedule: Schedule, since: datetime, now: datetime) -> tuple[list[datetime], datetime]:
    """Return the ticks to publish, and the moment up to which all are done then; `since` if none was due."""
    if schedule.missed == "all":
        ticks = list(islice(schedule.ticks(since, now), _MOST_AT_ONCE))
        return ticks, ticks[-1] if ticks else since
    last = schedule.last(since, now)
    if last is None:
        return [], since
    if schedule.missed == "skip" and now - last > timedelta(seconds=GRACE):
        return [], last
    return [last], last


async def arrived(tokens: Consumer) -> list[Delivery]:
    """Return the deliveries that are here already."""
    found = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            while True:
                found.append(await anext(tokens))
    return found


async def returned(tokens: Consumer) -> Delivery:
    """Wait for the token that was just published. Raises RequestTimeout: another worker may be active by then."""
    try:
        async with asyncio.timeout(_LOOK):
            return await anext(tokens)
    except TimeoutError as error:
        raise RequestTimeout(f"the broker has not delivered the token within {_LOOK:g} s") from error


def latest(token: Token, held: Sequence[Delivery]) -> Token:
    """Return the latest of a token and those of deliveries."""
    now = time.time()
    return max((token, *(read_token(delivery.body, now) for delivery in held)), key=lambda each: each.done)


def settle(held: Sequence[Delivery]) -> None:
    """Acknowledge all tokens. One of an earlier connection comes again, and is among the others if it came here.

    Raises:
        AlreadySettled: All are of earlier connections.
    """
    failures = []
    for delivery in held:
        try:
            delivery.ack()
        except AlreadySettled as error:
            failures.append(error)
    if len(failures) == len(held):
        raise failures[0]
