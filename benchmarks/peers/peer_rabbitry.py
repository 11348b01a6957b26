"""Rabbitry's own client, measured like its peers."""

import asyncio
import time

import psutil

import rabbitry
from benchmarks.peers._common import Task


async def _publish(task: Task) -> None:
    async with rabbitry.connect(task.url) as connection:
        channel = await connection.channel()
        task.begin()
        for _ in range(task.count):
            await channel.send(task.body, routing_key=task.queue)
        await channel.wait_for_confirms()
        task.end()


async def _publish_one_by_one(task: Task) -> None:
    async with rabbitry.connect(task.url) as connection:
        channel = await connection.channel()
        task.begin()
        for _ in range(task.count):
            await channel.publish(task.body, routing_key=task.queue)
        task.end()


async def _consume(task: Task) -> None:
    async with rabbitry.connect(task.url) as connection:
        channel = await connection.channel(prefetch=task.prefetch)
        left = task.count
        task.begin()
        async with channel.consume(task.queue) as deliveries:
            async for delivery in deliveries:
                delivery.ack()
                left -= 1
                if not left:
                    task.end()  # as for the C client, before basic.cancel, which takes RabbitMQ a few milliseconds
                    break


async def _ping(task: Task, *, confirms: bool) -> None:
    async with rabbitry.connect(task.url) as connection:
        channel = await connection.channel(prefetch=task.prefetch, confirms=confirms)
        async with channel.consume(task.queue) as deliveries:
            task.begin()
            for _ in range(task.count):
                began = time.perf_counter()
                await channel.send(task.body, routing_key=task.queue)
                delivery = await anext(deliveries)
                task.took.append(time.perf_counter() - began)
                delivery.ack()
            task.end()


async def _through(task: Task) -> None:
    """Publish and consume at once, and sample the memory after each twentieth."""
    async with rabbitry.connect(task.url) as connection:
        sending, taking = await connection.channel(), await connection.channel(prefetch=task.prefetch)

        async def send() -> None:
            for _ in range(task.count):
                await sending.send(task.body, routing_key=task.queue)
            await sending.wait_for_confirms()

        task.begin()
        publisher = asyncio.create_task(send())
        taken = 0
        async with taking.consume(task.queue) as deliveries:
            async for delivery in deliveries:
                delivery.ack()
                taken += 1
                if taken % (task.count // 20) == 0:
                    task.rss.append(psutil.Process().memory_info().rss)
                if taken == task.count:
                    break
        await publisher
        task.end()


if __name__ == "__main__":
    Task(
        {
            "publish": lambda task: asyncio.run(_publish(task)),
            "publish-one-by-one": lambda task: asyncio.run(_publish_one_by_one(task)),
            "consume": lambda task: asyncio.run(_consume(task)),
            "ping": lambda task: asyncio.run(_ping(task, confirms=False)),
            "ping-confirmed": lambda task: asyncio.run(_ping(task, confirms=True)),
            "through": lambda task: asyncio.run(_through(task)),
        }
    ).run()
