"""What the tests of flow share: an app's messages and its dead letters."""

import asyncio
from collections.abc import Sequence, Set

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow import dead
from rabbitry.flow.dead import DeadLetter


async def dead_of(url: str, app: rabbitry.App) -> list[DeadLetter]:
    """Give all dead letters of an app."""
    async with rabbitry.connect(url) as connection:
        return [letter async for letter in dead.letters(connection, app.name)]


async def counts(url: str, queues: Sequence[str]) -> dict[str, int]:
    """Give how many messages are ready in each queue; -1 where it does not exist."""
    found = {}
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        for queue in queues:
            try:
                found[queue] = (await channel.declare_queue(queue, passive=True)).message_count
            except rabbitry.ChannelClosed:
                found[queue] = -1
                await channel.open()
    return found


async def bodies(url: str, queue: str) -> list[bytes]:
    """Take all that is in a queue."""
    taken: list[bytes] = []
    async with rabbitry.connect(url) as connection, await connection.channel(prefetch=0) as channel:
        left = (await channel.declare_queue(queue, passive=True)).message_count
        async with channel.consume(queue, no_ack=True) as deliveries:
            while len(taken) < left:
                taken.append((await anext(deliveries)).body)
    return taken


async def eventually_all(url: str, queue: str, wanted: Set[bytes], *, within: float = 80.0) -> list[bytes]:
    """Take what comes to a queue until each wanted body came, and return what was taken.

    After a kill a body may come twice: then a number of messages says nothing of whether all are there.
    """
    taken: list[bytes] = []
    async with rabbitry.connect(url) as connection, await connection.channel(prefetch=0) as channel:
        try:
            async with asyncio.timeout(within), channel.consume(queue, no_ack=True) as deliveries:
                while not wanted <= set(taken):
                    taken.append((await anext(deliveries)).body)
        except TimeoutError:
            raise AssertionError(f"{sorted(wanted - set(taken))} did not come to {queue}") from None
    return taken


async def put(url: str, queue: str, body: bytes, properties: Properties | None = None) -> None:
    """Publish straight to a queue."""
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.publish(body, routing_key=queue, properties=properties)


async def eventually_holds(url: str, queue: str, number: int, *, within: float = 80.0, at_least: bool = False) -> None:
    """Wait until so many messages are ready in a queue."""
    deadline = asyncio.get_running_loop().time() + within
    while (found := (await counts(url, [queue]))[queue]) != number and not (at_least and found > number):
        assert asyncio.get_running_loop().time() < deadline, f"{found} messages in {queue}, not {number}"
        await asyncio.sleep(0.02)


async def eventually_dead(url: str, app: rabbitry.App, number: int) -> None:
    """Wait until an app has so many dead letters, or more."""
    await eventually_holds(url, f"{app.name}.dead", number, at_least=True)


async def eventually_consumed(url: str, queue: str, number: int, *, within: float = 60.0) -> int:
    """Wait until a queue has so many consumers, and return how many messages are ready then.

    With no consumer left, that is all that there are: the broker gives back what a consumer had when it drops it.
    """
    deadline = asyncio.get_running_loop().time() + within
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
            assert asyncio.get_running_loop().time() < deadline, f"{found} consumers of {queue}, not {number}"
            await asyncio.sleep(0.02)
