"""The API for programs: live topics, and its OpenAPI document."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI, Response
from openapi_spec_validator import validate

import rabbitry
from rabbitry.apps import Site
from rabbitry.apps.api import answers
from rabbitry.apps.settings import Settings
from rabbitry.web import api as limits
from rabbitry.web.feed.topics import Value
from rabbitry.web.server import create_app, mounts
from rabbitry.web.sources.details import MOST_LISTED
from tests.support.management import broker_and_management
from tests.support.ports import free_port
from tests.web.described import Described

pytestmark = pytest.mark.timeout(240)


@contextlib.asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    hooks = {"response": [Described(limits.described(app)).check]}
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=90, event_hooks=hooks) as client,
    ):
        yield client


async def test_the_document_of_all_routes_is_valid(tmp_path: Path) -> None:
    app = create_app(Settings(port=0), mounts(Site(broker="amqp://127.0.0.1:1/")))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        document = (await client.get("/api/openapi.json")).json()
    validate(document)
    paths = document["paths"]
    wanted = {"/api/topics/{topic}", "/metrics", "/queues/api/purge", "/audit/api/entries", "/api/machines"}
    assert wanted <= paths.keys()
    purge = paths["/queues/api/purge"]["post"]
    schema = purge["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["vhost", "name", "confirm"]
    assert [each["name"] for each in purge["parameters"]] == ["X-Rabbitry-Token"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            (media,) = operation["responses"]["200"]["content"].values()
            assert media["schema"], f"{method} {path} has an answer of a known shape"


def test_shapes_of_one_name_are_told_apart() -> None:
    async def route() -> Response:
        return Response()

    app = FastAPI()
    plain = msgspec.defstruct("Entry", [("number", int)])
    tagged = [msgspec.defstruct(name, [(name.lower(), str)], tag=True) for name in ("Entry", "Other")]
    for path, shape in {"/plain": plain, "/again": plain, "/tagged": tagged[0] | tagged[1]}.items():
        app.add_api_route(path, route, responses=answers(shape))
    document = limits.described(app)
    validate(document)
    assert document == limits.described(app)
    shapes = [
        document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for path in ("/plain", "/again", "/tagged")
    ]
    assert shapes[0] == shapes[1] == {"$ref": "#/components/schemas/Entry"}
    others = {name: f"#/components/schemas/{name}2" for name in ("Entry", "Other")}
    assert [each["$ref"] for each in shapes[2]["anyOf"]] == [*others.values()]
    assert shapes[2]["discriminator"]["mapping"] == others
    assert others["Entry"].rpartition("/")[2] in document["components"]["schemas"]


@pytest.fixture(params=["embedded", "rabbitmq"])
def watched(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


async def test_topics_are_told_as_they_are_now(watched: tuple[str, str]) -> None:
    url, management = watched
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        for name in ("own-a", "own-b", "own-c"):
            await channel.declare_queue(name, durable=True)
        app = create_app(Settings(port=0, broker=url), [], management)
        async with _client(app) as client:
            found = (await client.get("/api/topics/queues?sort=-name&filter=name=own-&count=2")).json()
            assert [row[found["columns"].index("name")] for row in found["rows"]] == ["own-c", "own-b"]
            assert found["matching"] == 3
            whole = (await client.get("/api/topics/broker")).json()
            assert whole["value"]["totals"]["queues"] >= 3  # the dashboard may have queues too
            queue = (await client.get("/api/topics/queue?name=own-a")).json()
            assert queue["value"]["queue"]["name"] == "own-a"
            keys = [f"key {number}" for number in range(MOST_LISTED + 2)]
            await asyncio.gather(*(channel.bind_queue("own-b", "amq.topic", key, arguments={"x-n": 1}) for key in keys))
            other = (await client.get("/api/topics/exchange?name=amq.topic")).json()["value"]
            assert (other["exchange"]["type"], len(other["outgoing"]), other["left_out"]) == ("topic", MOST_LISTED, 2)
            assert other["outgoing"][0]["arguments"] == {"x-n": 1}
            bound = (await client.get("/api/topics/queue?name=own-b")).json()["value"]
            assert (len(bound["bindings"]), bound["left_out"]) == (MOST_LISTED, 3)  # and that of the default exchange
            shown = (await client.get("/api/topics/topology")).json()["value"]
            assert shown["e:x://amq.topic>q://own-b"]["keys"] == sorted(keys)[:5]
            assert "queues" in (await client.get("/api/topics")).json()
            metrics = await client.get("/metrics")
            assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert re.search(r"^rabbitmq_queues [1-9]", metrics.text, re.MULTILINE)
            detailed = (await client.get("/metrics/detailed")).text
            assert '\nrabbitmq_detailed_queue_messages_ready{vhost="/",queue="own-a"} 0\n' in detailed


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/api/topics/nothing", 404, "there is no topic 'nothing'"),
        ("/api/topics/queues?sort=nothing", 400, "there is no column 'nothing'"),
        ("/api/topics/queues?count=501", 400, "count"),
        ("/api/topics/queue", 400, "parameters of the topic queue"),
        ("/api/topics/broker", 503, "no data for topic 'broker'"),
    ],
)
async def test_a_request_that_cannot_be_answered_says_why(
    path: str, status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.5)
    app = create_app(Settings(port=0, broker=f"amqp://127.0.0.1:{free_port()}/"), [], f"http://127.0.0.1:{free_port()}")
    async with _client(app) as client:
        answer = await client.get(path)
        assert answer.status_code == status
        assert text in answer.json()["error"]
        assert (await client.get("/metrics")).text.endswith("\nrabbitry_broker_up 0\n")


async def test_what_is_old_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.05)
    topic = Value()
    topic.put({"a": 1}, at=5.0)
    found: dict[str, Any] = await limits._now("t", topic, {})
    assert found == {"value": {"a": 1}, "at": 5.0}  # nothing newer came
    assert not topic.wanted.is_set()
