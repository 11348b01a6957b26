"""Policies: set by HTTP, they hold for queues and exchanges that are there and that will be; as on RabbitMQ."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues import ClassicQueue
from rabbitry.broker._queues.arguments import Rules
from rabbitry.exceptions import PreconditionFailed
from tests.support.rabbitmq import RabbitMQ
from tests.support.steps import take_all


class Server:
    """A broker with its AMQP URL, and its management API."""

    def __init__(self, url: str, management: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(base_url=f"{management}api/", auth=("guest", "guest"), timeout=90)

    async def put(self, name: str, pattern: str, definition: object, **more: object) -> int:
        body = {"pattern": pattern, "definition": definition, **more}
        return (await self.http.put(f"policies/%2F/{name}", json=body)).status_code

    async def delete(self, name: str) -> int:
        return (await self.http.delete(f"policies/%2F/{name}")).status_code

    async def get(self, path: str) -> Any:
        return (await self.http.get(path)).json()


@pytest.fixture(params=["embedded", "rabbitmq"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if request.param == "rabbitmq":
        rabbit: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        assert rabbit.management_url is not None
        known = Server(rabbit.url, rabbit.management_url)
        async with known.http:
            yield known
        return
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        known = Server(broker.url, broker.management_url)
        async with known.http:
            yield known


async def _depth(channel: Channel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).message_count


async def test_a_policy_applies_to_existing_and_new_queues(server: Server) -> None:
    async with rabbitry.connect(server.url) as connection, await connection.channel() as channel:
        await channel.declare_queue("short.old")
        await channel.declare_queue("short.own", arguments={"x-max-length": 1})
        await channel.declare_queue("other")
        for queue in ("short.old", "short.own", "other"):
            for number in range(4):
                await channel.publish(b"%d" % number, routing_key=queue)
        assert await server.put("short", r"^short\.", {"max-length": 2}, **{"apply-to": "queues"}) == 201
        assert await server.put("short", r"^short\.", {"max-length": 2}, **{"apply-to": "queues"}) == 204
        await channel.declare_queue("short.new")
        for queue in ("short.old", "short.own", "short.new", "other"):
            for number in range(4, 8):
                await channel.publish(b"%d" % number, routing_key=queue)
        depths = {queue: await _depth(channel, queue) for queue in ("short.old", "short.own", "short.new", "other")}
        assert depths == {"short.old": 2, "short.own": 1, "short.new": 2, "other": 8}
        first = await channel.get("short.old", no_ack=True)
        assert first is not None
        assert first.body == b"6"
        shown = await server.get("queues/%2F/short.old")
        while not shown.get("policy"):  # RabbitMQ's statistics come after a while; pytest-timeout ends it
            await asyncio.sleep(0.1)
            shown = await server.get("queues/%2F/short.old")
        assert (shown["policy"], shown["effective_policy_definition"]) == ("short", {"max-length": 2})
        assert await server.delete("short") == 204
        assert await server.delete("short") == 404
        for number in range(4):
            await channel.publish(b"%d" % number, routing_key="short.old")
        assert await _depth(channel, "short.old") == 5
        for queue in depths:
            await channel.delete_queue(queue)


async def test_a_policy_is_no_argument_of_a_queue_that_is_declared_again(server: Server) -> None:
    async with rabbitry.connect(server.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("limited", arguments={"x-max-length": 5})
        assert await server.put("limits", "^limited$", {"max-length": 2, "message-ttl": 60_000}) == 201
        await channel.declare_queue("limited", arguments={"x-max-length": 5})
        for arguments, difference in (
            ({"x-max-length": 2}, "'x-max-length' .* received '2' but current is '5'"),
            ({}, "'x-max-length' .* received none but current is the value '5' of type 'signedint'"),
            ({"x-max-length": 5, "x-message-ttl": 60_000}, "'x-message-ttl' .* but current is none"),
        ):
            with pytest.raises(PreconditionFailed, match=difference):
                await (await connection.channel()).declare_queue("limited", arguments=arguments)
        assert await server.delete("limits") == 204
        await channel.delete_queue("limited")


async def test_expiry_and_dead_letters_by_policy(server: Server) -> None:
    async with rabbitry.connect(server.url) as connection, await connection.channel() as channel:
        definition = {"message-ttl": 0, "dead-letter-exchange": "", "dead-letter-routing-key": "late"}
        assert await server.put("low", "^timed$", {"message-ttl": 3_600_000}, priority=1) == 201
        assert await server.put("high", "^timed$", definition, priority=2) == 201
        await channel.declare_queue("late")
        await channel.declare_queue("timed")
        await channel.publish(b"x", routing_key="timed")
        async with channel.consume("late", no_ack=True) as deliveries:
            delivery = await anext(deliveries)
        death = delivery.properties.headers["x-death"][0]  # type: ignore[index] # the broker has set it
        assert (death["queue"], death["reason"]) == ("timed", "expired")  # type: ignore[index,call-overload] # a table
        for policy in ("low", "high"):
            assert await server.delete(policy) == 204
        for queue in ("late", "timed"):
            await channel.delete_queue(queue)


async def test_an_alternate_exchange_by_policy(server: Server) -> None:
    async with rabbitry.connect(server.url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("strict", "direct")
        await channel.declare_queue("rest")
        with pytest.raises(rabbitry.PublishReturned):
            await channel.publish(b"x", exchange="strict", routing_key="nowhere")
        await channel.declare_exchange("catch", "fanout")
        await channel.bind_queue("rest", "catch", "")
        assert await server.put("ae", "^strict$", {"alternate-exchange": "catch"}, **{"apply-to": "exchanges"}) == 201
        await channel.publish(b"x", exchange="strict", routing_key="nowhere")
        assert await _depth(channel, "rest") == 1
        assert await server.delete("ae") == 204
        with pytest.raises(rabbitry.PublishReturned):
            await channel.publish(b"x", exchange="strict", routing_key="nowhere")
        await channel.delete_queue("rest")
        await channel.delete_exchange("strict")
        await channel.delete_exchange("catch")


@pytest.mark.parametrize(
    ("pattern", "definition", "more"),
    [
        ("^q", {}, {}),
        ("^q", {"nonsense": 1}, {}),
        ("^q", {"max-length": -1}, {}),
        ("^q", {"max-length": "five"}, {}),
        ("^q", {"expires": 0}, {}),
        ("^q", {"overflow": "nonsense"}, {}),
        ("*(", {"max-length": 1}, {}),
        ("^q", {"max-length": 1}, {"apply-to": "nonsense"}),
    ],
)
async def test_an_invalid_policy_is_refused(
    server: Server, pattern: str, definition: dict[str, object], more: dict[str, object]
) -> None:
    assert await server.put("bad", pattern, definition, **more) == 400
    assert (await server.http.get("policies/%2F/bad")).status_code == 404


async def test_policies_survive_a_restart_and_are_exported(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, management_port=0, data=tmp_path)) as broker:
        server = Server(broker.url, broker.management_url)
        async with server.http, rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
            assert await server.put("short", "^short$", {"max-length": 2}, priority=3) == 201
            await channel.declare_queue("short", durable=True)
            document = await server.get("definitions")
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
            for _ in range(4):
                await channel.publish(b"x", routing_key="short")
            assert await _depth(channel, "short") == 2
    expected = {"vhost": "/", "name": "short", "pattern": "^short$", "definition": {"max-length": 2}, "priority": 3}
    assert document["policies"] == [expected | {"apply-to": "all"}]
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        server = Server(broker.url, broker.management_url)
        async with server.http:
            assert (await server.http.post("definitions", json=document)).status_code == 204
            assert await server.get("policies") == document["policies"]
            assert (await server.get("queues/%2F/short"))["policy"] == "short"


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "r", "s"]),
        st.one_of(
            st.none(),
            st.tuples(
                st.sampled_from(["^a", "b$", "", "ab"]),
                st.integers(0, 2),
                st.sampled_from(["all", "queues", "exchanges"]),
            ),
        ),
    ),
    max_size=12,
)


@given(_CHANGES)
def test_the_policy_of_highest_priority_applies_after_any_change(
    changes: list[tuple[str, tuple[str, int, str] | None]],
) -> None:
    broker = Broker()
    vhost = broker.vhosts["/"]
    names = ("a", "b", "ab", "aab")
    rules = Rules()
    for name in names:
        vhost.queues[name] = ClassicQueue(
            vhost, name, durable=False, auto_delete=False, owner=None, arguments={}, rules=rules
        )
    known: dict[str, Policy] = {}
    for name, change in changes:
        if change is not None:
            pattern, priority, apply_to = change
            known[name] = Policy("/", name, pattern, {"max-length": 1}, priority, apply_to)
            take_all(broker.putting_policy(known[name]))
        elif known.pop(name, None) is not None:
            take_all(broker.deleting_policy("/", name))
        for things, kind in ((vhost.queues, "queues"), (vhost.exchanges, "exchanges")):
            for thing in things.values():
                mine = [one for one in known.values() if one.apply_to in ("all", kind) and thing.name]
                mine = [one for one in mine if re.search(one.pattern, thing.name)]
                assert thing.policy == max(mine, key=lambda one: one.priority, default=None)


@pytest.mark.parametrize("is_kept", [False, True])
async def test_an_operator_policy_survives_a_restart(is_kept: bool, tmp_path: Path) -> None:
    config = BrokerConfig(port=0, data=tmp_path if is_kept else None)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection, await connection.channel() as one:
        await one.declare_queue("a", durable=True, arguments={"x-max-length": 9})
        take_all(broker.putting_policy(Policy("/", "p", "^a", {"max-length": 7})))
        operators = broker.operator_policies
        take_all(broker.putting_policy(Policy("/", "limits", "^a", {"max-length": 5, "expires": 90_000}), operators))
        assert broker.vhosts["/"].queues["a"].settings == {"max-length": 5, "expires": 90_000}
    async with Broker(config, after=None if is_kept else broker) as again:
        queue = again.vhosts["/"].queues["a"]
        assert (queue.rules.max_length, queue.rules.expires) == (5, 90_000)
        take_all(again.deleting_policy("/", "limits", again.operator_policies))
        assert (queue.rules.max_length, queue.rules.expires) == (7, None)
