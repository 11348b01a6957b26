"""Declaring, binding, deleting and closing over the dashboard's routes, on both brokers."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import rabbitry
from rabbitry.web.declaring import Declaring
from tests.support.management import broker_and_management
from tests.support.waiting import eventually_awaited
from tests.web.serving import served

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["embedded", "rabbitmq"])
def places(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


async def test_what_is_declared_and_bound_works_and_is_in_the_log(places: tuple[str, str]) -> None:
    broker, management = places
    async with served(broker, management, "") as client, rabbitry.connect(broker) as connection:

        async def send(path: str, **body: Any) -> None:
            answer = await client.post(path, json=body)
            assert answer.status_code == 200, answer.text

        queue, exchange = {"vhost": "/", "name": "made/here"}, {"vhost": "/", "name": "an exchange"}
        binding = {"vhost": "/", "source": "an exchange", "destination": "made/here"}
        await send("/queues/api/declare", **queue, arguments={"x-max-length": 10})
        await send("/exchanges/api/declare", **exchange, type="topic")
        await send("/exchanges/api/bind", **binding, routing_key="a.*")
        channel = await connection.channel()
        await channel.publish(b"one", exchange="an exchange", routing_key="a.b")  # mandatory: it was routed
        found = (await channel.declare_queue("made/here", durable=True, arguments={"x-max-length": 10})).message_count
        assert found == 1
        await send("/exchanges/api/unbind", **binding, properties_key="a.%2A")
        with pytest.raises(rabbitry.PublishReturned):
            await channel.publish(b"two", exchange="an exchange", routing_key="a.b")

        other = await client.post("/queues/api/declare", json=queue | {"durable": True})
        assert other.status_code == 503
        assert "x-max-length" in other.json()["error"]  # the broker's own reason
        wrong = await client.post("/exchanges/api/delete", json=exchange | {"confirm": "an exchang"})
        assert (wrong.status_code, "is not the exchange's name" in wrong.json()["error"]) == (400, True)
        await send("/exchanges/api/delete", **exchange, confirm="an exchange")
        await send("/queues/api/delete", **queue, confirm="made/here")
        entries = (await client.get("/audit/api/entries")).json()
        assert [(entry["action"], entry["result"] == "done") for entry in reversed(entries)] == [
            ("declare queue", True), ("declare exchange", True), ("bind queue", True), ("unbind queue", True),
            ("declare queue", False), ("delete exchange", True), ("delete", True),
        ]  # fmt: skip
        assert {entry["who"] for entry in entries} == {"this machine"}


async def test_a_connection_is_closed_with_a_reason(places: tuple[str, str]) -> None:
    broker, management = places
    async with served(broker, management, "") as client, httpx.AsyncClient(auth=("guest", "guest"), timeout=60) as api:

        async def names() -> list[str]:
            listed = (await api.get(f"{management.rstrip(chr(47))}/api/connections")).json()
            mine = [one for one in listed if one.get("client_properties", {}).get("connection_name") == "to close"]
            return [one["name"] for one in mine]

        async with rabbitry.connect(broker, client_properties={"connection_name": "to close"}) as connection:
            await connection.channel()
            (name,) = await eventually_awaited(names, "the connection is listed")
            body = {"name": name, "confirm": name, "reason": "näch 5"}
            assert (await client.post("/connections/api/close", json=body | {"confirm": "x"})).status_code == 400
            assert (await client.post("/connections/api/close", json=body | {"reason": "a\r\nX: b"})).status_code == 400
            assert name in await names()
            assert (await client.post("/connections/api/close", json=body)).status_code == 200

            async def is_gone() -> bool:
                return name not in await names()

            await eventually_awaited(is_gone, "the connection is closed; its client makes another one")
        (entry,) = (await client.get("/audit/api/entries")).json()
        assert (entry["action"], entry["queue"], entry["result"]) == ("close connection: näch 5", name, "done")


async def test_wrong_requests_are_refused_in_words(places: tuple[str, str]) -> None:
    async with served(*places, "") as client:
        for path, body in (
            ("/queues/api/declare", {"vhost": "/", "name": ""}),
            ("/queues/api/declare", {"vhost": "..", "name": "a"}),
            ("/queues/api/declare", {"vhost": "/", "name": "amq.mine"}),
            ("/exchanges/api/declare", {"vhost": "/", "name": "amq.mine", "type": "topic"}),
            ("/queues/api/declare", {"vhost": "/", "name": "a", "durable": "yes"}),
            ("/exchanges/api/bind", {"vhost": "/", "source": "a", "destination": "b", "destination_type": "x"}),
            ("/exchanges/api/declare", {"vhost": "/", "name": "a"}),
            ("/connections/api/close", []),
        ):
            answer = await client.post(path, json=body)
            assert (answer.status_code, bool(answer.json()["error"])) == (400, True), path
        long = await client.post("/queues/api/declare", json={"vhost": "/", "name": "q" * 20_000})
        assert long.status_code == 503
        assert len(long.json()["error"]) < 1000
        nowhere = await client.post("/queues/api/declare", json={"vhost": "none", "name": "a"})
        assert nowhere.json()["error"] == "the broker refuses it: there is no virtual host 'none'"
        kind = await client.post("/exchanges/api/declare", json={"vhost": "/", "name": "a", "type": "nonsense"})
        assert kind.status_code == 503
        assert "nonsense" in kind.json()["error"]


def test_its_routes_change_something_and_are_posts() -> None:
    routes = Declaring("amqp://127.0.0.1/", None, None).router.routes  # type: ignore[arg-type] # no log is needed
    assert {method for route in routes for method in getattr(route, "methods", ())} == {"POST"}
