"""Several queues in one iteration."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

import rabbitry
from rabbitry.exceptions import ConsumerCancelled, NotFound, UsageError
from tests.support.waiting import WITHIN


async def test_all_queues_are_consumed_and_the_rest_is_requeued(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queues = [(await channel.declare_queue("", exclusive=True)).name for _ in range(3)]
        for queue in queues:
            for _ in range(300):
                await channel.send(queue.encode(), routing_key=queue)
        await channel.wait_for_confirms()
        seen: list[str] = []
        async with channel.consume_all(queues) as deliveries:
            async for delivery in deliveries:
                assert delivery.body == delivery.routing_key.encode()
                seen.append(delivery.routing_key)
                delivery.ack()
                if len(seen) == 850:
                    break
        assert set(seen) == set(queues)
        assert sum([await channel.purge_queue(queue) for queue in queues]) == 50


async def test_a_queue_that_is_deleted_ends_the_iteration(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queues = [(await channel.declare_queue("", exclusive=True)).name for _ in range(2)]
        async with channel.consume_all(queues) as deliveries:
            await channel.delete_queue(queues[1])
            with pytest.raises(ConsumerCancelled):
                await anext(deliveries)


async def test_a_missing_queue_is_an_error_on_entering(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue("", exclusive=True)).name
        with pytest.raises(UsageError, match="needs at least one queue"):
            channel.consume_all([])
        with pytest.raises(NotFound):
            await channel.consume_all([queue, "no-such-queue"]).__aenter__()


def test_blocking_consumers_iterate_over_all_queues(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel()
        queues = [channel.declare_queue("", exclusive=True).name for _ in range(2)]
        for queue in queues:
            channel.publish(b"x", routing_key=queue)
        with channel.consume_all(queues) as deliveries:
            seen = set()
            for _ in queues:
                delivery = deliveries.next(timeout=90)
                seen.add(delivery.routing_key)
                delivery.ack()
        assert seen == set(queues)


@pytest.mark.parametrize("give_back", [True, False])
async def test_cancelling_all_ends_the_iteration(broker_url: str, give_back: bool) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=5)
        queues = [(await channel.declare_queue("", exclusive=True)).name for _ in range(2)]
        for queue in queues * 3:
            await channel.publish(b"x", routing_key=queue)
        async with channel.consume_all(queues) as deliveries, asyncio.timeout(WITHIN):
            (await anext(deliveries)).ack()
            await deliveries.cancel(give_back=give_back)
            left = 0
            async for delivery in deliveries:
                delivery.ack()
                left += 1
            with pytest.raises(StopAsyncIteration):
                await anext(deliveries)
            await deliveries.cancel()
        requeued = sum([await channel.purge_queue(queue) for queue in queues])
        assert left + requeued == 5
        assert not (give_back and left)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("give_back", [True, False])
def test_another_thread_can_end_the_iteration(broker_url: str, give_back: bool, several: bool) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel(prefetch=5)
        queue = channel.declare_queue("", exclusive=True).name
        for _ in range(5):
            channel.publish(b"x", routing_key=queue)
        with channel.consume_all([queue]) if several else channel.consume(queue) as deliveries:
            for _ in range(4):  # the fifth one waits here, or is on its way
                deliveries.next(timeout=WITHIN).ack()
            deliveries.cancel(give_back=give_back)
            with ThreadPoolExecutor(1) as threads:
                left = threads.submit(lambda: list(deliveries)).result(WITHIN)
            for delivery in left:
                delivery.ack()
        assert len(left) + channel.purge_queue(queue) == 1
        assert not (give_back and left)
