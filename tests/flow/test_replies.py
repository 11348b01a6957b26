"""Calls: the result, the error or the progress of a handler comes back to who published the message."""

import asyncio
import time

import msgspec
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.exceptions import ConnectionClosed, Undecodable
from rabbitry.flow.worker import _settlement
from rabbitry.testing import harness
from tests.flow._running import bodies, dead_of, eventually_dead, eventually_holds
from tests.support.waiting import at_once, eventually


class Sum(msgspec.Struct):
    """A reply."""

    total: int


def _app(name: str) -> rabbitry.App:
    app = rabbitry.App(name)
    tries: list[str] = []

    @app.stage("add", then=lambda result: "sums", replies=True, attempts=2, delays=[0])
    async def add(numbers: list[int], context: rabbitry.Context) -> Sum:
        for index, _ in enumerate(numbers):
            await context.progress(index)
        if not numbers:
            raise rabbitry.Reject("nothing to add")
        return Sum(sum(numbers))

    @app.stage("thread", replies=True, attempts=2, delays=[0])
    def in_thread(text: str, context: rabbitry.Context) -> rabbitry.Outgoing | str | None:
        context.progress_blocking({"text": text})
        tries.append(text)
        if text == "twice" and tries.count(text) == 1:
            raise ValueError("once")
        if text == "fail":
            raise ValueError("always")
        if text == "slow":
            time.sleep(0.5)
        return None if text == "none" else rabbitry.Outgoing(text.upper(), key="sums")

    @app.stage("silent")
    async def silent(text: str) -> None: ...

    app.output("sums", queue=f"{name}.sums")
    return app


async def test_a_call_returns_the_result_or_raises_the_error(broker_url: str, no_leaks: None) -> None:
    app = _app("calls")
    seen: list[object] = []
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        reply = await publisher.call([1, 2, 3], key="add", timeout=30, type=Sum, on_progress=seen.append)
        assert reply.total == 6
        assert seen == [0, 1, 2]
        assert await publisher.call([1], key="add", timeout=30) == {"total": 1}
        with pytest.raises(rabbitry.CallFailed, match="nothing to add") as rejected:
            await publisher.call([], key="add", timeout=30)
        assert rejected.value.reason == "rejected"
        with pytest.raises(rabbitry.CallFailed, match="Expected `array`") as undecodable:
            await publisher.call({"no": "list"}, key="add", timeout=30)
        assert undecodable.value.reason == "undecodable"
        with pytest.raises(rabbitry.CallFailed, match="ValueError: always") as failed:
            await publisher.call("fail", key="thread", timeout=30)
        assert failed.value.reason == "failed"
        assert await publisher.call("twice", key="thread", timeout=30) == "TWICE"
        assert await publisher.call("none", key="thread", timeout=30) is None
        with pytest.raises(Undecodable, match=r"the reply to message .* is not of its type"):
            await publisher.call("x", key="thread", timeout=30, type=Sum)
        many = await asyncio.gather(*(publisher.call([n], key="add", timeout=30, type=Sum) for n in range(200)))
        assert [reply.total for reply in many] == list(range(200))
        await eventually_dead(broker_url, app, 3)
    assert len(await bodies(broker_url, "calls.sums")) == 204, "results go where `then` leads, too"


async def test_calls_that_get_no_reply(embedded_url: str) -> None:
    app = _app("unanswered")
    async with app.publisher(embedded_url) as publisher:
        with pytest.raises(rabbitry.CallTimeout, match=r"no reply to message .* with key 'add' within 0.2 s"):
            await publisher.call([1], key="add", timeout=0.2)
        with pytest.raises(rabbitry.UsageError, match="key 'silent': no stage that takes it has replies=True"):
            await publisher.call("x", key="silent", timeout=1)
        waiting = asyncio.create_task(publisher.call([2], key="add", timeout=60))
        await eventually_holds(embedded_url, "unanswered.add", 2)
    with pytest.raises(ConnectionClosed, match="the publisher was closed before the reply came"):
        await waiting
    async with app.worker(embedded_url, connect_attempts=1):
        await eventually_holds(embedded_url, "unanswered.sums", 2)  # both callers are gone
    with pytest.raises(rabbitry.UsageError, match="enter the publisher first"):
        await app.publisher(embedded_url).call([1], key="add", timeout=1)


async def test_a_cancelled_call_ends_no_other_call(embedded_url: str, no_leaks: None) -> None:
    app = _app("cancelled-calls")

    def is_reading() -> bool:
        return any(task.get_name() == "replies" for task in asyncio.all_tasks())

    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        first, second = (asyncio.create_task(publisher.call([n], key="add", timeout=30, type=Sum)) for n in (1, 2))
        await at_once(is_reading)
        first.cancel()  # while the consumer of replies is being made, which both wait for
        assert (await second).total == 2
        assert first.cancelled()
        assert (await publisher.call([3], key="add", timeout=30, type=Sum)).total == 3


async def test_a_blocking_publisher_calls_too(broker_url: str) -> None:
    app = _app("blocking-calls")
    seen: list[object] = []

    def call() -> None:
        with app.publisher_blocking(broker_url) as publisher:
            assert publisher.call([4], key="add", timeout=30, type=Sum).total == 4
            assert publisher.call("a", key="thread", timeout=30, on_progress=seen.append) == "A"
            with pytest.raises(rabbitry.CallFailed, match="nothing to add"):
                publisher.call([], key="add", timeout=30)

    async with app.worker(broker_url, connect_attempts=1):
        await asyncio.to_thread(call)
    assert seen == [{"text": "a"}]


async def test_any_program_that_sets_reply_to_gets_a_reply(broker_url: str) -> None:
    app = _app("foreign")
    async with (
        app.worker(broker_url, connect_attempts=1),
        rabbitry.connect(broker_url) as connection,
        await connection.channel() as channel,
    ):
        await channel.declare_queue("foreign.replies", durable=True)
        properties = Properties(reply_to="foreign.replies", correlation_id="mine")
        await channel.publish(b"[1, 2]", exchange="foreign", routing_key="add", properties=properties)
        async with channel.consume("foreign.replies") as replies:
            found = []
            async for delivery in replies:
                delivery.ack()
                assert delivery.properties.correlation_id == "mine"
                found.append(delivery.body)
                if b"total" in delivery.body:
                    break
    assert found == [b"0", b"1", b'{"total":3}']


async def test_a_full_queue_of_replies_costs_the_app_nothing(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_settlement, "REFUSED_PAUSES", (0.01,))
    monkeypatch.setattr(_settlement, "PAUSE", 0.01)
    app = _app("full-replies")
    async with (
        app.worker(broker_url, connect_attempts=1) as worker,
        rabbitry.connect(broker_url) as connection,
        await connection.channel() as channel,
    ):
        full: dict[str, FieldValue] = {"x-max-length": 0, "x-overflow": "reject-publish"}
        await channel.declare_queue("full-replies.full", durable=True, arguments=full)
        for body in (b"[1, 2]", b"[]"):
            properties = Properties(reply_to="full-replies.full", correlation_id="mine")
            await channel.publish(body, exchange="full-replies", routing_key="add", properties=properties)
        await eventually_holds(broker_url, "full-replies.sums", 1)
        await eventually_dead(broker_url, app, 1)
        add = worker._engine.counting.stages["add"]
        await eventually(lambda: not add.in_hand, "the settlement of both")
        async with app.publisher(broker_url) as publisher:
            assert (await publisher.call([3], key="add", timeout=30, type=Sum)).total == 3
        assert "redelivered" not in add.counters
    assert [letter.error for letter in await dead_of(broker_url, app)] == ["nothing to add"]


async def test_a_reply_that_is_too_large_becomes_an_error() -> None:
    app = rabbitry.App("large-replies")

    @app.stage("in", replies=True)
    async def answer(text: str) -> str:
        return text * 1000

    async with Broker(BrokerConfig(port=0, max_message_size=1000)) as broker, app.worker(broker.url) as worker:
        async with app.publisher(broker.url) as publisher:
            with pytest.raises(rabbitry.CallFailed, match="the reply of 2000 bytes can't be published") as failed:
                await publisher.call("ab", key="in", timeout=30)
            assert failed.value.reason == "refused"
            assert len(await publisher.call("a", key="in", timeout=30)) == 1000
        assert worker._engine.counting.stages["answer"].counters["done"] == 2
        assert "dead" not in worker._engine.counting.stages["answer"].counters
        assert await dead_of(broker.url, app) == []


async def test_the_reply_has_the_values_of_a_list_alone() -> None:
    app = rabbitry.App("listed-replies")

    @app.stage("in", replies=True)
    async def handle(number: int) -> list[int | rabbitry.Outgoing]:
        return [rabbitry.Outgoing(number, key="out", headers={"x-own": 1}), number + 1]

    app.output("out", required=False)
    async with harness(app) as h:
        assert await h.call(1, key="in") == [1, 2]
        assert await h.published("out") == 1


async def test_a_harness_calls() -> None:
    async with harness(_app("harnessed"), raise_errors=False) as h:
        reply = await h.call([1, 2], key="add", type=Sum, headers={"x-own": 1})
        assert reply.total == 3  # type checkers know its type
        with pytest.raises(rabbitry.CallFailed, match="nothing to add"):
            await h.call([], key="add")


def test_what_can_not_reply_is_refused() -> None:
    async def of_batches(texts: list[str]) -> None: ...

    with pytest.raises(rabbitry.AppError, match="replies=True is for handlers of single messages"):
        rabbitry.App("wrong").stage("in", batch=5, replies=True)(of_batches)
