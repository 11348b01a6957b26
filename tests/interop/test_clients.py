"""pika, aio-pika and kombu as plain clients: each reads the others' messages, on both brokers."""

import asyncio
import importlib
from datetime import UTC, datetime
from typing import Any

import aio_pika
import pika
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import Table

kombu: Any = importlib.import_module("kombu")  # kombu has no types

_BODY = b'{"cpu": 0.5}'
_HEADERS: Table = {"n": 7, "text": "ü", "flag": True, "nested": {"list": [1, 2]}}
_WHEN = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def _pika_publish(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=2, headers=_HEADERS, message_id="m", priority=1
        )
        channel.basic_publish("", queue, _BODY, properties, mandatory=True)


def _pika_get(url: str, queue: str) -> tuple[Any, bytes]:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for method, properties, body in channel.consume(queue, inactivity_timeout=60):
            assert method is not None, "nothing came"
            channel.basic_ack(method.delivery_tag)
            channel.cancel()
            return properties, body
    raise AssertionError("nothing came")


async def _rabbitry_publish(url: str, queue: str) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True)
        properties = Properties(
            content_type="application/json", headers=_HEADERS, message_id="m", timestamp=_WHEN, priority=1
        )
        await channel.publish(_BODY, routing_key=queue, properties=properties)


async def _rabbitry_get(url: str, queue: str) -> rabbitry.Properties:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        async with channel.consume(queue) as deliveries:
            delivery = await anext(deliveries)
            delivery.ack()
            assert delivery.body == _BODY
            return delivery.properties


async def test_pika_publishes_and_we_read(broker_url: str) -> None:
    await asyncio.to_thread(_pika_publish, broker_url, "q")
    properties = await _rabbitry_get(broker_url, "q")
    assert properties.headers == _HEADERS
    assert (properties.content_type, properties.delivery_mode, properties.priority) == ("application/json", 2, 1)


async def test_we_publish_and_pika_reads(broker_url: str) -> None:
    await _rabbitry_publish(broker_url, "q")
    properties, body = await asyncio.to_thread(_pika_get, broker_url, "q")
    assert body == _BODY
    assert properties.headers == _HEADERS
    assert properties.message_id == "m"
    assert properties.delivery_mode == 2
    assert properties.timestamp == _WHEN.timestamp()


async def test_aio_pika_publishes_and_we_read(broker_url: str) -> None:
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        message = aio_pika.Message(_BODY, headers=dict(_HEADERS), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)  # type: ignore[arg-type] # aio-pika accepts more types of headers than it declares
        await channel.default_exchange.publish(message, routing_key="q")
    assert (await _rabbitry_get(broker_url, "q")).headers == _HEADERS


async def test_we_publish_and_aio_pika_reads(broker_url: str) -> None:
    await _rabbitry_publish(broker_url, "q")
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("q", durable=True)
        message = await queue.get(timeout=60)
        assert message is not None
        assert message.body == _BODY
        assert message.headers == _HEADERS
        await message.ack()


def _kombu_publish(url: str) -> None:
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        queue = kombu.Queue("q", durable=True)
        with connection.Producer() as producer:
            producer.publish({"cpu": 0.5}, routing_key="q", declare=[queue], serializer="json", headers=_HEADERS)


def _kombu_get(url: str) -> tuple[object, dict[str, object]]:
    with kombu.Connection(url) as connection:
        queue = connection.SimpleQueue("q")
        message = queue.get(timeout=60)
        message.ack()
        payload, headers = message.payload, message.headers
        queue.close()
        return payload, headers


async def test_kombu_publishes_and_we_read(broker_url: str) -> None:
    await asyncio.to_thread(_kombu_publish, broker_url)
    properties = await _rabbitry_get(broker_url, "q")
    assert properties.headers is not None
    assert properties.headers["nested"] == {"list": [1, 2]}


async def test_we_publish_and_kombu_reads(broker_url: str) -> None:
    await _rabbitry_publish(broker_url, "q")
    payload, headers = await asyncio.to_thread(_kombu_get, broker_url)
    assert payload == {"cpu": 0.5}
    assert headers == _HEADERS


@pytest.mark.parametrize("mandatory", [True, False])
async def test_pika_gets_unroutable_messages_returned_as_ours_does(broker_url: str, mandatory: bool) -> None:
    def publish() -> bool:
        with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            try:
                channel.basic_publish("", "nowhere", b"x", mandatory=mandatory)
            except pika.exceptions.UnroutableError:
                return False
            return True

    assert await asyncio.to_thread(publish) is not mandatory
