"""The exchange type x-delayed-message: when messages come, in which order, and what survives.

RabbitMQ's plugin is not installed where the tests run, so nothing is compared with it.
"""

import asyncio
import functools
from decimal import Decimal
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._queues import waiting
from rabbitry.broker._queues.waiting import WaitingRoom, delay_of
from rabbitry.broker.compat import RELEASES, Compat
from rabbitry.testing import RunningBroker
from tests.differential.peer import Peer
from tests.support.embedded import BrokerProcess
from tests.support.management import Api
from tests.support.waiting import eventually

_LONG = 3_600_000


async def _declare(channel: Channel, kind: str = "direct") -> None:
    arguments: Table = {"x-delayed-type": kind}
    await channel.declare_exchange("later", "x-delayed-message", durable=True, arguments=arguments)
    await channel.declare_queue("q", durable=True)
    await channel.bind_queue("q", "later", "key")


async def _publish(channel: Channel, body: bytes, delay: FieldValue, *, mode: int = 2) -> None:
    properties = rabbitry.Properties(headers={"x-delay": delay, "a": 1}, delivery_mode=mode)
    await channel.publish(body, exchange="later", routing_key="key", properties=properties)


async def _take(channel: Channel, count: int) -> list[tuple[bytes, FieldValue]]:
    """Return the bodies of the next messages, with their `x-delay`."""
    found: list[tuple[bytes, FieldValue]] = []
    async with asyncio.timeout(120), channel.consume("q") as deliveries:
        while len(found) < count:
            delivery = await anext(deliveries)
            found.append((delivery.body, (delivery.properties.headers or {}).get("x-delay")))
            delivery.ack()
    return found


async def test_an_import_checks_the_bindings_of_the_type_that_routes() -> None:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        flags = {"vhost": "/", "durable": True, "auto_delete": False}
        arguments = {"x-delayed-type": "x-consistent-hash"}
        exchange = {**flags, "name": "later", "type": "x-delayed-message", "internal": False, "arguments": arguments}
        ends = {"vhost": "/", "source": "later", "destination": "q", "destination_type": "queue", "arguments": {}}
        for key, status in (("no number", 400), ("1", 204)):
            document = {
                "exchanges": [exchange],
                "queues": [{**flags, "name": "q", "arguments": {}}],
                "bindings": [{**ends, "routing_key": key}],
            }
            answer = await asyncio.to_thread(Api(broker.management_url), "POST", "/api/definitions", document)
            assert answer[0] == status, answer
            assert ("q" in broker.vhosts["/"].queues) == (status == 204), "all of it or nothing"


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        *((5, 5), ("7", 7), (1.9, 1), (Decimal("2.5"), 2), (2**32 - 1, 2**32 - 1)),
        *((0, 0), (-5, 0), (2**32, 0), ("x", 0), (True, 0), (None, 0), ([1], 0), (float("inf"), 0), (float("nan"), 0)),
    ],
)
def test_a_delay_is_read_as_the_plugin_reads_it(value: FieldValue, delay: int) -> None:
    assert delay_of({"x-delay": value}) == delay


async def test_messages_come_in_the_order_of_their_times_with_a_negated_header() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel, "topic")
        await channel.publish(b"at once", exchange="later", routing_key="key")
        assert await _take(channel, 1) == [(b"at once", None)]
        await _publish(channel, b"last", 1800)
        await _publish(channel, b"first", 300)
        assert await _take(channel, 2) == [(b"first", -300), (b"last", -1800)]
        await channel.unbind_queue("q", "later", "key")
        await _publish(channel, b"to nobody", 1)  # mandatory, and not returned: the route is known later
        room = broker.vhosts["/"].exchanges["later"].waiting
        assert room is not None
        await eventually(lambda: not len(room), "it was routed")
        await channel.bind_queue("q", "later", "key")
        await _publish(channel, b"to a queue", 200)
        assert await _take(channel, 1) == [(b"to a queue", -200)]


@pytest.mark.parametrize("compat", RELEASES)
def test_a_transaction_keeps_messages_that_wait(compat: Compat) -> None:
    with RunningBroker(compat=compat) as broker, Peer(broker.url) as peer:
        peer.call(m.ExchangeDeclare("later", "x-delayed-message", arguments={"x-delayed-type": "direct"}))
        peer.queue("later")  # a queue with the exchange's name gets none of its messages
        peer.queue("q")
        peer.call(m.QueueBind("q", "later", "key"))
        peer.call(m.TxSelect())
        peer.publish("later", "key", b"waits", Properties(headers={"x-delay": 200}))
        peer.call(m.TxCommit())
        peer.until_it_has("q", 1)
        peer.count("later")
        assert "message_count=0," in peer.log[-1]


async def test_an_expired_message_waits_in_an_exchange_named_as_its_queue() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        arguments: Table = {"x-dead-letter-exchange": "later", "x-dead-letter-routing-key": "key"}
        await channel.declare_queue("later", arguments=arguments)
        properties = rabbitry.Properties(headers={"x-delay": 20}, expiration="1")
        await channel.publish(b"expires", routing_key="later", properties=properties)
        assert await _take(channel, 1) == [(b"expires", -20)]


async def test_the_type_is_required_and_checked() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for arguments in (
            {},
            {"x-delayed-type": 5},
            {"x-delayed-type": "none"},
            {"x-delayed-type": "x-delayed-message"},
        ):
            with pytest.raises(rabbitry.ChannelClosed, match="406"):
                await channel.declare_exchange("later", "x-delayed-message", arguments=arguments)
            await channel.open()
        await channel.declare_exchange("hash", "x-delayed-message", arguments={"x-delayed-type": "x-consistent-hash"})
        await channel.declare_queue("q")
        with pytest.raises(rabbitry.ChannelClosed, match="must be an integer"):
            await channel.bind_queue("q", "hash", "no weight")


async def test_messages_wait_over_a_kill(tmp_path: Path) -> None:
    with BrokerProcess("--data", str(tmp_path)) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await _declare(channel)
            await _publish(channel, b"third", 2500)
            await _publish(channel, b"second", 1000)
            await _publish(channel, b"transient", 1000, mode=1)
            await _publish(channel, b"much later", _LONG)
            broker.kill()
        broker.start()
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await _publish(channel, b"fourth", 2500)
            found = await _take(channel, 4)
        assert found == [(b"second", -1000), (b"transient", -1000), (b"third", -2500), (b"fourth", -2500)]


def _has_all(room: WaitingRoom) -> bool:
    return len(room) == 30


async def test_many_messages_are_read_again_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_READ_AT_ONCE", 7)
    config = BrokerConfig(port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await _declare(channel)
        for number in range(30):
            await channel.send(
                b"%d" % number, exchange="later", routing_key="key",
                properties=rabbitry.Properties(headers={"x-delay": _LONG}),
            )  # fmt: skip
        await channel.wait_for_confirms()
    for _ in range(2):
        async with Broker(config) as broker:
            room = broker.vhosts["/"].exchanges["later"].waiting
            assert room is not None
            await eventually(functools.partial(_has_all, room), "all are read")
            assert [entry.message.body for entry in room.held()] == [b"%d" % number for number in range(30)]
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.delete_exchange("later")
    async with Broker(config) as broker:
        assert set(broker.vhosts["/"].queues) == {"q"}
