"""A message or declaration too large for a frame is refused at the call, and nothing is sent."""

from collections.abc import AsyncIterator

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, Connection, parse_url
from rabbitry.amqp.protocol.properties import encode_properties
from rabbitry.exceptions import PreconditionFailed, UsageError
from tests.support.scripted import ScriptedBroker
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")

_LONG = rabbitry.Properties(headers={"short": 1, "x-trace": "t" * 5000, "x-origin": "o" * 200})


@pytest.fixture
def small(broker_url: str) -> BrokerURL:
    """A broker, over a connection with the smallest frames."""
    return parse_url(broker_url)._replace(frame_max=4096)


@pytest.fixture
async def connection(small: BrokerURL) -> AsyncIterator[Connection]:
    async with rabbitry.connect(small) as connection:
        yield connection


async def test_long_headers_are_refused_by_publish_and_send(connection: Connection) -> None:
    channel = await connection.channel()
    queue = (await channel.declare_queue(exclusive=True)).name
    for publish in (channel.publish, channel.send):
        with pytest.raises(UsageError, match=r"5276 bytes in .* 4088.*'x-trace' with 5017 bytes"):
            await publish(b"x", routing_key=queue, properties=_LONG)
    await channel.publish(b"y", routing_key=queue)
    assert connection.is_open
    assert (await channel.declare_queue(queue, passive=True)).message_count == 1


async def test_the_longest_headers_that_fit_are_sent(connection: Connection) -> None:
    channel = await connection.channel()
    queue = (await channel.declare_queue(exclusive=True)).name
    properties = rabbitry.Properties(message_id="m", delivery_mode=2, headers={"x": ""})
    _, parts = encode_properties(properties)
    room = 4088 - 14 - sum(map(len, parts))
    await channel.publish(b"x" * 9000, routing_key=queue, properties=properties._replace(headers={"x": "h" * room}))
    with pytest.raises(UsageError):
        await channel.publish(b"x", routing_key=queue, properties=properties._replace(headers={"x": "h" * (room + 1)}))
    delivery = await channel.get(queue, no_ack=True)
    assert delivery is not None
    assert len(delivery.header) == 4088


def test_the_blocking_client_refuses_them_too(small: BrokerURL) -> None:
    with rabbitry.connect_blocking(small) as connection:
        channel = connection.channel()
        with pytest.raises(UsageError, match="'x-trace'"):
            channel.publish(b"x", routing_key="q", properties=_LONG)
        with pytest.raises(UsageError, match="'x-trace'"):
            channel.send(b"x", routing_key="q", properties=_LONG)
        with pytest.raises(UsageError, match="'ratio'"):
            channel.send(b"x", routing_key="q", properties=rabbitry.Properties(headers={"ratio": float("nan")}))
        assert connection.is_open


async def test_long_arguments_are_refused_with_the_name_of_the_method(connection: Connection) -> None:
    channel = await connection.channel()
    with pytest.raises(UsageError, match=r"queue\.declare of 'q' takes 50\d\d bytes .* 4088"):
        await channel.declare_queue("q", arguments={"x-note": "n" * 5000})
    with pytest.raises(UsageError, match=r"queue\.bind of 'q'"):
        await channel.bind_queue("q", "amq.headers", arguments={"x-note": "n" * 5000})
    with pytest.raises(UsageError, match=r"basic\.consume of 'q'"):
        async with channel.consume("q", arguments={"x-note": "n" * 5000}):
            pass
    await channel.declare_queue(exclusive=True)


async def test_a_too_long_name_is_refused_before_the_login(broker_url: str) -> None:
    with pytest.raises(UsageError, match=r"connection\.start-ok .* 4088"):
        await rabbitry.connect(broker_url, name="n" * 5000)


async def test_shorter_frames_after_a_loss_fail_messages_that_no_longer_fit() -> None:
    async with ScriptedBroker() as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("long", arguments={"x-note": "n" * 5000})
        long = await channel.send(b"long", routing_key="q", properties=_LONG)
        short = await channel.send(b"short", routing_key="q")
        await eventually(lambda: len(broker.links[0].published) == 2, "both")
        broker.frame_max = 4096
        broker.links[0].driver.abort()
        await eventually(lambda: len(broker.links) == 2 and broker.links[1].published, "what is sent again")
        broker.links[1].ack(1)
        await short
        assert [body for *_, body in broker.links[1].published] == [b"short"]
        with pytest.raises(UsageError, match="4088"):
            await long
        assert connection.is_open


async def test_nan_is_refused_and_the_connection_stays_open(broker_url: str) -> None:
    """RabbitMQ closes a connection that sends one, with 541 or without a close."""
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        for ratio in (float("nan"), float("inf"), -float("inf")):
            with pytest.raises(UsageError, match="'ratio'"):
                await channel.publish(
                    b"x", routing_key=queue, properties=rabbitry.Properties(headers={"ratio": [ratio]})
                )
            with pytest.raises(UsageError, match="'x-max-length'"):
                await channel.declare_queue("other", arguments={"x-max-length": ratio})
        with pytest.raises(PreconditionFailed):
            await channel.declare_queue("other", arguments={"x-max-length": 1.5})
        assert connection.is_open
