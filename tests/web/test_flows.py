"""Pausing and resuming over the routes of the Flows view, with a real broker."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import rabbitry
from rabbitry.apps.settings import Settings
from rabbitry.flow.wiring import pausing
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.web.login.sessions import TOKEN_HEADER as HEADER
from rabbitry.web.server import create_app
from tests.support.waiting import eventually_awaited


@contextlib.asynccontextmanager
async def _served(broker: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a dashboard; the client has the token of its pages."""
    (listener,) = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(create_app(Settings(port=0, broker=broker), []), [listener], stop))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/flows/"
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            found = re.search(r'<meta name="rabbitry-token" content="([\w-]{30,})">', (await client.get("")).text)
            assert found is not None
            client.headers[HEADER] = found[1]
            yield client
    finally:
        stop.set()
        await serving


async def test_a_stage_is_paused_and_resumed_once_and_it_is_logged(
    embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RECORDS_FOLDER, str(tmp_path))
    app = rabbitry.App("shop")

    @app.stage("in")
    async def bill(text: str) -> None: ...

    which = {"app": "shop", "stage": "bill"}
    async with _served(embedded_url) as client, app.publisher(embedded_url), rabbitry.connect(embedded_url) as other:

        async def is_connected() -> bool:
            return (await client.post("api/resume", json=which)).status_code == 200

        await eventually_awaited(is_connected, "a connection of the dashboard")
        both = await asyncio.gather(*(client.post("api/pause", json=which | {"why": "so"}) for _ in range(2)))
        assert sorted(answer.json()["paused"] for answer in both) == [False, True]
        held = await pausing.paused(other, "shop", "bill")
        assert held is not None
        assert (held.by, held.why) == ("this machine", "so")
        both = await asyncio.gather(*(client.post("api/resume", json=which) for _ in range(2)))
        assert True in [answer.json()["resumed"] for answer in both]
        assert await pausing.paused(other, "shop", "bill") is None
        for path, body in (("pause", {"app": "shop"}), ("resume", []), ("pause", {"app": "x" * 20_000, "stage": ""})):
            assert (await client.post(f"api/{path}", json=body)).status_code == 400
        unknown = await client.post("api/pause", json={"app": "shop", "stage": "none"})
        assert (unknown.status_code, "no stage 'none'" in unknown.json()["error"]) == (400, True), unknown.text
        del client.headers[HEADER]
        assert (await client.post("api/pause", json=which)).status_code == 403
        assert await pausing.paused(other, "shop", "bill") is None
        entries = (await client.get("../audit/api/entries")).json()
        told = {(entry["action"], entry["queue"], entry["result"]) for entry in entries}
        assert ("pause", "shop.paused.bill", "done") in told
        assert ("pause", "shop.paused.bill", "already paused by this machine") in told
        assert ("resume", "shop.paused.bill", "done") in told
