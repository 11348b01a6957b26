"""Publishes the numbers 0 to 100000 to worker_queue."""

import asyncio

import rabbitry


async def main() -> None:
    async with rabbitry.connect() as connection:
        channel = await connection.channel()
        await channel.declare_queue("worker_queue", durable=True)
        for number in range(100_001):
            await channel.send(str(number).encode(), routing_key="worker_queue")
        await channel.wait_for_confirms()


asyncio.run(main())
