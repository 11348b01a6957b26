"""FastStream's program: publisher confirms and an ack after the handler, prefetch 200, msgspec for the types."""

import asyncio
import sys

from fast_depends.msgspec import MsgSpecSerializer
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from benchmarks.flow_peers import IN, OUT, URL, Item

broker = RabbitBroker(
    URL,
    default_channel=Channel(prefetch_count=200, publisher_confirms=True),
    serializer=MsgSpecSerializer(),
    logger=None,
)
queue = RabbitQueue(IN, durable=True)
app = FastStream(broker, logger=None)


@broker.publisher(RabbitQueue(OUT, durable=True), persist=True, mandatory=True)
@broker.subscriber(queue, ack_policy=AckPolicy.REJECT_ON_ERROR)
async def handle(item: Item) -> Item:
    """Increment the number."""
    return Item(item.n + 1, item.text)


async def fill(count: int) -> None:
    """Publish items."""
    async with broker:
        await broker.declare_queue(queue)
        for begin in range(0, count, 500):
            sending = (broker.publish(Item(n), queue=IN, persist=True) for n in range(begin, min(begin + 500, count)))
            await asyncio.gather(*sending)


async def work() -> None:
    """Work until killed."""
    await broker.connect()
    await broker.declare_queue(RabbitQueue(OUT, durable=True))
    await app.run()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[2])) if sys.argv[1] == "fill" else work())
