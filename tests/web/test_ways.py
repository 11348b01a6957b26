"""One message's way over HTTP, with a real worker on both brokers: stages, attempts, dead letter, and the search."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

import rabbitry
from rabbitry.telemetry import MASK
from tests.support.ports import free_port
from tests.support.waiting import eventually_awaited
from tests.web.serving import served

pytestmark = pytest.mark.timeout(240)


async def test_a_message_is_followed_through_its_stages_to_its_dead_letter(broker_url: str) -> None:
    app = rabbitry.App("followed")

    @app.stage("order", then="parcel")
    async def split(text: str) -> AsyncIterator[str]:
        yield text
        yield "bad"

    @app.stage("parcel", attempts=2, delays=[0.0])
    async def send(text: str) -> None:
        if text == "bad":
            raise ValueError("password=hunter2")

    async with served(broker_url, f"http://127.0.0.1:{free_port()}", "way/") as client:

        async def get(path: str, **params: str) -> Any:
            return (await client.get(f"api/{path}", params=params)).raise_for_status().json()

        async def collected() -> bool:
            return bool((await get("recent"))["nodes"])

        async with app.worker(broker_url), app.publisher(broker_url) as publisher:
            await eventually_awaited(collected, "a report, so that none of what follows is missed")
            identity = await publisher.publish("good", key="order")

            async def followed() -> list[dict[str, Any]]:
                found = (await get("chain", id=identity))["passages"]
                return found if len(found) >= 4 else []

            passages = await eventually_awaited(followed, "both stages, and two attempts")
            (first,) = (one for one in passages if one["stage"] == "split")
            others = [one for one in passages if one["stage"] == "send"]
            assert first["message"] == first["chain"] == identity
            assert set(first["ids"]) == {one["message"] for one in others}
            attempts = [(one["attempt"], one["end"]) for one in others if one["outcome"] != "done"]
            assert sorted(attempts) == [(1, "again"), (2, "dead")]
            (dead,) = (one for one in others if one["end"] == "dead")
            assert dead["error"] == f"ValueError: password={MASK}"
            assert "in send" in dead["trace"]
            assert "hunter2" not in str(passages)
            assert (await get("chain", id=dead["message"]))["chain"] == identity
            assert identity in [one["chain"] for one in (await get("recent"))["failed"]]
            passed = await get("queue", name="followed.send")
            assert {one["message"] for one in passed} == {one["message"] for one in others}
            assert passed[0]["began"] >= passed[-1]["began"]
            assert await get("queue", name="none") == []
            found = await get("search", words=identity[:8].upper())
            assert {"kind": "message", "title": identity, "id": identity} in found
            kinds = {one["kind"] for one in await get("search", words="followed")}
            assert kinds == {"stage", "queue"}
            assert (await client.get("api/chain", params={"id": "x" * 300})).status_code == 400
