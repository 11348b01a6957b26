"""Publishing with confirms on both brokers: what is confirmed, returned, refused, late or lost."""

import asyncio

import pika
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.properties import FLAG_CONTENT_TYPE, FLAG_MESSAGE_ID, EncodedProperties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import ChannelClosed, NotFound, PreconditionFailed, UsageError


async def test_a_confirmed_message_is_on_its_queue(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("tasks", durable=True)
        await channel.publish(b"work", routing_key="tasks")
        delivery = await channel.get("tasks")
        assert delivery is not None
        assert delivery.body == b"work"
        assert delivery.routing_key == "tasks"
        assert delivery.exchange == ""
        assert delivery.properties.delivery_mode == 2
        assert delivery.properties.message_id
        delivery.ack()
        assert await channel.get("tasks") is None


async def test_all_properties_arrive_unchanged(broker_url: str) -> None:
    sent = Properties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={"n": 1, "big": 1 << 40, "nested": {"list": [1, "two", None, True]}, "bytes": b"\x00\xff"},
        delivery_mode=1,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="given",
        type="t",
        app_id="a",
    )
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"x", routing_key=queue, properties=sent)
        delivery = await channel.get(queue)
        assert delivery is not None
        assert delivery.properties == sent


async def test_a_message_without_properties_has_none_of_the_message_before_it(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        plain = Properties(content_type="text/plain")
        encoded = EncodedProperties(FLAG_CONTENT_TYPE | FLAG_MESSAGE_ID, b"\x01e", b"")
        for properties in (Properties(headers={"secret": 1}), None, plain, None, encoded, None, Properties(), None):
            await channel.send(b"x", routing_key=queue, properties=properties)
        await channel.wait_for_confirms()
        seen: list[tuple[object, object, object]] = []
        while (delivery := await channel.get(queue, no_ack=True)) is not None:
            arrived = delivery.properties
            seen.append((arrived.headers, arrived.content_type, arrived.delivery_mode))
        nothing = (None, None, 2)
        assert seen == [
            ({"secret": 1}, None, 2), nothing, (None, "text/plain", 2), nothing, (None, "e", None), nothing, nothing,
            nothing,
        ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1 << 20])
async def test_bodies_of_any_size_are_split_over_frames_and_joined(broker_url: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(body, routing_key=queue)
        delivery = await channel.get(queue)
        assert delivery is not None
        assert delivery.body == body


async def test_an_unroutable_mandatory_message_is_returned_and_others_are_confirmed(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        futures = [await channel.send(b"same", routing_key=queue if number % 3 else "nowhere") for number in range(90)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        returned = [number for number, result in enumerate(results) if isinstance(result, rabbitry.PublishReturned)]
        assert returned == list(range(0, 90, 3))
        assert all(result is None for number, result in enumerate(results) if number % 3)
        with pytest.raises(ExceptionGroup) as group:
            await channel.wait_for_confirms()
        assert len(group.value.exceptions) == 30
        await channel.wait_for_confirms()
        await channel.publish(b"dropped by choice", routing_key="nowhere", mandatory=False)


async def test_equal_messages_that_are_returned_are_interchangeable(broker_url: str) -> None:
    same = Properties(message_id="equal")
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        futures = [await channel.send(b"x", routing_key="nowhere", properties=same) for _ in range(10)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, rabbitry.PublishReturned) for result in results)


async def test_a_refused_message_raises_publish_refused(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        limits: Table = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = (await channel.declare_queue(exclusive=True, arguments=limits)).name
        await channel.publish(b"fits", routing_key=queue)
        with pytest.raises(rabbitry.PublishRefused):
            await channel.publish(b"does not", routing_key=queue)


async def test_a_404_fails_unconfirmed_messages_and_the_channel_reopens(
    broker_url: str,
) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        futures = [await channel.send(b"x", routing_key=queue) for _ in range(10)]
        futures.append(await channel.send(b"x", exchange="missing", routing_key=queue))
        futures += [await channel.send(b"x", routing_key=queue) for _ in range(10)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(results[10], NotFound)
        assert all(result is None or isinstance(result, NotFound) for result in results)
        assert all(isinstance(result, NotFound) for result in results[11:])
        assert not channel.is_open
        with pytest.raises(NotFound):
            await channel.publish(b"x", routing_key=queue)
        await channel.open()
        await channel.publish(b"again", routing_key=queue)
        assert connection.is_open


async def test_a_failed_declare_closes_its_channel_with_the_brokers_words(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        other = await connection.channel()
        await channel.declare_queue("q", durable=True)
        with pytest.raises(PreconditionFailed, match="inequivalent arg 'durable' for queue 'q'") as error:
            await channel.declare_queue("q", durable=False)
        assert error.value.reply_code == 406
        assert (error.value.class_id, error.value.method_id) == (50, 10)
        assert isinstance(channel.close_reason, ChannelClosed)
        assert other.is_open
        await other.delete_queue("q")


async def test_cancelling_a_publish_leaves_the_channel_in_order(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        task = asyncio.create_task(channel.publish(b"given up", routing_key=queue))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await channel.publish(b"next", routing_key=queue)
        await channel.wait_for_confirms()


async def test_values_without_an_amqp_type_are_refused_before_sending(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        with pytest.raises(UsageError, match="255"):
            await channel.publish(b"x", routing_key="k" * 256)
        with pytest.raises(UsageError, match="'a': set"):
            await channel.publish(b"x", routing_key="k", properties=Properties(headers={"a": {1, 2}}))  # type: ignore[dict-item] # on purpose
        assert channel.is_open


async def test_closing_fails_unconfirmed_messages(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        future = await channel.send(b"x", routing_key=queue)
        await channel.close()
        result = (await asyncio.gather(future, return_exceptions=True))[0]
        assert result is None or isinstance(result, ChannelClosed)
        with pytest.raises(ChannelClosed):
            await channel.publish(b"x", routing_key=queue)


async def test_a_lone_message_goes_at_once_with_the_acks_before_it_and_others_together(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"x", routing_key=queue)
        async with channel.consume(queue) as deliveries:
            delivery = await anext(deliveries)
            assert connection._session.link is not None
            driver = connection._session.link.driver
            before = driver.bytes_sent
            delivery.ack()
            await channel.send(b"y" * 100, routing_key=queue)
            assert driver.unsent == 0
            assert driver.bytes_sent - before > 21 + 100  # an ack, and the message
            sent = driver.bytes_sent
            await channel.send(b"z" * 100, routing_key=queue)
            assert driver.bytes_sent == sent
            assert driver.unsent > 100
            await channel.wait_for_confirms()


async def test_a_direct_reply_is_no_failure_although_the_broker_returns_it(broker_url: str) -> None:
    """RabbitMQ returns a mandatory direct reply, and delivers it: its consumer is no queue."""
    asked = Properties(reply_to="amq.rabbitmq.reply-to", correlation_id="1")
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("requests")
        async with channel.consume("amq.rabbitmq.reply-to", no_ack=True) as replies:
            for _ in range(2):
                await channel.publish(b"?", routing_key="requests", properties=asked)
            addresses = []
            for _ in range(2):
                request = await channel.get("requests", no_ack=True)
                assert request is not None
                addresses.append(request.properties.reply_to or "")
            await channel.publish(b"ours", routing_key=addresses[0])
            returned = await asyncio.to_thread(_reply_of_pika, broker_url, addresses[1])
            assert [(await anext(replies)).body for _ in range(2)] == [b"ours", b"pika's"]
    assert returned == [b"pika's"]


def _reply_of_pika(url: str, address: str) -> list[bytes]:
    """Publish a mandatory reply with pika, and return what the broker returned."""
    returned: list[bytes] = []
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.add_on_return_callback(lambda _channel, _method, _properties, body: returned.append(body))
        channel.basic_publish("", address, b"pika's", mandatory=True)
        channel.queue_declare("requests", passive=True)  # answered after the publish
        connection.process_data_events(0)
    finally:
        connection.close()
    return returned
