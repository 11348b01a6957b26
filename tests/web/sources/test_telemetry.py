"""Telemetry as a source, with real workers on both brokers and no management API: stages, topology, attention."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import rabbitry
from rabbitry.amqp.client.url import parse_url
from rabbitry.telemetry import EXCHANGE
from rabbitry.web.dead.types import Types
from rabbitry.web.feed.topics import Topic
from rabbitry.web.passages import Passages
from rabbitry.web.sources import Sources
from rabbitry.web.sources.attention import MOST, Attention
from tests.support.embedded import BrokerProcess
from tests.support.hostile_reports import hostile_reports
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

_EXCHANGE = "x://told"
_OF_REPORTS = ("stages", "nodes", "topology", "attention", "flows", "drift")


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a broker that the dashboard reaches without a management API."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("module_rabbitmq").url
        return
    with BrokerProcess() as broker:
        yield broker.url


def _app() -> rabbitry.App:
    app = rabbitry.App("told")

    @app.stage("in", then="out")
    async def first(text: str) -> str:
        return text

    @app.stage("out")
    async def second(text: str) -> None:
        return None

    return app


def _value(topic: Topic) -> dict[str, Any]:
    value: dict[str, Any] = topic.value  # type: ignore[attr-defined] # a Value
    return value


async def test_workers_tell_of_stages_and_of_what_flows_between_them(broker: str) -> None:
    app = _app()
    sources = Sources(broker, f"http://127.0.0.1:{free_port()}")
    topics = sources.topics
    for name in ("stages", "nodes", "topology", "attention"):
        topics[name].subscribe({}, lambda: None)
    async with sources.running():
        await eventually(lambda: _value(topics["sources"])["telemetry"]["state"] == "live", "a collector")
        async with app.worker(broker) as worker, app.publisher(broker) as publisher:
            for number in range(3):
                await publisher.publish(str(number), key="in")
            await eventually(
                lambda: _value(topics["stages"]).get("told/second", {}).get("counters", {}).get("done") == 3,
                "both stages",
            )
            await publisher.publish("more", key="in")  # a rate needs two reports
            await eventually(lambda: _value(topics["topology"]).get(_EXCHANGE, {}).get("at"), "a flow")
            topology = _value(topics["topology"])
            assert topology["by"] == "telemetry"
            ids = {row[2] for row in topics["nodes"].rows()}  # type: ignore[attr-defined] # a Table
            assert ids == {worker.id}
            edges = {(edge["from"], edge["to"]): edge for key, edge in topology.items() if key.startswith("e:")}
            (consumer,) = (key for key in topology if key.startswith("c:"))
            (publishing,) = (key for key in topology if key.startswith("p:"))
            queues = [f"q://told.{name}" for name in ("first", "second")]
            assert {(queue, consumer) for queue in queues} < set(edges)
            assert {(_EXCHANGE, queue) for queue in queues} < set(edges)
            assert edges[publishing, _EXCHANGE]["keys"] == ["out"]
            assert {topology[queue]["ready"] for queue in queues} == {None}
        await eventually(lambda: not _value(topics["stages"]), "that they stopped")
        assert not _value(topics["attention"])


async def test_no_report_stops_a_source(broker: str, caplog: pytest.LogCaptureFixture) -> None:
    app = _app()
    sources = Sources(broker, f"http://127.0.0.1:{free_port()}")
    passages = Passages()
    sources.telemetry.listeners += (Types().take, passages.take)  # as the dashboard adds them
    seen = [sources.topics[name].subscribe({}, lambda: None) for name in _OF_REPORTS]
    async with (
        sources.running(),
        rabbitry.connect(broker) as connection,
        await connection.channel() as channel,
        app.worker(broker),
    ):
        await eventually(lambda: _value(sources.topics["sources"])["telemetry"]["state"] == "live", "a collector")
        for body in hostile_reports():
            await channel.publish(body, exchange=EXCHANGE, routing_key="node.evil", mandatory=False)
        began = time.monotonic()
        await eventually(lambda: "app4/stage39" in _value(sources.topics["flows"]), "the last of them")
        await eventually(lambda: (sources.flows.topic.at or 0) > began, "a picture after it")
        await eventually(lambda: "told/second" in _value(sources.topics["flows"]), "an honest worker")
        await passages.write()
        shown = [subscription.take() for subscription in seen]
        assert len(msgspec.json.encode(shown)) < 5_000_000
    await passages.close()
    assert [record.message for record in caplog.records if record.exc_info] == []


async def test_a_login_that_is_refused_is_reported_without_its_password(module_rabbitmq: RabbitMQ) -> None:
    _, port = parse_url(module_rabbitmq.url).hosts[0]
    sources = Sources(f"amqp://nobody:wrong@127.0.0.1:{port}/")
    async with sources.running():
        states = sources.topics["sources"]
        await eventually(lambda: _value(states)["telemetry"]["state"] == "refused", "that the login is refused")
        assert "set_permissions" in _value(states)["telemetry"]["todo"]
        assert "wrong" not in str(_value(states))


def test_what_needs_attention_is_joined_and_bounded() -> None:
    topic = Attention()
    topic.tell("a", {f"note {number}": {"bad": False} for number in range(MOST)} | {"worst": {"bad": True}}, 1.0)
    topic.tell("b", {"other": {"bad": True}}, 2.0)
    assert len(topic.value) == MOST + 1
    assert {"worst", "other"} < topic.value.keys()
    topic.tell("a", {}, 3.0)
    assert topic.value == {"other": {"bad": True}}
    assert topic.at == 2.0  # of b's, which are older
