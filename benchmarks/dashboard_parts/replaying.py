"""A replay of dead letters whose dashboard is killed in the middle."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import psutil
from tests.support import commands
from tests.web.dead.serving import finished
from tests.web.serving import take_token

import rabbitry
from benchmarks.dashboard_parts.scene import PATIENCE, Scene, cpu
from rabbitry.amqp.client import Channel, Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.flow.wiring.dead_letters import BATCH


async def measure_replay(scene: Scene) -> None:
    """Measure a replay of dead letters whose dashboard is killed in the middle, and count what got lost or doubled."""
    async with rabbitry.connect(scene.broker) as connection:
        channel = await connection.channel()
        for queue in ("bench.dead", "bench.replayed"):
            await channel.declare_queue(queue, durable=True)
        headers: dict[str, FieldValue] = {
            "x-rabbitry-reason": "failed", "x-rabbitry-traceback": "x" * 1500, "x-rabbitry-queue": "bench.replayed",
        }  # fmt: skip
        for number in range(scene.letters):
            properties = Properties(headers=headers, message_id=f"m{number}", delivery_mode=2)
            await channel.send(b"%06d" % number + b"x" * 194, routing_key="bench.dead", properties=properties)
        await channel.wait_for_confirms()
        await _replay(scene, channel, scene.letters // 2, is_killed=True)
        # The broker takes back what the killed dashboard held.
        await _until(lambda: _both(channel), scene.letters)
        before = await _ready(channel, "bench.replayed")
        left = await _ready(channel, "bench.dead")
        broker = cpu(scene.broker_process)
        took, spent = await _replay(scene, channel, before + left, is_killed=False)
        broker = cpu(scene.broker_process) - broker
        found: Counter[bytes] = Counter()
        while (delivery := await channel.get("bench.replayed", no_ack=True)) is not None:
            found[delivery.body] += 1
        for queue in ("bench.dead", "bench.replayed"):
            await channel.delete_queue(queue)
    lost, doubled = scene.letters - len(found), found.total() - len(found)
    what = f"a replay of {scene.letters:,} dead letters with a kill in the middle"
    scene.add(what, f"{lost:,} lost, {doubled:,} twice", f"0 lost, <= {BATCH:,} twice")
    each = f"{spent / left * 1e6:.0f} µs of the dashboard's CPU each, {broker / left * 1e6:.0f} µs of the broker's"
    scene.add(f"the same: the {left:,} after the kill", f"{left / took:,.0f} a second, {each}", ">= 5,000 a second")


async def _replay(scene: Scene, channel: Channel, until: int, *, is_killed: bool) -> tuple[float, float]:
    """Replay with a dashboard of its own until so many are replayed; return the seconds and its CPU that it took."""
    more = {"RABBITRY_BROKER": scene.broker, "RABBITRY_MANAGEMENT": scene.management}
    with (
        tempfile.TemporaryDirectory(prefix="rabbitry-bench-") as folder,  # an audit log of its own
        commands.service("web", "--port", "0", more=more | {"XDG_DATA_HOME": folder}, anew=True) as web,
    ):
        url = web.wait_for(r"dashboard on (http://\S+/)")[1]
        async with httpx.AsyncClient(base_url=f"{url}dead/", timeout=60) as client:
            await take_token(client)
            process = psutil.Process(web.process.pid)
            began, before = time.perf_counter(), cpu(process)
            asked = {"vhost": "/", "app": "bench", "everything": True}
            (await client.post("api/replay", json=asked)).raise_for_status()
            await _until(lambda: _ready(channel, "bench.replayed"), until)
            took, spent = time.perf_counter() - began, cpu(process) - before
            if is_killed:
                web.process.kill()
                await asyncio.to_thread(web.process.wait)
            else:
                await finished(client, "replay")
    return took, spent


async def _until(asked: Callable[[], Awaitable[int]], number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await asked() < number:  # noqa: ASYNC110 # a broker does not tell when the depth of a queue changes
            await asyncio.sleep(0.05)


async def _both(channel: Channel) -> int:
    return await _ready(channel, "bench.dead") + await _ready(channel, "bench.replayed")


async def _ready(channel: Channel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).message_count
