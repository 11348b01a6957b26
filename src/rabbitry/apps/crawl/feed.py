"""The feed of the live picture: log lines, telemetry and queue lengths, over its own connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from rabbitry.amqp.client import BrokerURL, Channel, Connection, RecoveryEvent
from rabbitry.apps._connected import run_connected
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.picture import Picture, Queue
from rabbitry.exceptions import (
    ChannelClosed,
    Closed,
    ConnectionClosed,
    PreconditionFailed,
    ProtocolViolation,
    RabbitryError,
    RequestTimeout,
)
from rabbitry.runtime.tasks import background
from rabbitry.telemetry import Collector

TICK: Final = 0.5
"""Seconds between two updates of the picture."""
LOOK_EVERY: Final = 2.0
"""Seconds between two checks of the queues."""
LOOK_AFTER: Final = 60.0
"""Most seconds before a missing queue is looked for again, because each time adds a line to the broker's log. A new
node or a command shortens the wait, since these create queues."""
PREFETCH: Final = 200
LONGEST: Final = 10_000
"""Log lines that may wait on the broker; beyond, it drops the oldest."""
LARGEST: Final = 16_000_000
"""The bytes of those lines: an original processor logs whole pages."""
MOST_A_TURN: Final = 2_000
"""Lines read in TURN seconds; the limit keeps a flood of them from taking all the time."""
TURN: Final = 0.2
LOOKED_AT: Final = (names.PAGE_QUEUE, names.BATCH_QUEUE, names.KEEPER_QUEUE, names.QUESTION_QUEUE)

_logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def feeding(picture: Picture, url: str | BrokerURL, *, plain: bool) -> AsyncIterator[None]:
    """Feed a picture within the block, whenever the broker is reachable.

    plain: declare a missing exchange with the original programs' flags.
    """
    async with background(_tick(picture)), background(_feed(picture, url, plain=plain)):
        yield


async def _tick(picture: Picture) -> None:
    while True:
        await asyncio.sleep(TICK)
        picture.tick()


async def _feed(picture: Picture, url: str | BrokerURL, *, plain: bool) -> None:
    async def declare(connection: Connection) -> None:
        async with await connection.channel() as channel:
            with contextlib.suppress(PreconditionFailed):  # it exists with other flags, and is read as it is
                await channel.declare_exchange(names.EXCHANGE, "topic", durable=not plain, auto_delete=plain)

    def told(event: RecoveryEvent) -> None:
        if event.kind == "recovered":
            picture.set_broker("connected")
        else:
            picture.set_broker("away", str(event.error))

    try:
        await run_connected(
            url,
            lambda connection: _work(picture, connection),
            name="rabbitry crawl page",
            stop=asyncio.Event(),
            declare=declare,
            on_recovery=told,
            log_level=logging.DEBUG,  # the dashboard consumes samples from the same broker and has logged it
        )
    except RabbitryError as error:  # login or permissions: the page shows it, and the rest runs on
        _logger.warning("no live picture of the crawl: %s", error)
        picture.set_broker("refused", str(error))


async def _work(picture: Picture, connection: Connection) -> None:
    channel = await connection.channel(prefetch=PREFETCH)
    bounds = {"x-max-length": LONGEST, "x-max-length-bytes": LARGEST}
    queue = (await channel.declare_queue("", exclusive=True, arguments=bounds)).name
    await channel.bind_queue(queue, names.EXCHANGE, names.LOG_KEY)
    async with background(_collect(picture, connection)), background(_look(picture, connection, queue)):
        await _read(picture, channel, queue)


async def _read(picture: Picture, channel: Channel, queue: str) -> None:
    loop = asyncio.get_running_loop()
    began, left = loop.time(), MOST_A_TURN
    async with channel.consume(queue) as deliveries:
        picture.set_broker("connected")
        async for delivery in deliveries:
            delivery.ack()
            try:
                properties = delivery.properties
            except ProtocolViolation:
                picture.receive(b"", None, is_ours=False)
                continue
            picture.receive(delivery.body, properties.headers, is_ours=properties.app_id == names.APP)
            left -= 1
            if left == 0:
                await asyncio.sleep(max(0.0, began + TURN - loop.time()))
                began, left = loop.time(), MOST_A_TURN


async def _collect(picture: Picture, connection: Connection) -> None:
    try:
        await Collector().run(connection, picture.report)
    except (Closed, RequestTimeout) as error:
        if connection.is_open:
            _logger.warning("the live picture of the crawl has no telemetry: %s", error)


async def _look(picture: Picture, connection: Connection, own: str) -> None:
    """Check the queues repeatedly, until the connection is closed for good."""
    looking = _Looking(picture)
    with contextlib.suppress(ConnectionClosed):
        async with await connection.channel() as channel:
            while True:
                with contextlib.suppress(ChannelClosed, RequestTimeout):  # the broker is away, or the queue was deleted
                    await channel.open()
                    found = await looking.look(channel)
                    waiting = (await channel.declare_queue(own, passive=True)).message_count
                    picture.totals.overrun |= waiting >= LONGEST // 2
                    picture.queues = found
                await asyncio.sleep(LOOK_EVERY)


class _Looking:
    """Checks the queues: existing ones each time, missing ones after pauses that double."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._news = picture.news
        self._found: dict[str, Queue | None] = {}
        self._pause = LOOK_EVERY
        self._again_at = 0.0

    async def look(self, channel: Channel) -> dict[str, Queue | None]:
        """Return the queues; None for each that is missing, or was a while ago. Raises the channel's errors."""
        now = asyncio.get_running_loop().time()
        if self._news != self._picture.news:
            self._news, self._pause, self._again_at = self._picture.news, LOOK_EVERY, now
        looks_for_all = now >= self._again_at
        for name in LOOKED_AT:
            if looks_for_all or self._found[name] is not None:
                self._found[name] = await _queue(channel, name)
        if looks_for_all:
            self._again_at = now + self._pause
            self._pause = min(2 * self._pause, LOOK_AFTER)
        return dict(self._found)


async def _queue(channel: Channel, name: str) -> Queue | None:
    try:
        info = await channel.declare_queue(name, passive=True)
    except ChannelClosed:  # it does not exist, or this user may not see it
        await channel.open()
        return None
    return Queue(info.message_count, info.consumer_count)
