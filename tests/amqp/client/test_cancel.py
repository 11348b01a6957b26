"""A consumer that the broker cancels (raised, or restarted with restore=True), and late settlements."""

import asyncio

import pika
import pytest

import rabbitry
from rabbitry.amqp.protocol.methods import BasicCancel, BasicConsumeOk
from rabbitry.exceptions import DeliveryTimeoutCancelled, DeliveryTimeoutClosed, PreconditionFailed, channel_closed
from rabbitry.runtime import backoff
from rabbitry.runtime.backoff import Backoff
from tests.support.rabbitmq import RabbitMQ
from tests.support.scripted import ScriptedBroker
from tests.support.waiting import eventually


async def test_deleting_the_queue_raises_consumer_cancelled(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel, other = await connection.channel(), await connection.channel()
        queue = (await channel.declare_queue("goes")).name
        async with channel.consume(queue) as deliveries:
            await other.delete_queue(queue)
            with pytest.raises(rabbitry.ConsumerCancelled, match="goes"):
                await anext(deliveries)


async def test_a_consumer_with_restore_is_restarted_after_its_queue_is_deleted(no_leaks: None, broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue("comes-back")).name
        await channel.declare_exchange("there", "fanout")
        await channel.bind_queue(queue, "there")
        async with channel.consume(queue, restore=True) as deliveries:
            with await asyncio.to_thread(pika.BlockingConnection, pika.URLParameters(broker_url)) as other:
                await asyncio.to_thread(other.channel().queue_delete, queue)
            publisher = await connection.channel()

            async def published() -> None:
                while True:
                    try:
                        await publisher.publish(b"again", exchange="there")
                        return
                    except rabbitry.PublishReturned:
                        await asyncio.sleep(0.05)

            async with asyncio.timeout(90):
                await published()
                delivery = await anext(deliveries)
            assert delivery.body == b"again"
            delivery.ack()
        await channel.delete_queue(queue)
        await channel.delete_exchange("there")


async def test_a_consumer_waiting_to_be_restarted_can_be_cancelled(no_leaks: None, broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection, rabbitry.connect(broker_url) as other:
        declaring = await other.channel()
        queue = (await declaring.declare_queue("stays-away")).name
        channel = await connection.channel()
        async with channel.consume(queue, restore=True):
            await declaring.delete_queue(queue)
            await channel.publish(b"x", routing_key=queue, mandatory=False)
        assert channel.is_open


async def test_a_slow_restart_starts_the_consumer_once(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second basic.consume with its tag would cost the connection (530)."""
    monkeypatch.setattr(backoff, "AGAIN", Backoff(0.4, 0.02))
    async with ScriptedBroker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        async with channel.consume("q", restore=True) as deliveries:
            connection.request_timeout = 0.5
            peer = broker.links[0]
            peer.agrees = False
            peer.send(1, BasicCancel(deliveries.consumer_tag, True))
            await eventually(lambda: len(peer.consumed) == 2, "it is asked for again")
            await asyncio.sleep(0.8)  # longer than the request timeout
            peer.send(1, BasicConsumeOk(deliveries.consumer_tag))
            peer.deliver(deliveries.consumer_tag, 1, b"late")
            async with asyncio.timeout(90):
                assert (await anext(deliveries)).body == b"late"
            assert len(peer.consumed) == 2
            connection.request_timeout = 60
        assert connection.is_open


async def test_a_late_settlement_is_a_delivery_timeout() -> None:
    text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms"
    error = channel_closed(406, text, 0, 0)
    assert isinstance(error, DeliveryTimeoutClosed)
    assert isinstance(error, rabbitry.DeliveryTimeout)
    assert isinstance(error, PreconditionFailed)
    assert isinstance(error.fresh(), rabbitry.DeliveryTimeout)
    assert "ack earlier" in str(error)
    cancelled = DeliveryTimeoutCancelled("tag", "queue")
    assert isinstance(cancelled, rabbitry.DeliveryTimeout)
    assert isinstance(cancelled, rabbitry.ConsumerCancelled)
    assert "ack earlier" in str(cancelled)


async def test_rabbitmq_closes_the_channel_of_a_late_consumer(own_rabbitmq: RabbitMQ) -> None:
    own_rabbitmq.eval("application:set_env(rabbit, consumer_timeout, 2000).")
    own_rabbitmq.eval("application:set_env(rabbit, channel_tick_interval, 500).")
    async with rabbitry.connect(own_rabbitmq.url) as connection:
        channel = await connection.channel(prefetch=1)
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"slow", routing_key=queue)
        async with channel.consume(queue) as deliveries:
            await anext(deliveries)
            await eventually(lambda: not channel.is_open, "the end of the channel")
            with pytest.raises(rabbitry.DeliveryTimeout, match="raise consumer_timeout"):
                await anext(deliveries)


async def test_waits_time_out(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection:
        with pytest.raises(rabbitry.RequestTimeout, match="still open"):
            await connection.wait_closed(timeout=0.01)
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        consumer = channel.consume(queue)
        await consumer.start(timeout=90)
        await consumer.cancel(timeout=90)
        await connection.close(timeout=90)
