"""Pausing and resuming over the routes of the Flows view, with a real broker."""

import asyncio
from pathlib import Path

import pytest

import rabbitry
from rabbitry.flow import schemas
from rabbitry.flow.wiring import pausing
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.web.login.sessions import TOKEN_HEADER as HEADER
from tests.support.waiting import eventually_awaited
from tests.web.serving import served


async def test_a_stage_is_paused_and_resumed_once_and_it_is_logged(
    embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RECORDS_FOLDER, str(tmp_path))
    app = rabbitry.App("shop")

    @app.stage("in")
    async def bill(text: str) -> None: ...

    which = {"app": "shop", "stage": "bill"}
    async with (
        served(embedded_url, None, "flows/") as client,
        app.publisher(embedded_url),
        rabbitry.connect(embedded_url) as other,
    ):

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
        assert (await client.get("api/asyncapi", params={"app": "shop"})).status_code == 404, "no worker ran"
        async with app.worker(embedded_url):

            async def is_announced() -> bool:
                answer = await client.get("api/asyncapi", params={"app": "shop"})
                return answer.status_code == 200 and answer.json() == schemas.document(app.spec())

            await eventually_awaited(is_announced, "the app's document")
        del client.headers[HEADER]
        assert (await client.post("api/pause", json=which)).status_code == 403
        assert await pausing.paused(other, "shop", "bill") is None
        entries = (await client.get("../audit/api/entries")).json()
        told = {(entry["action"], entry["queue"], entry["result"]) for entry in entries}
        assert ("pause", "shop.paused.bill", "done") in told
        assert ("pause", "shop.paused.bill", "already paused by this machine") in told
        assert ("resume", "shop.paused.bill", "done") in told
