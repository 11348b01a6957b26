"""Messages returned to a quorum queue go to its end or its front, in the store too."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.compat import Compat
from tests.differential.peer import Peer
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that a test fills quickly."""
    monkeypatch.setattr("rabbitry.broker._queues.contents.WINDOW", 32)


async def _drain(channel: Channel) -> list[tuple[bytes, object]]:
    got: list[tuple[bytes, object]] = []
    while (delivery := await channel.get("q")) is not None:
        got.append((delivery.body, (delivery.properties.headers or {}).get("x-delivery-count")))
        delivery.ack()
    return got


def _rows(folder: Path) -> tuple[int, int]:
    with contextlib.closing(sqlite3.connect(folder / "broker.sqlite")) as connection:
        ((bodies,),) = connection.execute("SELECT COUNT(*) FROM bodies").fetchall()
        ((entries,),) = connection.execute("SELECT COUNT(*) FROM entries").fetchall()
    return bodies, entries


@pytest.mark.parametrize("count", [20, 100])
async def test_returned_messages_are_stored_at_the_end(tmp_path: Path, count: int) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True, arguments={"x-queue-type": "quorum"})
        for number in range(count):
            await channel.publish(b"%d" % number, routing_key="q")
        for _ in range(2):  # 0 to 4, then 5 to 9
            for delivery in [await channel.get("q") for _ in range(5)]:
                assert delivery is not None
                delivery.reject(requeue=True)
        queue = broker.vhosts["/"].queues["q"]
        await channel.declare_queue("q", passive=True)
        assert (len(queue), queue.published) == (count, count)
    assert _rows(tmp_path) == (count, count)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        expected = [(b"%d" % number, 0) for number in range(10, count)] + [(b"%d" % number, 1) for number in range(10)]
        assert await _drain(channel) == expected
    assert _rows(tmp_path) == (0, 0)


@pytest.mark.parametrize("broker", ["embedded", pytest.param("rabbitmq", marks=pytest.mark.faults)])
def test_a_quorum_queue_stores_transient_messages(broker: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """As RabbitMQ's do, whatever the delivery mode; the confirm therefore follows the commit."""
    server: RabbitMQ | BrokerProcess
    with contextlib.ExitStack() as stack:
        if broker == "rabbitmq":
            server = request.getfixturevalue("own_rabbitmq")
        else:
            server = stack.enter_context(BrokerProcess("--data", str(tmp_path)))
        with Peer(server.url) as peer:
            for name, kind in (("q", "quorum"), ("c", "classic")):
                peer.call(m.QueueDeclare(name, durable=True, arguments={"x-queue-type": kind}))
            peer.call(m.ConfirmSelect())
            for name in ("q", "c"):
                peer.publish("", name, b"transient", Properties(delivery_mode=1))
            while not {"1: ack 1", "1: ack 2"} <= set(peer.log):  # pytest-timeout ends it
                peer.quiet()
            peer.until_it_has("q", 1)
        server.stop()
        server.start()
        with Peer(server.url) as peer:
            peer.until_it_has("q", 1)
            peer.count("c")
            assert "message_count=0" in peer.log[-1]
            peer.consume("q", no_ack=True)  # RabbitMQ's has to elect a leader first
            while "b'transient'" not in peer.log[-1]:  # pytest-timeout ends it
                peer.quiet()
            assert peer.log[-1].endswith("{delivery_mode: 1} b'transient'")


@pytest.mark.parametrize("compat", ["3.10", "4.0"])
async def test_the_order_of_what_came_back_to_the_front_survives_a_restart(tmp_path: Path, compat: Compat) -> None:
    """Twice: what is there at the second restart came back before the first one, or after it."""
    config = BrokerConfig(port=0, data=tmp_path, compat=compat)
    arguments: Table = {"x-queue-type": "quorum", "x-delivery-limit": 10}
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True, arguments=arguments)
        for number in range(100):  # more than the window has
            await channel.publish(b"%d" % number, routing_key="q", properties=Properties(priority=number % 2 * 9))
        taken = [await channel.get("q") for _ in range(8)]
        held = [delivery for delivery in taken if delivery is not None]
        bodies = [delivery.body for delivery in held]
        for place in (5, 1, 3, 7, 0):
            held[place].nack(requeue=True)
        await channel.declare_queue("q", passive=True)
        front = [bodies[place] for place in (5, 1, 3, 7, 0, 2, 4, 6)]  # the last three come back with their channel
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        first = [await channel.get("q") for _ in range(3)]
        assert [delivery.body for delivery in first if delivery is not None] == front[:3]
        for place in (2, 0, 1):
            delivery = first[place]
            assert delivery is not None
            delivery.nack(requeue=True)
        await channel.declare_queue("q", passive=True)
        front = [*front[3:], front[2], front[0], front[1]]
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        found = [body for body, _ in await _drain(channel)]
    assert found[:8] == front
    assert sorted(found) == sorted(b"%d" % number for number in range(100))
