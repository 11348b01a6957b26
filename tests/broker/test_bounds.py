"""The effects of one client are bounded: in memory, in recursion, in time."""

import asyncio
import contextlib

import pytest

import rabbitry
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import MAX_DEPTH, FieldValue, Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._policies import Policy
from tests.differential.peer import Peer
from tests.support.steps import take_all
from tests.support.waiting import at_once, eventually


async def test_a_chain_of_auto_delete_exchanges_is_deleted_completely() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        vhost = broker.vhosts["/"]
        before = set(vhost.exchanges)
        length = 3000
        for number in range(length):
            vhost.declare_exchange(
                f"e{number}", "fanout", durable=False, auto_delete=True, internal=False, arguments={}
            )
        for number in range(length - 1):
            vhost.bind(f"e{number}", vhost.exchanges[f"e{number + 1}"], "", {})
        channel = await connection.channel()
        await channel.declare_queue("q")
        await channel.bind_queue("q", f"e{length - 1}")
        await channel.delete_queue("q")
        assert set(vhost.exchanges) == before
        assert list(vhost.all_bindings()) == []


async def test_direct_replies_to_a_client_that_does_not_read_are_bounded() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, contextlib.AsyncExitStack() as stack:
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
        await asyncio.to_thread(peer.consume, "amq.rabbitmq.reply-to", no_ack=True)
        (asking,) = broker.connections
        async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
            await channel.declare_queue("requests")
            peer.publish("", "requests", b"?", Properties(reply_to="amq.rabbitmq.reply-to"))
            await eventually(lambda: len(broker.vhosts["/"].queues["requests"]), "the request is there")
            request = await channel.get("requests", no_ack=True)
            assert request is not None
            reply_to = request.properties.reply_to
            assert reply_to is not None
            for _ in range(100):
                await channel.publish(bytes(1 << 20), routing_key=reply_to)
            assert asking.driver.unsent < 34 << 20
            assert asking.driver.unsent > 16 << 20, "there was much to read"


async def test_a_hundred_thousand_refusals_are_answered() -> None:
    """Appended one by one to a single buffer, they would take minutes."""
    async with Broker(BrokerConfig(port=0)) as broker, contextlib.AsyncExitStack() as stack:
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.push_async_callback(asyncio.to_thread, peer.__exit__, OSError, OSError(), None)
        await asyncio.to_thread(peer.call, m.ConfirmSelect())
        (connection,) = broker.connections
        confirms = connection.channels[1].confirms
        assert confirms is not None
        confirms.published = 300_000
        confirms.refuse(200_000)
        assert confirms.unconfirmed == 100_000
        confirms.confirm(300_000)
        assert confirms.unconfirmed == 0
        assert connection.driver.bytes_sent + connection.driver.unsent > 200_000 * 21


@pytest.mark.parametrize("reason", ["expired", "maxlen"])
async def test_others_have_their_turn_while_a_queue_drops_many_messages(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.broker._queues.backlog.LONGEST_TURN", 0.0)  # one message in each turn
    async with (
        Broker(BrokerConfig(port=0)) as broker,
        rabbitry.connect(broker.url) as connection,
        await connection.channel() as channel,
    ):
        await channel.declare_queue("dead")
        await channel.declare_queue(
            "q",
            arguments={
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "dead",
                **({"x-message-ttl": 1000} if reason == "expired" else {}),
            },
        )
        for number in range(200):
            await channel.publish(b"%d" % number, routing_key="q")
        queues = broker.vhosts["/"].queues
        assert len(queues["q"]) + len(queues["dead"]) == 200  # on a busy machine the first have expired by now
        if reason == "maxlen":
            take_all(broker.putting_policy(Policy("/", "short", "^q$", {"max-length": 0})))
        else:
            await at_once(lambda: len(queues["dead"]))
        assert 0 < len(queues["dead"]) < 200, "the rest waits for a next turn"
        await eventually(lambda: len(queues["dead"]) == 200, "all have become dead letters")
        assert not len(queues["q"])
        for number in range(200):
            letter = await channel.get("dead", no_ack=True)
            assert letter is not None
            assert letter.body == b"%d" % number


async def test_a_message_whose_headers_are_as_deep_as_a_table_may_be_is_traced() -> None:
    """A copy for the firehose holds them two levels deeper."""
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        vhost = broker.vhosts["/"]
        vhost.trace(is_on=True)
        channel = await connection.channel()
        await channel.declare_queue("trace")
        await channel.bind_queue("trace", "amq.rabbitmq.trace", "#")
        await channel.declare_queue("q")
        value: FieldValue = "deep"
        for _ in range(MAX_DEPTH):
            value = {"deeper": value}
        wanted: list[Table] = [{"flat": 1}, {"deeper": value}]
        for headers in wanted:
            await channel.publish(b"x", routing_key="q", properties=Properties(message_id="m", headers=headers))
            assert await channel.get("q", no_ack=True) is not None
        await eventually(lambda: len(vhost.queues["trace"]) == 4, "a copy of each publish and delivery")
        copies = [await channel.get("trace", no_ack=True) for _ in range(4)]
    for copy, expected in zip(copies, ({"flat": 1}, {"flat": 1}, None, None), strict=True):
        assert copy is not None
        told = (copy.properties.headers or {})["properties"]
        assert isinstance(told, dict)
        assert (copy.body, told["message_id"], told.get("headers")) == (b"x", "m", expected)
