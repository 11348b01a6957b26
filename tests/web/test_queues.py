"""The routes of the Queues view over real sockets, with the embedded broker and RabbitMQ behind them."""

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import rabbitry
from rabbitry import Properties
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.telemetry import MASK
from rabbitry.web.login.sessions import TOKEN_HEADER as HEADER
from rabbitry.web.queues import AT_ONCE, LONGEST
from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.web.serving import System, served

pytestmark = pytest.mark.timeout(240)
_QUEUE = "look/at me"
_SECRETS = b'{"password": "hunter2"}'


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        yield System(server.url, management_url(server), is_rabbitmq=True)
        return
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        yield System(broker.url, f"http://127.0.0.1:{port}", is_rabbitmq=False)


@contextlib.asynccontextmanager
async def _queue(broker: str) -> AsyncIterator[None]:
    """A queue with three messages."""
    async with rabbitry.connect(broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue(_QUEUE)
        try:
            for body in (b"first", b"\xff" * (LONGEST + 1), _SECRETS):
                properties = Properties(headers={"n": len(body), "x-token": "hunter2"})
                await channel.publish(body, routing_key=_QUEUE, properties=properties)
            yield
        finally:
            await channel.delete_queue(_QUEUE)


def _named(queue: str = _QUEUE) -> dict[str, str]:
    return {"vhost": "/", "name": queue}


async def _ready(client: httpx.AsyncClient, *, are_redelivered: bool) -> list[dict[str, Any]]:
    """Return a queue's messages, after all were put back."""
    while True:
        answer = await client.post("api/messages", json=_named())
        found: list[dict[str, Any]] = answer.json()["messages"]
        if len(found) == 3:
            assert [each["redelivered"] for each in found] == [are_redelivered] * 3
            return found


async def test_messages_are_looked_at_as_the_broker_can(system: System) -> None:
    async with _queue(system.broker), served(system.broker, system.management, "queues/") as client:
        for _ in range(3):
            looked = await client.get("api/messages", params=_named())
            assert looked.status_code == 200, looked.text
        if system.is_rabbitmq:
            assert looked.json() == {"fetches": True}
            await _ready(client, are_redelivered=False)  # asking changed nothing
            return
        found = looked.json()
        assert (found["ready"], found["offset"]) == (3, 0)
        first, binary, _ = found["messages"]
        assert base64.b64decode(first["payload"]) == b"first"
        assert first["properties"]["headers"] == {"n": 5, "x-token": MASK}
        assert (binary["payload"], binary["is_hidden"]) == ("", True)  # what is no text can't be masked
        assert (binary["shown_bytes"], binary["payload_bytes"]) == (LONGEST, LONGEST + 1)
        rest = (await client.get("api/messages", params={**_named(), "offset": 2})).json()["messages"]
        assert [(each["payload_bytes"], each["is_masked"]) for each in rest] == [(len(_SECRETS), True)]
        assert b"hunter2" not in base64.b64decode(rest[0]["payload"])
        await _ready(client, are_redelivered=False)
        assert AT_ONCE > 3


async def test_messages_are_fetched_and_put_back(system: System) -> None:
    async with _queue(system.broker), served(system.broker, system.management, "queues/") as client:
        await _ready(client, are_redelivered=False)
        found = await _ready(client, are_redelivered=True)
        assert base64.b64decode(found[0]["payload"]) == b"first"


async def _entries(client: httpx.AsyncClient) -> list[tuple[str, ...]]:
    answer = await client.get("../audit/api/entries")
    names = ("who", "action", "vhost", "queue", "result")
    return [tuple(entry[name] for name in names) for entry in answer.json()]


async def test_a_queue_is_purged_and_deleted_and_both_are_in_the_log(system: System) -> None:
    async with _queue(system.broker), served(system.broker, system.management, "queues/") as client:
        async with rabbitry.connect(system.broker) as connection:
            channel = await connection.channel()
            for typed in ("", "look", _QUEUE.upper(), f"{_QUEUE} "):
                for action in ("purge", "delete"):
                    answer = await client.post(f"api/{action}", json={**_named(), "confirm": typed})
                    assert answer.status_code == 400
                    assert "is not the queue's name" in answer.json()["error"]
            assert (await channel.declare_queue(_QUEUE, passive=True)).message_count == 3
            assert await _entries(client) == []
            purged = await client.post("api/purge", json={**_named(), "confirm": _QUEUE})
            assert (purged.status_code, purged.json()) == (200, {"done": "purge"})
            assert (await channel.declare_queue(_QUEUE, passive=True)).message_count == 0
            deleted = await client.post("api/delete", json={**_named(), "confirm": _QUEUE})
            assert (deleted.status_code, deleted.json()) == (200, {"done": "delete"})
            with pytest.raises(rabbitry.ChannelClosed):
                await channel.declare_queue(_QUEUE, passive=True)
        again = await client.post("api/delete", json={**_named(), "confirm": _QUEUE})
        assert again.status_code == 503
        assert await _entries(client) == [
            ("this machine", "delete", "/", _QUEUE, again.json()["error"]),
            ("this machine", "delete", "/", _QUEUE, "done"),
            ("this machine", "purge", "/", _QUEUE, "done"),
        ]


async def test_a_change_that_cannot_be_logged_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(RECORDS_FOLDER, str(tmp_path / "file"))
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        async with _queue(broker.url), served(broker.url, f"http://127.0.0.1:{port}", "queues/") as client:
            answer = await client.post("api/purge", json={**_named(), "confirm": _QUEUE})
            assert answer.status_code == 503
            assert "the audit log" in answer.json()["error"]
            assert (await client.get("api/messages", params=_named())).json()["ready"] == 3


async def test_the_name_that_was_typed_with_the_password_is_in_the_log() -> None:
    async with served("amqp://127.0.0.1/", f"http://127.0.0.1:{free_port()}", "queues/", password="secret") as client:
        body = {**_named(), "confirm": _QUEUE}
        client.auth = httpx.BasicAuth("ann", "secret")
        assert (await client.post("api/purge", json=body)).status_code == 503
        assert [entry[0] for entry in await _entries(client)] == ["ann (shared password), this machine"]


async def test_errors_are_texts(system: System) -> None:
    async with served(system.broker, system.management, "queues/") as client:
        answers = [
            await client.get("api/messages", params=_named("missing")),
            await client.post("api/messages", json=_named("missing")),
            await client.get("api/messages", params={**_named(), "offset": 1001}),
            await client.post("api/messages", json={"vhost": "/"}),
            await client.get("api/messages", params={"vhost": "..", "name": "overview"}),
            await client.post("api/delete", json={"vhost": "..", "name": "reset", "confirm": "reset"}),
            await client.post("api/messages", content=b"{" * 20_000),
        ]
        assert [answer.status_code for answer in answers] == [503, 503, 400, 400, 400, 400, 400]
        assert all(isinstance(answer.json()["error"], str) for answer in answers)
    async with served(system.broker, f"http://127.0.0.1:{free_port()}", "queues/") as client:
        answer = await client.get("api/messages", params=_named())
        assert answer.status_code == 503
        assert "no management API at" in answer.json()["error"]


_CONFIRMED = {**_named(), "confirm": _QUEUE}
_CHANGES = {"api/messages": _named(), "api/purge": _CONFIRMED, "api/delete": _CONFIRMED}


@pytest.mark.parametrize("path", _CHANGES)
async def test_changes_need_the_token_and_the_dashboards_own_page(path: str) -> None:
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        async with _queue(broker.url), served(broker.url, f"http://127.0.0.1:{port}", "queues/") as client:
            token = client.headers.pop(HEADER)
            wrong: list[tuple[dict[str, str], int]] = [
                ({}, 403), ({HEADER: ""}, 403), ({HEADER: token[:-1]}, 403), ({HEADER: f"{token}x"}, 403),
                ({HEADER: token, "Origin": "http://evil.example"}, 403),
                ({HEADER: token, "Sec-Fetch-Site": "cross-site"}, 403),
                ({HEADER: token, "Host": "evil.example"}, 421),
            ]  # fmt: skip
            for headers, status in wrong:
                answer = await client.post(path, json=_CHANGES[path], headers=headers)
                assert answer.status_code == status, headers
                assert len(headers) > 1 or "token" in answer.json()["error"]
            found = (await client.get("api/messages", params=_named())).json()
            assert [each["redelivered"] for each in found["messages"]] == [False] * 3
            assert await _entries(client) == []
            client.headers[HEADER] = token
            for verb in ("PUT", "DELETE", "PATCH"):
                assert (await client.request(verb, path)).status_code == 405


@pytest.mark.parametrize("path", _CHANGES)
async def test_everything_needs_the_password(path: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with served("amqp://127.0.0.1/", nowhere, "queues/", password="secret") as client:
        for read in ("api/messages?vhost=a&name=b", "../audit/api/entries"):
            assert (await client.get(read)).status_code == 401
        assert (await client.post(path, json=_CHANGES[path])).status_code == 401
        assert (await client.post(path, json=_CHANGES[path], auth=("x", "secret"))).status_code == 503
