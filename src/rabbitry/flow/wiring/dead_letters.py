"""Dead letters: listed, replayed and dropped. A worker's settlement makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from rabbitry._ids import pick
from rabbitry.amqp.client import Channel, Connection, Consumer, Delivery, Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.exceptions import (
    AlreadySettled,
    ConnectionClosed,
    PublishRefused,
    PublishReturned,
    RabbitryError,
    UsageError,
)
from rabbitry.flow._fitting import CUT, ERROR, TRACEBACK, fit
from rabbitry.flow._options import MOST_UNACKED
from rabbitry.flow.message import (
    ATTEMPT,
    EXCHANGE,
    FAILED_AT,
    INTERRUPTED,
    NODE,
    QUEUE,
    REASON,
    REPLAYED,
    ROUTING_KEY,
    STAGE,
    UNCOUNTED,
    attempt_of,
    count_in,
    plain_headers,
    properties_of,
    text_header,
)

BATCH: Final = 500
"""Dead letters of a replay that are published and perhaps not removed, at most: after a kill they may exist twice."""
_DONE_WAITING: Final = 2.0
"""Seconds without a delivery after which the rest of the queue is taken to be in other hands."""
_OURS: Final = (
    ATTEMPT, REASON, ERROR, TRACEBACK, STAGE, EXCHANGE, ROUTING_KEY, QUEUE, FAILED_AT, NODE, INTERRUPTED, UNCOUNTED,
    REPLAYED,
)  # fmt: skip


def dead_queue(app: str) -> str:
    """Return the name of the queue of an app's dead letters."""
    return f"{app}.dead"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, as `list` and `show` print it. queue: where it failed; empty if it never reached a queue.

    cut: names and sizes of the headers that were left out because they fit no frame; empty if all are there.
    """

    id: str
    reason: str
    error: str
    traceback: str
    stage: str
    exchange: str
    routing_key: str
    queue: str
    attempts: int
    failed_at: str
    node: str
    correlation_id: str
    type: str
    content_type: str
    cut: str
    body: bytes


def read(delivery: Delivery) -> DeadLetter:
    """Read a dead letter."""
    return letter_of(properties_of(delivery), delivery.body)


def letter_of(properties: Properties, body: bytes) -> DeadLetter:
    """Read a dead letter from its properties and its body."""
    headers = properties.headers or {}

    def text(name: str) -> str:
        return text_header(headers, name) or ""

    return DeadLetter(
        id=properties.message_id or "",
        reason=text(REASON),
        error=text(ERROR),
        traceback=text(TRACEBACK),
        stage=text(STAGE),
        exchange=text(EXCHANGE),
        routing_key=text(ROUTING_KEY),
        queue=text(QUEUE),
        attempts=attempt_of(properties),
        failed_at=text(FAILED_AT),
        node=text(NODE),
        correlation_id=properties.correlation_id or "",
        type=properties.type or "",
        content_type=properties.content_type or "",
        cut=text(CUT),
        body=body,
    )


def target_of(letter: DeadLetter) -> tuple[str, str]:
    """Return the exchange and the routing key that a replay publishes a dead letter with."""
    return ("", letter.queue) if letter.queue else (letter.exchange, letter.routing_key)


Which: TypeAlias = Callable[[DeadLetter], bool]
GoOn: TypeAlias = Callable[[], Awaitable[bool]]
"""Awaited before each chosen dead letter. False ends the pass: the dead letters that are left go back."""


async def _always() -> bool:
    return True


def which(
    *, id: str | None = None, reason: str | None = None, stage: str | None = None, everything: bool = False
) -> Which:
    """Choose dead letters.

    Raises:
        UsageError: Nothing is chosen. Choosing all must be explicit.
    """
    if not everything and id is None and reason is None and stage is None:
        raise UsageError("which dead letters? by id, reason or stage, or all of them")
    return lambda letter: (
        (id is None or letter.id == id)
        and (reason is None or letter.reason == reason)
        and (stage is None or letter.stage == stage)
    )


async def find_id(connection: Connection, app: str, beginning: str) -> str:
    """Return the whole id of a dead letter, given its beginning.

    Raises:
        NoSuchID: No dead letter, or more than one, has an id that begins so.
        NotFound: The app has no such queue yet.
    """
    return pick(beginning, [letter.id async for letter in letters(connection, app)], f"dead letter of app {app!r}")


async def waiting(connection: Connection, app: str) -> int:
    """Return how many dead letters are ready in the queue. Raises NotFound: the app has no such queue yet."""
    async with await connection.channel() as channel:
        return (await channel.declare_queue(dead_queue(app), passive=True)).message_count


async def walk(connection: Connection, app: str, most: int | None = None) -> AsyncGenerator[Delivery, None]:
    """Yield the dead letters that are in the queue now, oldest first. All of them stay there.

    Args:
        connection: An open connection.
        app: The app's name.
        most: How many at most; None for all.

    Raises:
        NotFound: The app has no such queue yet.
    """
    prefetch = 0 if most is None else min(most, MOST_UNACKED)
    async with _looking(connection, app, most, prefetch=prefetch) as (_, deliveries):
        async for delivery in deliveries:
            yield delivery


async def letters(connection: Connection, app: str, chosen: Which | None = None) -> AsyncGenerator[DeadLetter, None]:
    """Yield the dead letters that are in the queue now, oldest first. All of them stay there.

    Raises:
        NotFound: The app has no such queue yet.
    """
    async with aclosing(walk(connection, app)) as deliveries:
        async for delivery in deliveries:
            letter = read(delivery)
            if chosen is None or chosen(letter):
                yield letter


async def drop(
    connection: Connection,
    app: str,
    chosen: Which,
    progress: Callable[[int], None] | None = None,
    *,
    most: int | None = None,
    go_on: GoOn = _always,
) -> int:
    """Drop the chosen dead letters; returns how many. See `replay` for the arguments."""
    dropped = 0
    async with _looking(connection, app, most) as (_, deliveries):
        async for delivery in deliveries:
            if not chosen(read(delivery)):
                continue
            if not await go_on():
                break
            delivery.ack()
            dropped += 1
            if progress is not None:
                progress(dropped)
    return dropped


async def replay(
    connection: Connection,
    app: str,
    chosen: Which,
    progress: Callable[[int], None] | None = None,
    *,
    most: int | None = None,
    go_on: GoOn = _always,
    body: bytes | None = None,
    over: Connection | None = None,
) -> tuple[int, list[str]]:
    """Publish the chosen dead letters to where they came from, and remove each once its copy is confirmed.

    A message that failed in a queue goes to that queue, as attempt 1. A message that never reached a queue is published
    to its exchange again. If this is cancelled or killed, no message is lost, and at most BATCH exist twice: a dead
    letter counts as removed when the broker has answered a request that was sent behind its ack.

    Args:
        connection: An open connection.
        app: The app's name.
        chosen: Selects the dead letters.
        progress: Called with the number of messages replayed so far.
        most: How many dead letters are looked at, from the oldest on; None for those that are there now.
        go_on: Awaited before each chosen one; False ends this, once what was published is confirmed.
        body: A body to publish in place of the message's own.
        over: Another connection, to publish over. Without it the whole queue is held in memory: a connection on which
            confirms are outstanding is always read.

    Returns:
        The number of replayed messages, and for each other one why it stays: no queue took it, or the broker refused
        it.
    """
    over = over or connection
    async with await over.channel() as publishing:
        replaying = _Replaying(progress, over.frame_limit, body)
        async with _looking(connection, app, most) as (taking, deliveries), replaying.removing(taking):
            async for delivery in deliveries:
                letter = read(delivery)
                if not chosen(letter):
                    continue
                if not await go_on():
                    break
                await replaying.send(publishing, delivery, letter)
            await replaying.wait()
    return replaying.done, replaying.problems


class _Replaying:
    """Dead letters on their way: each is acked when its copy is confirmed.

    A sent ack proves nothing: of a killed program's two sockets the broker may read the publishes of one and never the
    acks of the other. Therefore the room of a letter is free again only when the broker has processed its ack.
    """

    def __init__(self, progress: Callable[[int], None] | None, frame_limit: int, body: bytes | None) -> None:
        """Create it without messages.

        progress: called with the number done so far. frame_limit: the connection's. body: replaces the messages' own.
        """
        self.done = 0
        self._body = body
        self._room = asyncio.Semaphore(BATCH)
        self.problems: list[str] = []
        self._frame_limit = frame_limit
        self._progress = progress or (lambda done: None)
        self._failure: BaseException | None = None
        self._acked: list[Delivery] = []
        """Those acked since the broker was last asked."""
        self._is_acked = asyncio.Event()

    @asynccontextmanager
    async def removing(self, channel: Channel) -> AsyncIterator[None]:
        """Make room for as many letters as the broker has removed, while the block runs. channel: that of the acks."""
        task = asyncio.create_task(self._remove(channel), name="removal of dead letters")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _remove(self, channel: Channel) -> None:
        """Ask for an answer behind the acks, which a channel processes in order, and release their room."""
        while True:
            await self._is_acked.wait()
            self._is_acked.clear()
            acked, self._acked = self._acked, []
            try:
                await channel.qos(0)
            except RabbitryError as error:
                self._fail(error)
                return
            if any(one.is_lost for one in acked):  # then the answer came over the next connection
                self._fail(
                    ConnectionClosed(0, "the connection was lost: the last replayed messages may be there twice")
                )
                return
            for _ in acked:
                self._room.release()

    def _fail(self, error: BaseException) -> None:
        """Keep what ends the replay, and let it out of its wait for room."""
        self._failure = self._failure or error
        self._room.release()

    async def _take_room(self) -> None:
        """Wait for room for one letter. Raises what ended an earlier one but a refusal."""
        await self._room.acquire()  # each confirm or error releases it, so that no failure leaves this waiting
        if self._failure is not None:
            raise self._failure

    async def send(self, channel: Channel, delivery: Delivery, letter: DeadLetter) -> None:
        """Publish one, having waited for room. Raises what ended an earlier one but a refusal."""
        await self._take_room()
        exchange, routing_key = target_of(letter)
        try:
            future = await channel.send(
                delivery.body if self._body is None else self._body,
                exchange=exchange,
                routing_key=routing_key,
                properties=_replayed(delivery, letter, self._frame_limit),
            )
        except UsageError as error:  # what AMQP can't carry, such as a routing key of more than 255 bytes
            self.problems.append(f"{letter.id}: {error}")
            self._room.release()
            return
        future.add_done_callback(partial(self._on_done, delivery, letter))

    def _on_done(self, delivery: Delivery, letter: DeadLetter, future: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            try:
                delivery.ack()
            except AlreadySettled as lost:
                self._fail(lost)
                return
            self._acked.append(delivery)
            self._is_acked.set()
            self.done += 1
            self._progress(self.done)
        elif isinstance(error, PublishReturned | PublishRefused):
            self.problems.append(f"{letter.id}: {error}")
            self._room.release()
        else:
            self._fail(error)

    async def wait(self) -> None:
        """Wait until the broker has removed all letters on their way, which is when all of the room is free."""
        for _ in range(BATCH):
            await self._take_room()


def _replayed(delivery: Delivery, letter: DeadLetter, limit: int) -> Properties:
    properties = properties_of(delivery)
    foreign = {name: value for name, value in plain_headers(properties).items() if name not in _OURS}
    # By the count, a stage behind a store tells the message from a copy of the delivery that failed.
    own: dict[str, FieldValue] = {ATTEMPT: 1, REPLAYED: 1 + count_in(properties.headers or {}, REPLAYED)}
    if letter.queue:  # its origin stays with it, though it goes straight to the queue
        own |= {EXCHANGE: letter.exchange, ROUTING_KEY: letter.routing_key}
    return fit(properties._replace(user_id=None), foreign, own, limit)


@asynccontextmanager
async def _looking(
    connection: Connection, app: str, most: int | None = None, *, prefetch: int = 0
) -> AsyncIterator[tuple[Channel, AsyncIterator[Delivery]]]:
    """Yield a channel and each delivery of the queue once; what is not acked goes back to its place after the block."""
    queue = dead_queue(app)
    async with await connection.channel(prefetch=prefetch) as channel:
        left = (await channel.declare_queue(queue, passive=True)).message_count
        async with channel.consume(queue) as deliveries:
            yield channel, _first(deliveries, left if most is None else min(left, most))


async def _first(deliveries: Consumer, left: int) -> AsyncIterator[Delivery]:
    while left:
        try:
            async with asyncio.timeout(_DONE_WAITING):
                delivery = await anext(deliveries)
        except TimeoutError:
            return  # somebody else holds, or took, the rest
        left -= 1
        yield delivery
