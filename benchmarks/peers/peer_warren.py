"""Warren's own client, measured as its peers are."""

import asyncio

import warren
from benchmarks.peers._common import BODY, Task


async def _publish(task: Task) -> None:
    async with warren.connect(task.url) as connection:
        channel = await connection.channel()
        task.begin()
        for _ in range(task.count):
            await channel.send(BODY, routing_key=task.queue)
        await channel.wait_for_confirms()
        task.end()


async def _publish_one_by_one(task: Task) -> None:
    async with warren.connect(task.url) as connection:
        channel = await connection.channel()
        task.begin()
        for _ in range(task.count):
            await channel.publish(BODY, routing_key=task.queue)
        task.end()


async def _consume(task: Task) -> None:
    async with warren.connect(task.url) as connection:
        channel = await connection.channel(prefetch=task.prefetch)
        left = task.count
        task.begin()
        async with channel.consume(task.queue) as deliveries:
            async for delivery in deliveries:
                delivery.ack()
                left -= 1
                if not left:
                    break
        task.end()


if __name__ == "__main__":
    Task(
        {
            "publish": lambda task: asyncio.run(_publish(task)),
            "publish-one-by-one": lambda task: asyncio.run(_publish_one_by_one(task)),
            "consume": lambda task: asyncio.run(_consume(task)),
        }
    ).run()
