"""What the tests of flow share: an app's messages and its dead letters."""

import asyncio
from collections import Counter
from collections.abc import Sequence, Set

import rabbitry
from rabbitry.amqp.client import Channel, Properties
from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.wiring.dead_letters import DeadLetter
from tests.support.waiting import WITHIN, Looks, eventually, eventually_awaited


async def dead_of(url: str, app: rabbitry.App) -> list[DeadLetter]:
    """Return all dead letters of an app."""
    async with rabbitry.connect(url) as connection:
        return [letter async for letter in dead_letters.letters(connection, app.name)]


async def counts(url: str, queues: Sequence[str]) -> dict[str, int]:
    """Return how many messages are ready in each queue; -1 where it does not exist."""
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        return {queue: await _ready(channel, queue) for queue in queues}


async def _ready(channel: Channel, queue: str) -> int:
    try:
        return (await channel.declare_queue(queue, passive=True)).message_count
    except rabbitry.ChannelClosed:
        await channel.open()
        return -1


async def bodies(url: str, queue: str) -> list[bytes]:
    """Take all that is in a queue, which nobody publishes to any more."""
    taken: list[bytes] = []
    async with rabbitry.connect(url) as connection, await connection.channel(prefetch=0) as channel:
        left = (await channel.declare_queue(queue, passive=True)).message_count
        async with channel.consume(queue, no_ack=True) as deliveries:
            while len(taken) < left:
                taken.append((await anext(deliveries)).body)
    return taken


async def gathered(
    url: str, queues: Sequence[str], wanted: Set[str], *, within: float = 100.0
) -> dict[str, Counter[str]]:
    """Take messages out of queues until each of the wanted bodies has come out of one; return them by queue.

    Where something dies on the way, neither a number of messages tells that all have come, since some come twice, nor
    an empty queue, since the rest may be in hand or come again.
    """
    found: dict[str, Counter[str]] = {queue: Counter() for queue in queues}

    async def take(channel: Channel, queue: str) -> None:
        async with channel.consume(queue) as deliveries:
            async for delivery in deliveries:
                found[queue][delivery.body.decode()] += 1
                delivery.ack()

    def absent() -> set[str]:
        return set(wanted).difference(*found.values())

    async with rabbitry.connect(url) as connection:
        tasks = [asyncio.create_task(take(await connection.channel(), queue)) for queue in queues]
        try:
            await eventually(
                lambda: not absent() or any(task.done() for task in tasks), "all that is wanted", within=within
            )
        except AssertionError as error:
            came = {queue: len(bodies) for queue, bodies in found.items()}
            raise AssertionError(f"{len(absent())} absent: {sorted(absent())[:10]}; came from each: {came}") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    return found


async def eventually_all_dead(url: str, app: rabbitry.App, wanted: Set[bytes]) -> None:
    """Wait until there is a dead letter with each of these bodies; some may be there twice."""
    await eventually_holds(url, f"{app.name}.dead", len(wanted), at_least=True)
    await eventually_awaited(lambda: _are_dead(url, app, wanted), f"dead letters with {sorted(wanted)[:10]}")


async def _are_dead(url: str, app: rabbitry.App, wanted: Set[bytes]) -> bool:
    return {letter.body for letter in await dead_of(url, app)} >= wanted


async def put(url: str, queue: str, body: bytes, properties: Properties | None = None) -> None:
    """Publish straight to a queue."""
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.publish(body, routing_key=queue, properties=properties)


async def eventually_holds(url: str, queue: str, number: int, *, within: float = 80.0, at_least: bool = False) -> None:
    """Wait until so many messages are ready in a queue."""
    looks = Looks(within)
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        while (found := await _ready(channel, queue)) != number and not (at_least and found > number):
            await asyncio.sleep(looks.pause(f"{number} messages in {queue}: {found}"))
            looks.begin()


async def eventually_dead(url: str, app: rabbitry.App, number: int) -> None:
    """Wait until an app has so many dead letters, or more."""
    await eventually_holds(url, f"{app.name}.dead", number, at_least=True)


async def eventually_consumed(url: str, queue: str, number: int, *, within: float = WITHIN) -> int:
    """Wait until a queue has so many consumers, and return how many messages are ready then.

    With no consumer left, that is all that there are: the broker gives back what a consumer had when it drops it.
    """
    looks = Looks(within)
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        while True:
            found = -1
            try:
                info = await channel.declare_queue(queue, passive=True)
                found = info.consumer_count
                if found == number:
                    return info.message_count
            except rabbitry.ChannelClosed:
                await channel.open()
            await asyncio.sleep(looks.pause(f"{number} consumers of {queue}: {found}"))
            looks.begin()
