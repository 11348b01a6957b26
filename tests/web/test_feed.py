"""The feed over a real socket, with a real broker behind it: the embedded one and RabbitMQ."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import websockets

import rabbitry
from rabbitry.apps.settings import Settings
from rabbitry.runtime.http.pages import LONGEST_MESSAGE
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.server import create_app
from tests.support.management import broker_and_management
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["embedded", "rabbitmq"])
def watched(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


@contextlib.asynccontextmanager
async def _served(broker: str, management: str) -> AsyncIterator[str]:
    (listener,) = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    app = create_app(Settings(port=0, broker=broker), [], management)
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/feed"
    finally:
        stop.set()
        await serving


class _Client:
    """A page as feed.js is one: it applies what comes."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self.states: dict[int, dict[str, Any]] = {}

    async def open(self, number: int, topic: str, **params: object) -> None:
        await self._socket.send(json.dumps({"open": number, "topic": topic, "params": params}))

    async def until(self, number: int, member: str, wanted: Any) -> dict[str, Any]:
        """Read until a subscription's member fulfils a condition."""
        async with asyncio.timeout(90):
            while True:
                state = self.states.get(number, {})
                if member in state and wanted(state[member]):
                    return state
                for part in json.loads(await self._socket.recv()).get("parts", []):
                    self._apply(part)

    def _apply(self, part: dict[str, Any]) -> None:
        if "error" in part or part["seq"] == 1:
            self.states[part["id"]] = part
            return
        state = self.states[part["id"]]
        assert part["seq"] == state["seq"] + 1
        rows = part.pop("rows", [])
        if "length" in part:
            del state["rows"][part["length"] :]
        for index, row in rows:
            state["rows"][index : index + 1] = [row]
        state.setdefault("value", {}).update(part.pop("set", {}))
        state.update(part)


@contextlib.asynccontextmanager
async def _page(url: str) -> AsyncIterator[_Client]:
    async with websockets.connect(url, proxy=None) as socket:
        yield _Client(socket)


async def test_the_broker_and_its_queues_are_shown_and_follow(watched: tuple[str, str]) -> None:
    async with _served(*watched) as url, _page(url) as page, rabbitry.connect(watched[0]) as connection:
        channel = await connection.channel()
        for name in ("feed-one", "feed-two"):
            await channel.declare_queue(name, durable=True)
        await page.open(1, "broker")
        await page.open(2, "queues", filter="feed-", sort=["-ready", "name"])
        await page.open(3, "sources")
        state = await page.until(1, "value", lambda value: value.get("version"))
        assert state["value"]["product"] in ("Rabbitry", "RabbitMQ")
        assert state["at"] > 0
        state = await page.until(2, "rows", lambda rows: [row[1] for row in rows] == ["feed-one", "feed-two"])
        await page.until(3, "value", lambda value: value["management"]["state"] == "live")
        await channel.publish(b"x", routing_key="feed-two")
        ready = state["columns"].index("ready")
        state = await page.until(2, "rows", lambda rows: [row[1] for row in rows] == ["feed-two", "feed-one"])
        assert [row[ready] for row in state["rows"]] == [1, 0]
        for name in ("feed-one", "feed-two"):
            await channel.delete_queue(name)
        await page.until(2, "rows", lambda rows: rows == [])


async def test_a_missing_management_api_is_told_with_what_helps() -> None:
    async with _served("amqp://127.0.0.1", f"http://127.0.0.1:{free_port()}") as url, _page(url) as page:
        await page.open(1, "queues")
        await page.open(2, "sources")
        state = await page.until(2, "value", lambda value: value["management"]["state"] == "missing")
        assert "no management API at" in state["value"]["management"]["reason"]
        assert "rabbitmq-plugins enable rabbitmq_management" in state["value"]["management"]["todo"]


async def test_a_page_of_another_site_gets_no_feed() -> None:
    async with _served("amqp://127.0.0.1", "http://127.0.0.1:1") as url:
        with pytest.raises(websockets.InvalidStatus) as error:
            async with websockets.connect(url, origin=websockets.Origin("http://evil.example"), proxy=None):
                pass
        assert error.value.response.status_code == 403


async def _to_the_end(socket: websockets.ClientConnection) -> None:
    async with asyncio.timeout(90):
        while True:
            await socket.recv()


@pytest.mark.parametrize(("message", "code"), [(b"bytes", 1003), ("x" * (LONGEST_MESSAGE + 1), 1009)])
async def test_messages_that_no_page_sends_end_the_socket(message: str | bytes, code: int) -> None:
    async with _served("amqp://127.0.0.1", "http://127.0.0.1:1") as url:
        async with websockets.connect(url, proxy=None) as socket:
            await socket.send(message)
            with pytest.raises(websockets.ConnectionClosed) as error:
                await _to_the_end(socket)
            assert error.value.rcvd is not None
            assert error.value.rcvd.code == code
