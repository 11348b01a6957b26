"""Uses the client's public names, for type checkers."""

from __future__ import annotations

import rabbitry


async def asynchronous(url: str) -> list[str]:
    async with rabbitry.connect(url, heartbeat=20, on_recovery=lambda event: print(event.kind)) as connection:
        channel: rabbitry.Channel = await connection.channel(prefetch=10)
        info: rabbitry.QueueInfo = await channel.declare_queue("q", durable=True, arguments={"x-expires": 1000})
        receipt: rabbitry.Receipt = await channel.send(b"x", routing_key=info.name)
        await receipt
        await channel.publish(b"x", properties=rabbitry.Properties(headers={"h": 1}))
        found = await channel.get("q")
        bodies = [receipt.message_id, "" if found is None else found.body.decode()]
        async with channel.consume("q") as deliveries:
            async for delivery in deliveries:
                async with delivery.process(requeue=(OSError,), requeue_once=True):
                    bodies.append(delivery.properties.message_id or "")
                break
        async with channel.consume_all(["q", "r"]) as both:
            async for delivery in both:
                delivery.nack(requeue=False)
        async with (await connection.channel(confirms=False)).transaction():
            pass
        return bodies


def blocking(url: str) -> int:
    with rabbitry.connect_blocking(url) as connection, connection.channel() as channel:
        receipt: rabbitry.BlockingReceipt = channel.send(b"x", routing_key="q")
        receipt.result(1)
        channel.publish(b"x", routing_key="q")
        channel.bind_queue("q", "amq.topic", "a.#")
        with channel.consume("q") as deliveries:
            first: rabbitry.BlockingDelivery = deliveries.next(timeout=1)
            with first.process():
                print(first.body)
        return channel.purge_queue("q")


app = rabbitry.App("typed")


@app.stage("in")
def handle(text: str, message: rabbitry.Message) -> str:
    return f"{text} {message.id}"


async def publish() -> str:
    async with app.publisher() as publisher:
        receipt = await publisher.send("x", key="in")
        return receipt.message_id
