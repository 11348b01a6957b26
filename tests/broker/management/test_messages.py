"""Looking at a queue's messages over the management API: nothing is taken, and nothing changes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._management import messages
from rabbitry.broker._management import pace as pace_module
from rabbitry.broker._management.messages import FARTHEST_PEEKED, LONGEST_PEEKED, MOST_PEEKED
from rabbitry.broker._queues import Queue, contents
from tests.support.management import Api
from tests.support.waiting import at_once, eventually

_USER = {"password": "secret", "tags": "management"}


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        yield broker


async def _ask(broker: Broker, path: str, method: str = "GET", body: object = None, user: str = "guest:guest") -> Any:
    return await asyncio.to_thread(Api(broker.management_url, user), method, path, body)


async def _peek(broker: Broker, name: str, query: str = "") -> Any:
    status, answer = await _ask(broker, f"/api/rabbitry/queues/%2F/{name}/messages{query}")
    assert status == 200, answer
    return answer


def _state(broker: Broker, name: str) -> object:
    """Return what a look must not change."""
    queue = broker.vhosts["/"].queues[name]
    entries = [(entry.position, entry.redelivered, entry.deliveries, entry.message.body) for entry in queue.held()]
    return entries, queue.counts(), queue.ready, queue.ready_bytes, queue.unsettled, queue.redelivered


@pytest.mark.parametrize(
    "arguments", [{}, {"x-queue-type": "quorum", "x-delivery-limit": 5}], ids=["classic", "quorum"]
)
async def test_a_look_shows_messages_and_changes_nothing(broker: Broker, arguments: dict[str, FieldValue]) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True, arguments=arguments)
        for number in range(5):
            properties = Properties(headers={"n": number}, message_id=f"m{number}")
            await channel.publish(b'{"n": %d}' % number, routing_key="q", properties=properties)
        returned = await channel.get("q")
        assert returned is not None
        returned.nack(requeue=True)
        held = await channel.get("q")
        assert held is not None
        before = _state(broker, "q")
        for _ in range(10):
            found = await _peek(broker, "q", "?count=2&offset=1")
        assert _state(broker, "q") == before
        assert (found["ready"], found["offset"]) == (4, 1)
        first = found["messages"][0]
        assert first["payload"] == '{"n": 2}'
        assert first["properties"]["headers"] == {"n": 2}
        assert (first["properties"]["message_id"], first["routing_key"], first["redelivered"]) == ("m2", "q", False)
        assert [each["payload"] for each in found["messages"]] == ['{"n": 2}', '{"n": 3}']
        held.ack()


async def test_requeued_messages_come_in_their_order(broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        for number in range(50):
            await channel.publish(b"%d" % number, routing_key="q")
        taken = [await channel.get("q") for _ in range(40)]
        for place in range(40):
            each = taken[place * 7 % 40]
            assert each is not None
            each.nack(requeue=True)
        found = await _peek(broker, "q", "?count=50")
        while found["ready"] < 50:
            found = await _peek(broker, "q", "?count=50")
        assert [int(each["payload"]) for each in found["messages"]] == [*range(50)]
        assert [each["redelivered"] for each in found["messages"]] == [True] * 40 + [False] * 10
        again = await _peek(broker, "q", "?count=7&offset=38")
        assert [int(each["payload"]) for each in again["messages"]] == [*range(38, 45)]


async def test_bodies_are_cut_and_binary_ones_are_base64(broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        await channel.publish(b"\xff\x00" * 50, routing_key="q")
        await channel.publish(b"text", routing_key="q")
        binary, text = (await _peek(broker, "q", "?truncate=2"))["messages"]
        assert (binary["payload"], binary["payload_encoding"], binary["payload_bytes"]) == ("/wA=", "base64", 100)
        assert (text["payload"], text["payload_encoding"], text["payload_bytes"]) == ("te", "string", 4)
        _, text = (await _peek(broker, "q", "?encoding=base64"))["messages"]
        assert (text["payload"], text["payload_encoding"]) == ("dGV4dA==", "base64")


@pytest.mark.parametrize(
    "query",
    [
        f"?count={MOST_PEEKED + 1}", f"?offset={FARTHEST_PEEKED + 1}", f"?truncate={LONGEST_PEEKED + 1}", "?count=-1",
        "?count=x", "?encoding=odd",
    ],
)  # fmt: skip
async def test_what_is_out_of_bounds_is_refused(broker: Broker, query: str) -> None:
    broker.vhosts["/"].declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    status, answer = await _ask(broker, f"/api/rabbitry/queues/%2F/q/messages{query}")
    assert (status, answer["error"]) == (400, "bad_request")


async def test_a_look_needs_the_permission_to_read(broker: Broker) -> None:
    broker.vhosts["/"].declare_queue("q", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    path = "/api/rabbitry/queues/%2F/q/messages"
    await _ask(broker, "/api/users/ann", "PUT", _USER)
    assert (await _ask(broker, path, user="ann:secret"))[0] == 401  # no permission in the virtual host
    for allowed, status in (("other", 401), ("q", 200)):
        await _ask(
            broker, "/api/permissions/%2F/ann", "PUT", {"configure": ".*", "write": ".*", "read": f"^{allowed}$"}
        )
        assert (await _ask(broker, path, user="ann:secret"))[0] == status
    assert (await _ask(broker, path, user="ann:wrong"))[0] == 401
    assert (await _ask(broker, path.replace("q/", "missing/")))[0] == 404
    assert (await _ask(broker, path, "POST", {}))[0] == 405


async def test_a_look_leaves_the_loop_to_others_between_messages(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "_SLICE", -1.0)
    turns: list[int] = []
    show = messages._shown

    def counted(*arguments: Any) -> Any:
        turns.append(0)
        asyncio.get_running_loop().call_soon(lambda: turns.append(1))
        return show(*arguments)

    monkeypatch.setattr(messages, "_shown", counted)
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        for _ in range(5):
            await channel.publish(b"x", routing_key="q")
        await _peek(broker, "q")
    assert turns == [0, 1] * 5


async def test_gets_leave_the_loop_to_others_between_messages(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_SLICE", -1.0)
    monkeypatch.setattr("rabbitry.broker._shares._SECONDS", 0.0)
    queue = await _of_many(broker, 40)
    body = {"count": 30, "ackmode": "ack_requeue_true", "encoding": "auto"}
    asked = asyncio.create_task(_ask(broker, "/api/queues/%2F/q/get", "POST", body))
    await at_once(lambda: queue.ready < 40)
    assert queue.ready > 10, "they are taken one by one"
    await at_once(lambda: queue.returning)
    assert queue.ready < 40, "and given back one by one"
    status, found = await asked
    assert status == 200
    assert [each["payload"] for each in found] == [str(number) for number in range(30)]
    assert [entry.message.body for entry in queue.held()] == [b"%d" % number for number in range(40)]


async def test_messages_of_a_get_that_is_cancelled_go_back(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_SLICE", -1.0)
    queue = await _of_many(broker, 10)
    body: dict[str, object] = {"count": 10, "ackmode": "reject_requeue_true", "encoding": "auto"}
    asked = asyncio.create_task(messages.get(broker.vhosts["/"], queue, body, pace_module.Pace(), broker.shares))
    await at_once(lambda: queue.ready < 10)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await eventually(lambda: queue.ready == 10, "they are back")
    assert not queue.unsettled


async def _of_many(broker: Broker, count: int) -> Queue:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        for number in range(count):
            await channel.publish(b"%d" % number, routing_key="q")
    return broker.vhosts["/"].queues["q"]


async def test_a_look_after_a_restart_waits_for_the_store(tmp_path: Path) -> None:
    config = BrokerConfig(port=0, management_port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"kept", routing_key="q", properties=Properties(delivery_mode=2))
    async with Broker(config) as broker:
        assert [each["payload"] for each in (await _peek(broker, "q"))["messages"]] == ["kept"]


async def test_after_a_start_each_queue_has_a_part_of_the_first_messages_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BrokerConfig(port=0, management_port=0, data=tmp_path)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        for name in ("q", *(f"other{number}" for number in range(9))):
            await channel.declare_queue(name, durable=True)
            for number in range(40):
                await channel.send(b"%d" % number, routing_key=name)
        await channel.wait_for_confirms()
    monkeypatch.setattr(contents, "_FIRST", 100)
    async with Broker(config) as broker, rabbitry.connect(broker.url) as connection:
        queues = broker.vhosts["/"].queues.values()
        await eventually(lambda: broker.journal.loaded >= 100, "the first ones are read")
        await broker.journal.committed_now()
        assert [len(list(queue.held())) for queue in queues] == [10] * 10
        assert [queue.ready for queue in queues] == [40] * 10
        shown = (await _peek(broker, "q", "?count=30&offset=5"))["messages"]
        assert [each["payload"] for each in shown] == [str(number) for number in range(5, 35)], "a look reads on"
        channel = await connection.channel(prefetch=40)
        async with channel.consume("other0") as deliveries:
            assert [(await anext(deliveries)).body for _ in range(40)] == [b"%d" % number for number in range(40)]
