"""The stages of the Flows view, with real workers on both brokers and no management API."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.flow import schemas
from rabbitry.flow.wiring import pausing
from rabbitry.telemetry import EXCHANGE, Limits, Report, Wiring
from rabbitry.telemetry._report import encode_report
from rabbitry.web.sources import Sources, flows
from rabbitry.web.sources.flows import MOST_KEYS
from rabbitry.web.sources.nodes import Nodes
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually, eventually_awaited

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a broker that the dashboard reaches without a management API."""
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        yield server.url
        return
    with BrokerProcess() as broker:
        yield broker.url


async def test_stages_are_shown_in_order_with_what_waits_and_who_paused_them(broker: str, tmp_path: Path) -> None:
    app = rabbitry.App("flowing", store=f"sqlite:///{tmp_path}/once.sqlite3")

    # Not in the order in which messages pass them.
    @app.stage("out")
    async def last(text: str) -> None: ...

    @app.stage("in", then="out", idempotent=lambda text: text)
    async def first(text: str) -> str:
        return text

    @app.every("1s")
    async def tick(tick: rabbitry.Tick) -> None: ...

    sources = Sources(broker, f"http://127.0.0.1:{free_port()}")
    topic = sources.flows.topic
    topic.subscribe({}, lambda: None)

    def stage(name: str) -> dict[str, Any]:
        found: dict[str, Any] = topic.value.get(f"flowing/{name}", {})
        return found

    async with sources.running(), rabbitry.connect(broker) as connection:
        async with app.worker(broker) as worker, app.publisher(broker) as publisher:
            await publisher.send("a", key="in")
            await eventually(lambda: stage("first").get("to") == ["out"], "a result")
            await eventually(lambda: stage("last").get("handling", {}).get("count") == 1, "how long it took")
            await publisher.send("a", key="in")
            await eventually(lambda: stage("first")["skipped"] == 1, "what was handled before")
            assert stage("first")["place"] < stage("last")["place"]
            assert stage("first")["described"] is stage("last")["described"] is True
            assert json.loads(sources.documents.find("flowing") or b"") == schemas.document(app.spec())
            assert (stage("first")["queue"], stage("first")["key"], stage("first")["pause"]) == (
                "flowing.first", "in", None,
            )  # fmt: skip
            assert [one["id"] for one in stage("first")["workers"]] == [worker.id]
            await eventually(lambda: (stage("tick").get("schedule") or {}).get("fired", []), "a tick")
            assert (stage("tick")["schedule"]["when"], stage("last")["schedule"]) == ("every 1s", None)
            held, _ = await pausing.pause(connection, "flowing", "last", by="ada", why="so")
            await eventually(lambda: stage("last")["state"] == "paused", "the pause")
            assert stage("last")["pause"] == {
                "app": "flowing",
                "stage": "last",
                "by": "ada",
                "at": held.at,
                "why": "so",
            }
            await eventually(lambda: worker._engine.counting.stages["last"].is_paused, "the worker to see it")
            await publisher.send("b", key="in")
            await eventually(lambda: stage("last")["waiting"] == 1, "what waits")
            assert stage("first")["state"] == "running"
        await eventually(lambda: stage("first")["state"] == "silent", "the end of the worker")
        assert stage("last")["state"] == "paused", "without a worker too"
        assert await pausing.resume(connection, "flowing", "last")
        await eventually(lambda: stage("last")["pause"] is None, "the end of the pause")
        async with await connection.channel() as channel:
            await channel.delete_queue("flowing.last")
            await eventually(lambda: stage("last")["waiting"] is None, "that the queue is gone")


async def test_limits_are_shown_with_what_is_free_and_who_waits(broker: str) -> None:
    app = rabbitry.App("limited")
    until = asyncio.Event()

    @app.stage("in", rate="1/d", total_concurrency=2, concurrency=4)
    async def slow(text: str) -> None:
        await until.wait()

    sources = Sources(broker, f"http://127.0.0.1:{free_port()}")
    topic = sources.flows.topic
    topic.subscribe({}, lambda: None)

    def limits() -> dict[str, Any]:
        found: dict[str, Any] = topic.value.get("limited/slow", {}).get("limits") or {}
        return found

    async with sources.running():
        async with app.worker(broker), app.publisher(broker) as publisher:
            await eventually(lambda: limits().get("tokens") == 1, "the first token")
            assert limits() == {
                "rate": "1/d", "tokens": 1, "waiting_tokens": 0, "slots": 2, "free": 2, "waiting_slots": 0, "by": "",
                "rate_each": "", "slots_each": 0, "waiting_keys": 0,
            }  # fmt: skip
            for text in "abcd":
                await publisher.publish(text, key="in")
            # The first has the only token and a slot, the second a slot and no token, the others no slot.
            await eventually(
                lambda: limits() == {
                    "rate": "1/d", "tokens": 0, "waiting_tokens": 1, "slots": 2, "free": 0, "waiting_slots": 2,
                    "by": "", "rate_each": "", "slots_each": 0, "waiting_keys": 0,
                },
                "what waits",
            )  # fmt: skip
            (worker,) = topic.value["limited/slow"]["workers"]
            assert (worker["held_back"], worker["in_hand"]) == (3, 4)
            until.set()
        await eventually(lambda: limits().get("free") == 2, "the end of the worker")


async def test_limits_for_each_key_are_shown_with_the_function_of_the_key(broker: str) -> None:
    app = rabbitry.App("keyed")
    until = asyncio.Event()

    def customer(text: str) -> str:
        return text[0]

    @app.stage("in", total_concurrency=3, limit_by=customer, rate_each="10/s", concurrency_each=1)
    async def slow(text: str) -> None:
        await until.wait()

    sources = Sources(broker, f"http://127.0.0.1:{free_port()}")
    topic = sources.flows.topic
    topic.subscribe({}, lambda: None)

    async with sources.running():
        async with app.worker(broker), app.publisher(broker) as publisher:
            for text in ("a1", "a2", "a3", "b1"):
                await publisher.publish(text, key="in")
            await eventually(
                lambda: topic.value.get("keyed/slow", {}).get("limits") == {
                    "rate": "", "tokens": None, "waiting_tokens": 0, "slots": 3, "free": 1, "waiting_slots": 0,
                    "by": "customer", "rate_each": "10/s", "slots_each": 1, "waiting_keys": 2,
                },
                "what waits",
            )  # fmt: skip
            until.set()


async def test_a_report_of_queues_that_cannot_be_asked_for_leaves_the_other_stages_as_they_are(broker: str) -> None:
    app = rabbitry.App("well")

    @app.stage("in")
    async def stage(text: str) -> None: ...

    long = "\u20ac" * 200  # 600 bytes, where AMQP's names have at most 255
    sources = Sources(broker, f"http://127.0.0.1:{free_port()}")
    topic = sources.flows.topic
    topic.subscribe({}, lambda: None)
    async with sources.running(), rabbitry.connect(broker) as connection:
        channel = await connection.channel()
        locked = (await channel.declare_queue("", exclusive=True)).name
        await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        evil = [_reported("a", long), _reported("b", "b", tokens=long), _reported("c", locked), _reported(long, "d")]

        async def shows_all() -> bool:
            for report in evil:
                await channel.publish(
                    encode_report(report), exchange=EXCHANGE, routing_key=report.routing_key, mandatory=False
                )
            return {f"{report.app}/evil" for report in evil} <= topic.value.keys()

        await eventually_awaited(shows_all, "the reported stages")
        async with app.worker(broker):
            await eventually(lambda: topic.value.get("well/stage", {}).get("waiting") == 0, "the stage after them")


def _reported(app: str, queue: str, *, tokens: str = "") -> Report:
    now = time.time()
    return Report(
        "heartbeat", app, "evil", app[:1], "host", 1, now, now,
        wiring=Wiring("x", "k", queue, "x"), limits=Limits("1/s", tokens),
    )  # fmt: skip


def test_the_keys_of_results_that_are_named_are_bounded() -> None:
    sources = Sources("amqp://127.0.0.1:1/")
    for life in range(3):  # of an app that makes a key for each of its customers
        counters = {f"to.customer.{life}.{number}": 1 for number in range(MOST_KEYS - 10)}
        sources.telemetry.nodes.take(msgspec.structs.replace(_reported("a", "q"), counters=counters))
        sources.flows._learn(sources.telemetry.nodes.live())
    (stage,) = sources.flows._stages.values()
    assert len(stage.to) == MOST_KEYS


def test_made_up_stages_keep_no_place_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MOST_STAGES", 3)
    source = Sources("amqp://127.0.0.1:1/").flows

    def learn(*apps: str) -> list[str]:
        """Return the apps whose stages are known after reports of these alone."""
        nodes = Nodes()
        for app in apps:
            nodes.take(_reported(app, "q"))
        source._learn(nodes.live())
        return [stage.app for stage in source._stages.values()]

    assert learn("kept", "evil1", "evil2", "evil3") == ["kept", "evil1", "evil2"]
    source._stages["kept/evil"].waiting = 0  # its queue is there
    assert learn("evil2", "shop", "late") == ["kept", "evil2", "shop"]
    assert learn("shop", "late", "later") == ["kept", "shop", "late"]
