"""Large deletions run in steps: virtual hosts, users' connections, channels."""

import asyncio
import contextlib
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.protocol import methods as m
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker import _shares as shares
from rabbitry.broker._management import pace
from rabbitry.broker.access import Permission
from rabbitry.exceptions import VirtualHostRefused
from tests.differential.peer import Peer
from tests.support.management import Api
from tests.support.waiting import at_once, eventually

_MANY = 60


def _fill(broker: Broker, name: str) -> str:
    """Make a virtual host with queues, an exchange, bindings and a policy; return its URL."""
    broker.add_vhost(name)
    broker.access.put_permission(name, "guest", Permission())
    vhost = broker.vhosts[name]
    vhost.declare_exchange("e", "topic", durable=True, auto_delete=False, internal=False, arguments={})
    for number in range(_MANY):
        queue = vhost.declare_queue(
            f"q{number}", None, durable=True, exclusive=False, auto_delete=False, arguments={"x-expires": 3_600_000}
        )
        vhost.bind("e", queue, f"k.{number}", {})
    return broker.url + name


async def test_a_virtual_host_is_deleted_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_SLICE", -1.0)
    async with (
        contextlib.AsyncExitStack() as stack,
        Broker(BrokerConfig(port=0, management_port=0)) as broker,
        rabbitry.connect(broker.url) as client,
    ):
        api, channel = Api(broker.management_url), await client.channel()
        url = _fill(broker, "v")
        vhost = broker.vhosts["v"]
        peer = await asyncio.to_thread(Peer, url)
        stack.callback(peer.drop)
        deleting = asyncio.create_task(asyncio.to_thread(api, "DELETE", "/api/vhosts/v"))
        await at_once(lambda: len(vhost.queues) < _MANY)
        await channel.declare_queue("another")
        assert vhost.queues, "the other was served in between"
        assert (await asyncio.to_thread(api, "GET", "/api/vhosts/v"))[0] == 404
        assert await deleting == (204, None)
        assert not vhost.queues
        await asyncio.to_thread(peer.carried_out)
        assert peer.log[-1].startswith("0: ConnectionClose(reply_code=320, ")


async def test_clients_cannot_use_a_virtual_host_being_deleted() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        url = _fill(broker, "v")
        steps = broker.deleting_vhost("v")
        with pytest.raises(VirtualHostRefused, match="vhost v not found"):
            async with rabbitry.connect(url):
                pass
        for _ in steps:
            pass


async def test_a_virtual_host_recreated_during_its_deletion_is_empty(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path, management_port=0)) as broker:
        api = Api(broker.management_url)
        url = _fill(broker, "v")
        next(broker.deleting_vhost("v"))  # whoever took the other steps has gone away
        assert await asyncio.to_thread(api, "PUT", "/api/vhosts/v") == (201, None)
        async with rabbitry.connect(url) as client:
            channel = await client.channel()
            await channel.declare_queue("q1", durable=True)
            await channel.publish(b"new", routing_key="q1")
        next(broker.deleting_vhost("v"))
        definitions = {
            "vhosts": [{"name": "v"}],
            "permissions": [{"user": "guest", "vhost": "v", "configure": ".*", "write": ".*", "read": ".*"}],
            "queues": [{"name": "q2", "vhost": "v", "durable": True, "auto_delete": False, "arguments": {}}],
        }
        assert await asyncio.to_thread(api, "POST", "/api/definitions", definitions) == (204, None)
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert set(broker.vhosts["v"].queues) == {"q2"}
        assert "e" not in broker.vhosts["v"].exchanges
        assert broker.access.may_enter("v", "guest")


async def test_closing_the_broker_finishes_the_deletion_of_a_virtual_host(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        _fill(broker, "v")
        next(broker.deleting_vhost("v"))
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert set(broker.vhosts) == {"/"}
        assert not broker.access.may_enter("v", "guest")


async def test_cancelling_the_wait_for_a_deletion_does_not_stop_it(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        _fill(broker, "v")
        next(broker.deleting_vhost("v"))
        waiting = broker.rest_of_deletion("v")
        next(waiting)
        del waiting
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        assert set(broker.vhosts) == {"/"}


async def test_creating_a_virtual_host_completes_the_deletion_of_its_name() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        _fill(broker, "v")
        steps = broker.deleting_vhost("v")
        next(steps)
        url = _fill(broker, "v")
        assert next(steps, "over") == "over"
        async with rabbitry.connect(url) as client:
            assert await (await client.channel()).purge_queue("q1") == 0


async def test_deleting_a_user_closes_connections_one_by_one() -> None:
    config = BrokerConfig(port=0, users={"guest": "guest", "ann": "secret"})
    async with Broker(config) as broker, contextlib.AsyncExitStack() as stack:
        url = broker.url.replace("guest:guest", "ann:secret")
        for _ in range(3):
            peer = await asyncio.to_thread(Peer, url)
            stack.callback(peer.drop)
        steps = broker.deleting_user("ann")
        assert not broker.access.is_password("ann", "secret")
        next(steps)
        assert sum(not connection.channels for connection in broker.connections) == 1
        for _ in steps:
            pass
        assert sum(not connection.channels for connection in broker.connections) == 3


@pytest.mark.parametrize("lost", [False, True])
async def test_others_are_served_while_a_large_connection_is_closed(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    async with (
        contextlib.AsyncExitStack() as stack,
        Broker(BrokerConfig(port=0)) as broker,
        rabbitry.connect(broker.url) as client,
        await client.channel() as other,
    ):
        await other.declare_queue("q")
        for number in range(3 * _MANY):
            await other.publish(b"%d" % number, routing_key="q")
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.callback(peer.drop)
        vhost, queue = broker.vhosts["/"], broker.vhosts["/"].queues["q"]

        def hold() -> None:
            for number in range(_MANY):
                peer.queue(f"a{number}", auto_delete=True)
                peer.consume(f"a{number}", f"c{number}")
                peer.open(number + 2)
                peer.consume("q", "c", channel=number + 2)

        await asyncio.to_thread(hold)
        await eventually(lambda: queue.unsettled == 3 * _MANY, "it has all messages")
        if lost:
            peer.drop()
        else:
            peer.send(m.ConnectionClose(200, "bye"), 0)
        await at_once(lambda: len(vhost.queues) < _MANY)
        await other.declare_queue("another")
        assert len(vhost.queues) > 2, "the other was served in between"
        await eventually(lambda: len(queue) == 3 * _MANY, "all messages are back")
        assert set(vhost.queues) == {"q", "another"}
        bodies = []
        for _ in range(3 * _MANY):
            got = await other.get("q", no_ack=True)
            bodies.append(got.body if got is not None else None)
        assert bodies == [b"%d" % number for number in range(3 * _MANY)]


@pytest.mark.parametrize("method", [m.QueueDelete("q"), m.ExchangeDelete("e")])
@pytest.mark.parametrize("vanishes", [False, True])
async def test_others_are_served_while_many_bindings_are_deleted(
    method: m.QueueDelete | m.ExchangeDelete, vanishes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    async with (
        contextlib.AsyncExitStack() as stack,
        Broker(BrokerConfig(port=0, data=tmp_path)) as broker,
        rabbitry.connect(broker.url) as client,
        await client.channel() as other,
    ):
        vhost = broker.vhosts["/"]
        await other.declare_exchange("e", "topic", durable=True)
        await other.declare_queue("q", durable=True)
        await other.publish(b"x", routing_key="q")
        for number in range(4 * _MANY):
            vhost.bind("e", vhost.queues["q"], f"k.{number}", {})
        exchange = vhost.exchanges["e"]
        peer = await asyncio.to_thread(Peer, broker.url)
        stack.callback(peer.drop)
        peer.send(method)
        await at_once(lambda: len(exchange.bindings) < 4 * _MANY)
        if vanishes:
            peer.drop()
        await other.declare_queue("another")
        assert exchange.bindings, "the other was served in between"
        await eventually(lambda: ("q" in vhost.queues) + ("e" in vhost.exchanges) == 1, "one of both is deleted")
        assert not list(vhost.all_bindings())
        if not vanishes:
            await asyncio.to_thread(peer.carried_out)
            wanted = "1: QueueDeleteOk(message_count=1)" if "q" not in vhost.queues else "1: ExchangeDeleteOk()"
            assert peer.log[0] == wanted
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        vhost = broker.vhosts["/"]
        assert ("q" in vhost.queues) + ("e" in vhost.exchanges) == 1
        assert not list(vhost.all_bindings())
