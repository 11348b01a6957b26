"""A lease belongs to one channel at a time; on both brokers."""

import asyncio

import rabbitry
from rabbitry.flow.message import Publication
from rabbitry.flow.wiring.keys import hashed, key_slot_arguments, key_slot_queue
from rabbitry.flow.worker._leases import waited
from tests.support.waiting import eventually


async def test_the_next_one_has_the_lease_when_the_channel_of_the_first_is_closed(broker_url: str) -> None:
    queue = key_slot_queue("shop", "pay", hashed("alice"), 1)
    order: list[int] = []
    leave = [asyncio.Event() for _ in range(3)]
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as publishing:

        async def publish(message: Publication) -> None:
            await publishing.publish(message.body, routing_key=message.routing_key, mandatory=False)

        async def hold(number: int) -> None:
            async with await connection.channel(prefetch=1) as channel:
                await channel.declare_queue(queue, durable=True, arguments=key_slot_arguments(), restore=False)
                await waited(channel, queue, publish, is_unused=number == 0)
                order.append(number)
                await leave[number].wait()

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(hold(number))
            for count in (1, 2, 3):
                await eventually(lambda count=count: len(order) == count, "the next one")  # type: ignore[misc] # of a lambda
                # Two further tokens give nobody a lease.
                for _ in range(2):
                    await publishing.publish(b"", routing_key=queue)
                info = await publishing.declare_queue(queue, passive=True)
                assert (len(order), info.consumer_count) == (count, 4 - count)
                leave[order[-1]].set()
    assert sorted(order) == [0, 1, 2]
