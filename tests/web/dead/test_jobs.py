"""A replay whose dashboard is killed, and one that lasts longer than a pass."""

import asyncio
import os
from collections import Counter

import httpx
import pytest

import rabbitry
from rabbitry.flow.wiring.dead_letters import BATCH
from rabbitry.web.dead import jobs
from tests.support import commands
from tests.support.waiting import eventually_awaited
from tests.web.dead.serving import bury, count, finished, served, settled, taken
from tests.web.serving import System, take_token

pytestmark = pytest.mark.timeout(240)
_LETTERS = 1000
_ALL = {"vhost": "/", "app": "kill", "everything": True}


async def test_a_kill_in_the_middle_loses_nothing(system: System) -> None:
    more = {"RABBITRY_BROKER": system.broker, "RABBITRY_MANAGEMENT": system.management}
    more["XDG_DATA_HOME"] = os.environ["XDG_DATA_HOME"]  # one audit log before and after
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kill.queue", durable=True)
        bodies = [b"%d" % number for number in range(_LETTERS)]
        await bury(channel, "kill", bodies, queue="kill.queue")
        with commands.service("web", "--port", "0", more=more) as web:
            url = web.wait_for(r"dashboard on (http://\S+/)")[1]
            async with httpx.AsyncClient(base_url=f"{url}dead/", timeout=60) as client:
                await take_token(client)
                assert (await client.post("api/replay", json={**_ALL, "rate": 100})).status_code == 200

            async def is_in_the_middle() -> bool:
                return await count(channel, "kill.queue") > 100

            await eventually_awaited(is_in_the_middle, "100 are replayed")
            web.process.kill()
            await asyncio.to_thread(web.process.wait)
        replayed: Counter[bytes] = Counter()

        async def all_are_there() -> bool:
            nonlocal replayed
            replayed += await taken(channel, "kill.queue")
            return await count(channel, "kill.dead") + len(replayed) >= _LETTERS

        await eventually_awaited(all_are_there, "what the dashboard held is back")
        assert len(replayed) < _LETTERS
        async with served(system) as client:
            killed = [
                entry
                for entry in (await client.get("../audit/api/entries")).json()
                if entry["action"] == "replay dead letters: all"
            ]
            assert killed[0]["result"].endswith(("so far", "its end is not known"))
            assert (await client.post("api/replay", json=_ALL)).status_code == 200
            await finished(client, "replay")
        replayed += await taken(channel, "kill.queue")
        assert set(replayed) == set(bodies)
        assert sum(replayed.values()) - _LETTERS <= BATCH
        assert max(replayed.values()) <= 2


async def test_a_long_replay_gives_back_what_it_holds_and_goes_on(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PASS", 0.05)
    async with rabbitry.connect(system.broker) as connection, served(system) as client:
        channel = await connection.channel()
        await channel.declare_queue("long.queue", durable=True)
        await bury(channel, "long", [b"%d" % number for number in range(40)], queue="long.queue")
        await bury(channel, "long", [b"stays"], queue="long.gone")
        asked = {"vhost": "/", "app": "long", "everything": True, "rate": 100}
        assert (await client.post("api/replay", json=asked)).status_code == 200
        result = (await finished(client, "replay"))[0]["result"]
        assert result.startswith("40 replayed, 1 stayed")
        assert await taken(channel, "long.queue") == {b"%d" % number: 1 for number in range(40)}
        await settled(channel, "long.dead", 1)
