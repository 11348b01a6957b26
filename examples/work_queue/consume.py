"""Takes numbers from worker_queue; any number of these may run. Ctrl-C ends it."""

import asyncio

import rabbitry


async def main() -> None:
    async with rabbitry.connect() as connection:
        channel = await connection.channel(prefetch=10)
        await channel.declare_queue("worker_queue", durable=True)
        async with channel.consume("worker_queue") as deliveries:
            async for delivery in deliveries:
                print(delivery.body.decode(), flush=True)
                delivery.ack()


asyncio.run(main())
