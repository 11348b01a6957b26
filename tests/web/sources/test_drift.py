"""What apps declare beside what is on the broker, with real workers and the management API of both brokers."""

from collections.abc import Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps.management import open_client
from rabbitry.flow import schemas
from rabbitry.telemetry import DeclaredBinding, DeclaredExchange, DeclaredQueue, Declares, Report, decode_report
from rabbitry.telemetry._report import encode_report
from rabbitry.web.feed.topics import Value
from rabbitry.web.sources import Sources, drift
from tests.support.management import broker_and_management
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


async def test_what_is_missing_or_otherwise_there_is_told(
    system: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "EVERY", 0.2)
    monkeypatch.setattr(drift, "SHARE", 0)
    broker, management = system
    app = rabbitry.App("drifting")

    @app.stage("in", then="out")
    async def handle(text: str) -> str:
        return text

    app.output("out", queue="drifting.results")
    sources = Sources(broker, management)
    topic = sources.topics["drift"]
    assert isinstance(topic, Value)
    topic.subscribe({}, lambda: None)

    def found() -> list[dict[str, Any]] | None:
        some: list[dict[str, Any]] | None = topic.value["apps"].get("drifting")
        return some

    async with sources.running(), rabbitry.connect(broker) as connection, await connection.channel() as channel:
        await channel.declare_queue("drifting.results", durable=True, arguments={"x-max-length": 7})
        async with app.worker(broker):
            await eventually(lambda: found() is not None, "a comparison")
            await eventually(lambda: len(found() or []) == 1, "the queue that was there before")
            (first,) = found() or []
            assert (first["what"], first["text"]) == (
                "queue 'drifting.results'", "x-max-length is 7, and should not be set",
            )  # fmt: skip
            assert "Workers use it as it is" in first["todo"]
            await channel.unbind_queue("drifting.handle", "drifting", "in")
            await channel.delete_queue("drifting.dead")
            await eventually(lambda: len(found() or []) == 3, "what went")
            told = {one["what"]: one["text"] for one in found() or []}
            assert told["queue 'drifting.dead'"] == "it is missing"
            assert told["binding of queue 'drifting.handle' to exchange 'drifting' with key 'in'"] == "it is missing"
        for name in ("drifting.results", "drifting.handle"):
            await channel.delete_queue(name)
    assert topic.value["reason"] == ""


async def test_without_a_management_api_the_reason_is_told(embedded_url: str) -> None:
    app = rabbitry.App("alone")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    sources = Sources(embedded_url, f"http://127.0.0.1:{free_port()}")
    topic = sources.topics["drift"]
    assert isinstance(topic, Value)
    topic.subscribe({}, lambda: None)
    drift_source = sources._drift
    async with sources.running():
        drift_source._take(decode_report(encode_report(app.worker(embedded_url)._engine.counting.reports("start")[0])))
        await eventually(lambda: "no management API" in topic.value["reason"], "the reason", within=60)


def test_what_apps_declare_is_bounded() -> None:
    source = Sources("amqp://127.0.0.1:1/")._drift
    long = "x" * (drift.LONGEST + 1)
    few = Declares(
        [DeclaredExchange(long, "topic"), DeclaredExchange("e", "topic")],
        [
            DeclaredQueue("q", arguments={"b": 10**300}),
            DeclaredQueue("long value", arguments={"a": long}),  # half of the arguments would differ from the broker's
            DeclaredQueue("long name", arguments={long: 1}),
            DeclaredQueue("many", arguments={f"x{number}": 1 for number in range(51)}),
            DeclaredQueue(long),
        ],
        [DeclaredBinding("e", "q", long), DeclaredBinding("e", "q", "k")],
    )
    source._take(_declaring("few", few))
    bounded = source._wanted["few"]
    assert ([one.name for one in bounded.exchanges], [one.name for one in bounded.queues]) == (["e"], ["q"])
    assert (bounded.queues[0].arguments, len(bounded.bindings)) == ({"b": 10**300}, 1)
    many = Declares(queues=[DeclaredQueue(f"q{number}") for number in range(10_000)])
    for number in range(20):
        source._take(_declaring(f"app{number}", many))
    source._take(_declaring("few", few))
    assert {len(each.queues) for each in source._wanted.values()} == {1, drift.MOST_OBJECTS}
    assert sum(len(each.queues) for each in source._wanted.values()) <= drift.MOST_OF_ALL


async def test_names_that_cannot_be_asked_for_hide_no_other_difference(system: tuple[str, str]) -> None:
    broker, management = system
    names = ("", ".", "..", "\u20ac" * 200, "lost")
    declares = Declares(
        [DeclaredExchange(name, "topic") for name in names],
        [DeclaredQueue(name, arguments={"x": "y" * 10_000}) for name in (*names, "there")],
        [DeclaredBinding("amq.topic", "there", f"k{number}") for number in range(1000)],
    )
    login = parse_url(broker)
    async with (
        rabbitry.connect(broker) as connection,
        await connection.channel() as channel,
        open_client(management, login) as client,
    ):
        await channel.declare_queue("there", durable=True)
        found = await drift.compare(client, login.virtual_host, declares)
        await channel.delete_queue("there")
    assert len(found) == drift.MOST_FOUND
    assert [one["what"] for one in found[:3]] == ["exchange 'lost'", "queue 'lost'", "queue 'there'"]
    assert all(len(one["text"]) < 1000 for one in found)


def _declaring(app: str, declares: Declares) -> Report:
    return Report("start", app, "role", "id", "host", 1, 0.0, 0.0, declares=declares)


def test_a_worker_says_what_its_app_declares_in_its_first_report_and_again() -> None:
    app = rabbitry.App("often")

    @app.stage("in", queue_arguments={"x-max-length": 3})
    async def handle(text: str) -> None: ...

    @app.stage("other")
    async def another(text: str) -> None: ...

    counting = app.worker()._engine.counting
    reports = [decode_report(encode_report(report)) for _ in range(31) for report in counting.reports("heartbeat")]
    declares = [report.declares for report in reports if report.declares is not None]
    assert len(declares) == 3
    assert [report.document for report in reports if report.declares is not None] == [schemas.document(app.spec())] * 3
    queues = {queue.name: queue.arguments for queue in declares[0].queues}
    assert queues["often.handle"] == {"x-max-length": 3}
    assert "often.paused.another" in queues
