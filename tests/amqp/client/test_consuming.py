"""Consuming on both brokers: prefetch, settlement, cancelling from either side."""

import asyncio

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Delivery
from rabbitry.exceptions import AlreadySettled, ChannelClosed, ConsumerCancelled, ResourceLocked, UsageError


async def _fill(channel: Channel, queue: str, count: int) -> None:
    for number in range(count):
        await channel.send(b"%d" % number, routing_key=queue)
    await channel.wait_for_confirms()


async def test_deliveries_come_in_order_and_are_settled_once(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=10)
        await channel.declare_queue("q", durable=True)
        await _fill(channel, "q", 100)
        bodies = []
        async with channel.consume("q") as deliveries:
            async for delivery in deliveries:
                bodies.append(delivery.body)
                delivery.ack()
                with pytest.raises(AlreadySettled):
                    delivery.ack()
                with pytest.raises(AlreadySettled):
                    delivery.nack()
                if len(bodies) == 100:
                    break
        assert bodies == [b"%d" % number for number in range(100)]
        assert (await channel.declare_queue("q", passive=True)).message_count == 0


async def test_leaving_the_block_requeues_unsettled_messages_in_place(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=5)
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 10)
        async with channel.consume(queue) as deliveries:
            first = await anext(deliveries)
            await anext(deliveries)
            first.ack()
        bodies = []
        for _ in range(9):
            delivery = await channel.get(queue, no_ack=True)
            assert delivery is not None
            bodies.append((delivery.body, delivery.redelivered))
        assert [body for body, _ in bodies] == [b"%d" % number for number in range(1, 10)]
        assert bodies[0][1]
        assert not bodies[-1][1]


async def test_prefetch_bounds_unsettled_messages(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=3)
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 10)
        async with channel.consume(queue) as deliveries:
            held = [await anext(deliveries) for _ in range(3)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(deliveries)
            held[2].ack(multiple=True)
            assert (await anext(deliveries)).body == b"3"


async def test_settling_out_of_order_acks_each_and_only_each(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=10)
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 10)
        async with channel.consume(queue) as deliveries:
            held = [await anext(deliveries) for _ in range(10)]
            for number in (9, 3, 0, 1, 6):
                held[number].ack()
            held[2].nack(requeue=False)
            held[4].reject(requeue=False)
        left = []
        while (delivery := await channel.get(queue, no_ack=True)) is not None:
            left.append(delivery.body)
        assert left == [b"5", b"7", b"8"]


async def test_a_nacked_message_is_redelivered(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=1)
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 1)
        async with channel.consume(queue) as deliveries:
            first = await anext(deliveries)
            assert not first.redelivered
            first.nack()
            second = await anext(deliveries)
            assert second.redelivered
            assert second.body == first.body
            second.ack()


async def test_deleting_the_queue_cancels_its_consumer(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue()).name
        async with channel.consume(queue) as deliveries:
            await channel.delete_queue(queue)
            with pytest.raises(ConsumerCancelled, match=queue):
                await anext(deliveries)
        assert channel.is_open


async def test_a_closed_channel_ends_the_iteration_with_its_cause(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 1)
        async with channel.consume(queue) as deliveries:
            delivery = await anext(deliveries)
            with pytest.raises(rabbitry.ChannelClosed):
                await channel.declare_exchange("amq.reserved")
            with pytest.raises(ChannelClosed, match="403"):
                await anext(deliveries)
            with pytest.raises(AlreadySettled):
                delivery.ack()
        await channel.open()
        again = await channel.get(queue)
        assert again is not None
        assert again.redelivered


async def test_an_exclusive_queue_is_locked_to_others(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as owner, rabbitry.connect(broker_url) as other:
        queue = (await (await owner.channel()).declare_queue(exclusive=True)).name
        channel = await other.channel()
        with pytest.raises(ResourceLocked, match="405"):
            await channel.declare_queue(queue, passive=True)


async def test_a_no_ack_consumer_gets_all_messages(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=1)
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 500)
        async with channel.consume(queue, no_ack=True) as deliveries:
            taken = [(await anext(deliveries)) for _ in range(500)]
            with pytest.raises(AlreadySettled):
                taken[0].ack()
        assert [delivery.body for delivery in taken] == [b"%d" % number for number in range(500)]


async def test_cancelling_a_get_requeues_the_message(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 1)
        task: asyncio.Task[Delivery | None] = asyncio.create_task(channel.get(queue))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(90):
            while (again := await channel.get(queue)) is None:  # noqa: ASYNC110 - no event tells that it came back
                await asyncio.sleep(0.01)
        assert again.redelivered


async def test_misuse_raises_a_usage_error(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        consumer = channel.consume(queue)
        with pytest.raises(UsageError, match="async with"):
            await anext(consumer)
        async with consumer:
            with pytest.raises(UsageError, match="once"):
                await consumer.__aenter__()
        with pytest.raises(StopAsyncIteration):
            await anext(consumer)


async def test_flags_of_a_settlement_are_keywords_so_that_ported_ones_settle_nothing(broker_url: str) -> None:
    """Pika and aio-pika have `nack(multiple, requeue)`: their `nack(False)` would drop the message here."""
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await _fill(channel, queue, 1)
        delivery = await channel.get(queue)
        assert delivery is not None
        for settle in (delivery.ack, delivery.nack, delivery.reject):
            with pytest.raises(TypeError, match="positional"):
                settle(False)  # type: ignore[call-arg] # as ported programs do
        delivery.nack(requeue=True)


def test_flags_of_a_settlement_are_keywords_in_scripts_too(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True).name
        channel.publish(b"precious", routing_key=queue)
        delivery = channel.get(queue)
        assert delivery is not None
        for settle in (delivery.ack, delivery.nack, delivery.reject):
            with pytest.raises(TypeError, match="positional"):
                settle(False)  # type: ignore[call-arg] # as ported programs do
        delivery.ack()


async def test_cancelling_with_give_back_false_yields_deliveries_in_flight(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=200)
        await channel.declare_queue("q", durable=True)
        await _fill(channel, "q", 2000)
        taken: list[Delivery] = []
        consumer = channel.consume("q")

        async def take() -> None:
            async for delivery in consumer:
                taken.append(delivery)
                if len(taken) == 200:
                    for known in taken:
                        known.ack()  # upon which the broker sends as many again
                    cancelling.append(asyncio.create_task(consumer.cancel(give_back=False)))

        cancelling: list[asyncio.Task[None]] = []
        async with consumer:
            await take()
            await cancelling[0]
            for delivery in taken[200:]:
                delivery.ack()
        left = (await channel.declare_queue("q", passive=True)).message_count
        assert left + len(taken) == 2000, "nothing that was delivered stays unsettled"
        assert [delivery.body for delivery in taken] == [b"%d" % number for number in range(len(taken))]
