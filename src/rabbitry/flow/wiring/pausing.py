"""Pausing stages: a stage is paused while a queue of its own holds a message.

Each stage has a durable queue, `APP.paused.STAGE`. It holds one persistent message while the stage is paused, which
says who paused it, when and why. A pause therefore survives restarts of workers and of the broker, on every broker,
without another service. Workers ask once a second by a passive declare, which returns the number of messages and takes
none, so that workers do not disturb each other. The queue takes one message (`x-max-length`) and refuses a second one
(`x-overflow`): if two pause a stage at once, one is told that the other did.

Whoever reads the message holds it for a moment, in which the queue looks empty. The reader is a consumer, which the
answer counts too; and a stage is resumed only if two looks, `MOMENT` seconds apart, find neither message nor consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import Enum
from typing import Final

import msgspec

from rabbitry._decode import json_decoder
from rabbitry.amqp.client import Channel, Connection, Properties
from rabbitry.exceptions import NotFound, PublishRefused, RabbitryError, Undecodable, UsageError
from rabbitry.flow.stage import Argument

QUEUE: Final = "x-rabbitry-queue"
"""The argument of a queue of pauses that names the stage's queue, for programs that see the broker but not the app."""
MOMENT: Final = 0.2
"""Seconds for which a reader may leave the queue empty."""
_INFIX: Final = ".paused."
LONGEST_REASON: Final = 1000
"""Characters of a reason."""
_PATIENCE: Final = 20.0
"""Seconds that a reader may keep the message, and that the broker may take to confirm it."""


class Pause(msgspec.Struct, frozen=True):
    """A pause of a stage: who paused it, when (ISO 8601, UTC), and why."""

    app: str
    stage: str
    by: str = ""
    at: str = ""
    why: str = ""


class NoSuchStage(UsageError):
    """The broker knows no stage of this name."""


class Held(RabbitryError):
    """Another consumer holds the message of a pause and does not return it."""


class State(Enum):
    """The answer to whether a stage is paused. UNKNOWN: a reader may hold the message."""

    PAUSED = "paused"
    RUNNING = "running"
    UNKNOWN = "unknown"


def pause_queue(app: str, stage: str) -> str:
    """Return the name of the queue whose message pauses a stage."""
    return f"{app}{_INFIX}{stage}"


def paused_stage(queue: str) -> tuple[str, str] | None:
    """Return the app and the stage that a queue pauses; None if it is another kind of queue."""
    app, infix, stage = queue.partition(_INFIX)
    return (app, stage) if infix and app and stage else None


def pause_arguments(queue: str) -> dict[str, Argument]:
    """Return the arguments of a queue of pauses. queue: the stage's own."""
    return {"x-max-length": 1, "x-overflow": "reject-publish", QUEUE: queue}


async def look(channel: Channel, app: str, stage: str) -> State:
    """Return whether a stage is paused. Takes nothing.

    Raises:
        NotFound: There is no such queue; the channel is closed then.
    """
    found = await channel.declare_queue(pause_queue(app, stage), passive=True)
    if found.message_count:
        return State.PAUSED
    return State.UNKNOWN if found.consumer_count else State.RUNNING


async def pause(connection: Connection, app: str, stage: str, *, by: str, why: str = "") -> tuple[Pause, bool]:
    """Pause a stage. Its workers see it within a second.

    Args:
        connection: An open connection.
        app: The app's name.
        stage: The stage's name.
        by: Who pauses it.
        why: The reason, for others to read, of LONGEST_REASON characters at most.

    Returns:
        The pause that holds, and whether it is this one; a stage that is paused already stays as it is.

    Raises:
        UsageError: The reason is too long.
        PublishTimeout: The broker did not confirm in time, for instance because it is short of disk space.
        PublishRefused: The broker does not take the message, though the stage is not paused.
        NoSuchStage: The broker knows no such stage.
        Held: The stage is paused, and another consumer holds the message that says by whom.
    """
    if len(why) > LONGEST_REASON:
        raise UsageError(f"the reason for a pause has at most {LONGEST_REASON} characters, and this one has {len(why)}")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    mine = Pause(app, stage, _encodable(by), at, _encodable(why))
    properties = Properties(content_type="application/json", delivery_mode=2, type="Pause", app_id=app)
    until = asyncio.get_running_loop().time() + _PATIENCE
    while True:
        # First, since a broker with an alarm reads nothing more of this connection once it has published.
        if (found := await paused(connection, app, stage)) is not None:
            return found, False
        async with _opened(connection, app, stage) as channel:
            try:
                await channel.publish(
                    msgspec.json.encode(mine),
                    routing_key=pause_queue(app, stage),
                    properties=properties,
                    timeout=_PATIENCE,
                )
            except PublishRefused as error:
                refusal = error
            else:
                return mine, True
        # It was resumed meanwhile, or the broker refuses for another reason, such as a policy.
        if asyncio.get_running_loop().time() > until:
            raise refusal
        await asyncio.sleep(MOMENT)


async def resume(connection: Connection, app: str, stage: str) -> bool:
    """Resume a stage. Its workers see it within two seconds.

    Returns:
        Whether it was paused.

    Raises:
        NoSuchStage: The broker knows no such stage.
        Held: Another consumer holds the message of the pause.
    """
    queue = pause_queue(app, stage)
    dropped = looks = 0
    async with _opened(connection, app, stage) as channel:
        try:
            async with asyncio.timeout(_PATIENCE):
                while looks < 2:
                    if looks:
                        await asyncio.sleep(MOMENT)
                    dropped += await channel.purge_queue(queue)
                    if await look(channel, app, stage) is State.RUNNING:
                        looks += 1
                    else:  # a reader holds it, or somebody pauses it again
                        looks = 0
                        await asyncio.sleep(MOMENT)
        except TimeoutError as error:
            raise Held(
                f"stage {stage!r} of app {app!r} stays paused: another consumer keeps the message of queue {queue!r}; "
                "end that consumer"
            ) from error
    return dropped > 0


async def paused(connection: Connection, app: str, stage: str) -> Pause | None:
    """Return the pause of a stage, or None if it is not paused.

    Raises:
        NoSuchStage: The broker knows no such stage.
        Held: Another consumer holds the message.
    """
    queue = pause_queue(app, stage)
    async with _opened(connection, app, stage) as channel:
        if await look(channel, app, stage) is State.RUNNING:
            return None
        # Leaving a consumer's block first cancels the consumer and then returns the message; in between, the stage
        # would seem to be resumed. Closing the channel does both at (almost) the same time; see `MOMENT`.
        consumer = channel.consume(queue)
        await consumer.start()
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while loop.time() < until:
            try:
                async with asyncio.timeout(MOMENT):
                    return _read((await anext(consumer)).body, app, stage)
            except TimeoutError:  # another reader has it, or it was resumed
                found = await channel.declare_queue(queue, passive=True)
                if not found.message_count and found.consumer_count <= 1:
                    return None
    raise Held(f"can't read who paused stage {stage!r} of app {app!r}: another consumer keeps the message of {queue!r}")


@contextlib.asynccontextmanager
async def _opened(connection: Connection, app: str, stage: str) -> AsyncIterator[Channel]:
    """Open a channel while the block runs, if the broker knows the stage."""
    async with await connection.channel(prefetch=1) as channel:
        try:
            await look(channel, app, stage)
        except NotFound as error:
            raise NoSuchStage(
                f"app {app!r} has no stage {stage!r} on this broker: no worker or publisher of it was ever connected "
                "here, or it is older than pauses"
            ) from error
        yield channel


def _encodable(text: str) -> str:
    """Return text for JSON: bytes of a command line that are no UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def _read(body: bytes, app: str, stage: str) -> Pause:
    """Decode the message of a pause. A message of another form pauses the stage too."""
    try:
        read = _decode(body)
        by, at, why = (text[:LONGEST_REASON] for text in (read.by, read.at, read.why))
        return Pause(app, stage, by, at, why)
    except Undecodable:
        return Pause(app, stage)


_decode: Final = json_decoder(Pause)
