"""aio-pika: gathered publishes within a window, one by one, and consuming."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.peers._common import WINDOW, Task


def _message(task: Task) -> aio_pika.Message:
    return aio_pika.Message(task.body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, message_id=uuid.uuid4().hex)


async def _publish_one_by_one(task: Task) -> None:
    async with await aio_pika.connect(task.url) as connection:
        exchange = (await connection.channel(publisher_confirms=True)).default_exchange
        task.begin()
        for _ in range(task.count):
            await exchange.publish(_message(task), task.queue, mandatory=True)
        task.end()


async def _publish(task: Task) -> None:
    """Publish with a fixed number of publishers that draw from one counter, which keeps the window full."""
    async with await aio_pika.connect(task.url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = channel.default_exchange
        left = iter(range(task.count))

        async def publisher() -> None:
            for _ in left:
                await exchange.publish(_message(task), task.queue, mandatory=True)

        task.begin()
        await asyncio.gather(*(publisher() for _ in range(WINDOW)))
        task.end()


async def _consume(task: Task) -> None:
    async with await aio_pika.connect(task.url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=task.prefetch)
        queue = await channel.get_queue(task.queue)
        done = asyncio.Event()
        taken = 0

        async def take(message: AbstractIncomingMessage) -> None:
            nonlocal taken
            await message.ack()
            taken += 1
            if taken == task.count:
                done.set()

        task.begin()
        await queue.consume(take)
        await done.wait()
        task.end()


def _blocking(scenario: Callable[[Task], Coroutine[None, None, None]]) -> Callable[[Task], None]:
    return lambda task: asyncio.run(scenario(task))


if __name__ == "__main__":
    Task(
        {
            "publish": _blocking(_publish),
            "publish-one-by-one": _blocking(_publish_one_by_one),
            "consume": _blocking(_consume),
        }
    ).run()
