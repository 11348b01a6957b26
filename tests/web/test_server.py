"""The dashboard over real sockets, with a feed of the test's own."""

import asyncio
import contextlib
import hashlib
import json
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import websockets

import rabbitry.web
from rabbitry.apps import Site
from rabbitry.apps.monitor.consumer import Connected, Lost, Received
from rabbitry.apps.monitor.plugin import plugin
from rabbitry.apps.monitor.web import Event, pages
from rabbitry.apps.settings import Settings
from rabbitry.runtime.http.pages import PEER_PAGE_LIMIT
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.server import Mount, create_app, mounts

_STATIC = Path(rabbitry.web.__file__).parent / "static"
_SAMPLE = b'{"hostname": "h", "cpu": 0.5, "net": {}}'


@dataclass
class Served:
    """A dashboard that is being served, and the queue that feeds it."""

    port: int
    feed: "asyncio.Queue[Event]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


@contextlib.asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Served]:
    feed: asyncio.Queue[Event] = asyncio.Queue()

    async def events() -> AsyncIterator[Event]:
        while True:
            yield await feed.get()

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[Event]]:
        source = events()
        try:
            yield source
        finally:
            await source.aclose()  # type: ignore[attr-defined] # a generator has it

    (listener,) = listen("127.0.0.1", 0)
    served = Served(listener.getsockname()[1], feed)
    stop = asyncio.Event()
    site = Site(broker=settings.broker)
    others = [mount for mount in mounts(site) if mount.plugin is not plugin]
    app = create_app(settings, [Mount(plugin, pages(site, opened)), *others])
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        yield served
    finally:
        stop.set()
        await serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with _served(Settings(port=0)) as served:
        yield served


async def _next(socket: websockets.ClientConnection, key: str) -> object:
    """The next update that says something of `key`."""
    async with asyncio.timeout(90):
        while True:
            update = json.loads(await socket.recv())
            if update.get(key):
                return update[key]


async def test_the_page_and_its_headers(served: Served) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"{served.url}/")
        assert answer.status_code == 200
        assert "<title>Overview – Rabbitry</title>" in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await client.get(f"{served.url}/monitor/static/main.js")).status_code == 200
        assert (await client.get(f"{served.url}/static/../app.py")).status_code == 404
        assert (await client.get(f"{served.url}/docs")).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8003", "127.0.0.1.evil.example", ""])
async def test_a_request_for_another_host_is_refused(served: Served, host: str) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(f"{served.url}/", headers={"Host": host})).status_code in (400, 421)


async def test_a_page_of_another_site_gets_no_websocket(served: Served) -> None:
    with pytest.raises(websockets.InvalidStatus) as error:
        async with websockets.connect(served.socket, origin=websockets.Origin("http://evil.example"), proxy=None):
            pass
    assert error.value.response.status_code == 403
    assert error.value.response.body == b"Another site's page asked.\n"


async def test_head_works_where_get_does(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        for path in (
            "/",
            "/healthz",
            "/static/html.js",
            "/monitor/",
            "/monitor/static/main.js",
            "/grading/",
            "/grading/static/api.js",
            "/crawl/",
            "/missing",
        ):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-length"] == got.headers["content-length"]


async def test_one_address_may_not_take_all_pages(served: Served) -> None:
    async with contextlib.AsyncExitStack() as pages:

        async def opened(address: str) -> websockets.ClientConnection:
            connecting = websockets.connect(served.socket, proxy=None, local_addr=(address, 0))
            return await pages.enter_async_context(connecting)

        for _ in range(PEER_PAGE_LIMIT):
            await _next(await opened("127.0.0.1"), "now")
        refused = await opened("127.0.0.1")
        with pytest.raises(websockets.ConnectionClosed):
            await refused.recv()
        assert (refused.close_code, refused.close_reason) == (
            1013,
            "32 pages are open already from your address: close one",
        )
        await _next(await opened("127.0.0.2"), "now")


async def test_updates_come_over_the_websocket(served: Served) -> None:
    origin = websockets.Origin(served.url)
    async with websockets.connect(served.socket, origin=origin, proxy=None) as socket:
        await _next(socket, "now")  # the handshake ends before the page is one that samples are kept for
        await served.feed.put(Connected())
        await served.feed.put(Received(_SAMPLE, "k"))
        hosts = await _next(socket, "samples")
        assert isinstance(hosts, list)
        assert hosts[0]["host"] == "h"
        assert hosts[0]["raw"] == _SAMPLE.decode()
        await served.feed.put(Lost("pulled the plug"))
        broker = await _next(socket, "broker")
        assert isinstance(broker, dict)
        assert (broker["state"], broker["reason"]) == ("away", "pulled the plug")
    async with websockets.connect(served.socket, proxy=None) as late:
        known = await _next(late, "hosts")
        assert isinstance(known, list)
        assert known[0]["host"] == "h"


async def test_a_page_that_sends_messages_is_closed(served: Served) -> None:
    async with websockets.connect(served.socket, proxy=None) as socket:
        await socket.send("hello?")
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in socket:
                pass  # updates, until it is closed
        assert socket.close_code == 1003


async def test_health_shows_whether_the_broker_is_connected(served: Served) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(f"{served.url}/healthz")).status_code == 503
        await served.feed.put(Connected())
        async with asyncio.timeout(90):
            while (answer := await client.get(f"{served.url}/healthz")).status_code != 200:  # noqa: ASYNC110 - HTTP has no events
                await asyncio.sleep(0.01)
        assert answer.json() == {"broker": "connected", "hosts": 0, "samples": 0}


async def test_a_password_is_required_if_there_is_one() -> None:
    async with _served(Settings(port=0, password="sesame")) as served, httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(f"{served.url}/")).status_code == 401
        assert (await client.get(f"{served.url}/", auth=("any", "wrong"))).status_code == 401
        assert (await client.get(f"{served.url}/", auth=("any", "sesame"))).status_code == 200
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(served.socket, proxy=None):
                pass
        assert refused.value.response.status_code == 401
        assert refused.value.response.body == b'{"error":"sign in first"}'


def test_vendored_files_are_unmodified() -> None:
    known = tomllib.loads((_STATIC / "vendor" / "VENDOR.toml").read_text())
    listed = {
        f"{library}/{file['name']}": file["sha256"] for library, about in known.items() for file in about["files"]
    }
    found = {
        str(path.relative_to(_STATIC / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (_STATIC / "vendor").rglob("*")
        if path.is_file() and path.name != "VENDOR.toml"
    }
    assert found == listed
    assert all(about["version"] and about["license"] for about in known.values())


def test_uvicorn_finds_the_app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert rabbitry.web.app.title == "Rabbitry"
