"""The dashboard on a large broker: CPU, bytes on the wire, memory, history, metrics. Writes docs/performance.md."""

import asyncio
import gzip
import json
import re
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import sin
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

import httpx
import msgspec
import psutil
import websockets
from playwright.async_api import async_playwright
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.programs import CHROMIUM, CHROMIUM_FLAGS
from tests.web.dead.serving import finished
from tests.web.serving import take_token
from websockets.asyncio.client import ClientConnection

import rabbitry
from benchmarks._docs import write_table
from rabbitry.amqp.client import Channel, Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.flow.wiring.dead_letters import BATCH
from rabbitry.web.history._blocks import LENGTHS, POINTS, STEPS, Series
from rabbitry.web.history._store import Store

QUEUES: Final = 10_000
CHANGES: Final = 1000
"""Messages a second, each to another queue."""
PAGES: Final = 20
SECONDS: Final = 15
SERIES: Final = 1000
LETTERS: Final = 20_000
"""Dead letters that are replayed."""
_KIB: Final = 1024
_MIB: Final = 1024 * 1024


@dataclass
class Row:
    """A measure: its figure with the unit, and what is to be reached."""

    measure: str
    found: str
    target: str = ""


@dataclass
class Scene:
    """A dashboard on a broker with many queues."""

    broker: str
    management: str
    url: str
    broker_process: psutil.Process
    dashboard: psutil.Process
    rows: list[Row] = field(default_factory=list)

    def add(self, measure: str, found: str, target: str = "") -> None:
        """Add a row to the table."""
        self.rows.append(Row(measure, found, target))
        print(json.dumps({"measure": measure, "found": found, "target": target}), flush=True)


class _Counted(ClientConnection):
    """A WebSocket that counts the bytes that come over its socket, compressed as a browser gets them."""

    received = 0
    messages = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _declare(url: str) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        for first in range(0, QUEUES, 200):
            names = (f"tasks.{number}" for number in range(first, first + 200))
            await asyncio.gather(*(channel.declare_queue(name, durable=True) for name in names))


async def _change(url: str, seconds: float) -> None:
    """Publish to one queue after the other, spread over each second."""
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        began = time.perf_counter()
        for number in range(int(CHANGES * seconds)):
            await channel.send(b"x", routing_key=f"tasks.{number * 7 % QUEUES}")
            if number % 20 == 0:
                await asyncio.sleep(max(0.0, began + number / CHANGES - time.perf_counter()))
        await channel.wait_for_confirms()


def _parts(message: str | bytes) -> list[dict[str, int]]:
    found: list[dict[str, int]] = json.loads(message).get("parts", [])
    return found


async def _look(url: str, number: int, opened: asyncio.Event) -> _Counted:
    """Open a page's subscription of 50 rows, and read until cancelled."""
    address = url.replace("http", "ws") + "feed"
    async with websockets.connect(address, proxy=None, max_size=None, create_connection=_Counted) as socket:
        assert isinstance(socket, _Counted)
        params = {"sort": ["-messages", "name"], "first": number * 10, "count": 50}
        await socket.send(json.dumps({"open": 1, "topic": "queues", "params": params}))
        try:
            async for message in socket:
                socket.messages += 1
                if not opened.is_set() and any(part.get("total", 0) >= QUEUES for part in _parts(message)):
                    opened.set()
        except asyncio.CancelledError:
            return socket
    raise RuntimeError("the dashboard closed a page's WebSocket")


async def measure_watching(scene: Scene) -> None:
    """Measure many changes while many pages look, and what being watched costs the broker."""
    before = _cpu(scene.broker_process)
    await _change(scene.broker, SECONDS)
    alone = _cpu(scene.broker_process) - before
    opened = [asyncio.Event() for _ in range(PAGES)]
    pages = [asyncio.create_task(_look(scene.url, number, one)) for number, one in enumerate(opened)]
    await asyncio.gather(*(one.wait() for one in opened))
    before, dashboard, began = _cpu(scene.broker_process), _cpu(scene.dashboard), time.perf_counter()
    await _change(scene.broker, SECONDS)
    took = time.perf_counter() - began
    watched, dashboard = _cpu(scene.broker_process) - before, _cpu(scene.dashboard) - dashboard
    for page in pages:
        page.cancel()
    sockets = await asyncio.gather(*pages)
    wire, news = max(one.received for one in sockets), min(one.messages for one in sockets) / took
    what = f"{QUEUES:,} queues, {CHANGES:,} changes a second, {PAGES} pages"
    scene.add(f"{what}: server", f"{dashboard / took:.0%} of a core", "< 15 %")
    scene.add("the same: each page's wire", f"{wire / took / 1000:.1f} kB/s, {news:.1f} updates a second", "< 20 kB/s")
    scene.add("the same: broker's cost of being watched", f"{(watched - alone) / took:.1%} of a core", "<= 5 %")
    scene.add("the same: server's memory", f"{scene.dashboard.memory_info().rss / _MIB:.0f} MiB", "< 150 MiB")


async def measure_metrics(scene: Scene) -> None:
    """Measure the answers for Prometheus."""
    async with httpx.AsyncClient(base_url=scene.url, timeout=60) as client:
        for path, target in (("/metrics", "< 300 ms"), ("/metrics/detailed", "")):
            before, began = _cpu(scene.dashboard) + _cpu(scene.broker_process), time.perf_counter()
            answer = (await client.get(path)).raise_for_status()
            took, cpu = time.perf_counter() - began, _cpu(scene.dashboard) + _cpu(scene.broker_process) - before
            size = len(answer.content) / _KIB
            found = f"{took * 1000:.0f} ms, {cpu * 1000:.0f} ms of CPU with the broker's"
            scene.add(f"`{path}` at {QUEUES:,} queues, {size:,.0f} KiB", found, target)


async def measure_page(scene: Scene) -> None:
    """Measure what the first page loads with its charts, and when 10,000 queues are shown."""
    async with httpx.AsyncClient(base_url=scene.url, timeout=60) as client:
        text = (await client.get("/")).text
        names = re.findall(r'(?:href|src)="([^"]+\.(?:js|css))"', text)
        described = (await client.get("/static/views.js")).text
        (panels,) = re.findall(r"^export const panels = (.*);$", described, re.MULTILINE)
        for panel in json.loads(panels):
            folder = panel.rpartition("/")[0]
            names += await _imported(client, f"/{folder}/", f"/{panel}")
        names += ["/static/vendor/uplot/uPlot.iife.min.js", "/static/vendor/uplot/uPlot.min.css"]
        size = 0
        for name in {urljoin("/", name) for name in names}:
            size += len(gzip.compress((await client.get(name)).raise_for_status().content, 9))
    scene.add("the first page's scripts and styles with charts, compressed", f"{size / 1000:.1f} kB", "<= 80 kB")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(90_000)
        await page.goto(f"{scene.url}queues/")
        await page.get_by_text("tasks.").first.wait_for()
        shown = await page.evaluate("performance.now()")
        await browser.close()
    scene.add(f"Queues page, from the click to rows of {QUEUES:,}", f"{shown:.0f} ms")


async def _imported(client: httpx.AsyncClient, base: str, module: str) -> list[str]:
    """Return a module and those that it imports, all the way down."""
    found = [module]
    for name in found:
        text = (await client.get(name)).raise_for_status().text
        for target in re.findall(r'^import .*?from "([^"]+)";$', text, re.MULTILINE):
            place = urljoin(name, target)
            if place not in found:
                found.append(place)
    return [name for name in found if name.startswith(base)]


async def measure_history(scene: Scene) -> None:
    """Measure a full history of 1,000 series: its size on disk, a write, and a week's chart."""
    with tempfile.TemporaryDirectory(prefix="rabbitry-bench-") as folder:
        file = Path(folder) / "history.sqlite3"
        store = Store(file, "bench")
        names = ("cpu", "memory", "disk", "received", "sent")
        series = [Series("monitor", f"{number // 5:016x}", names[number % 5]) for number in range(SERIES)]
        now = int(time.time()) // 3600 * 3600
        hours = range(now - LENGTHS["week"], now + 1, STEPS["week"] * POINTS)
        seconds = range(now - LENGTHS["hour"], now, POINTS)
        for minute in (*hours, *seconds):
            block = array("f", [50 + 50 * sin(minute / 9000 + place) for place in range(POINTS)])
            if minute in hours:
                await asyncio.to_thread(_fill, store, [(one, minute) for one in series], block)
            else:
                await asyncio.to_thread(store.write, {(one, minute): block for one in series}, minute)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.to_thread(store.write, {(one, now): block for one in series}, now + 10)
        writing, cpu = time.perf_counter() - began, time.process_time() - cpu
        began = time.perf_counter()
        chart = await asyncio.to_thread(store.chart, "monitor", series[0].subject, "week", now + 59)
        sent = msgspec.json.encode(chart)
        drawing = time.perf_counter() - began
        store.close()
        size = file.stat().st_size / _MIB
    scene.add(f"history of {SERIES:,} series, a week and an hour: on disk", f"{size:.0f} MiB", "<= 500 MiB")
    what = f"a week's chart of 5 series, {len(chart.at):,} times, {len(sent) // 1000} kB of JSON"
    scene.add(what, f"{drawing * 1000:.0f} ms", "< 200 ms")
    scene.add(f"a write of {SERIES:,} series, each 10 s", f"{writing * 1000:.0f} ms, {cpu * 1000:.0f} ms of CPU")


def _fill(store: Store, keys: list[tuple[Series, int]], block: "array[float]") -> None:
    """Write an hour by the minute, as 60 writes by the second would leave it."""
    store.write(dict.fromkeys(keys, block), keys[0][1])
    with store._transaction() as connection:
        connection.execute("UPDATE week SET numbers = ? WHERE start = ?", (block.tobytes(), keys[0][1]))


async def measure_replay(scene: Scene) -> None:
    """Measure a replay of dead letters whose dashboard is killed in the middle, and count what got lost or doubled."""
    async with rabbitry.connect(scene.broker) as connection:
        channel = await connection.channel()
        for queue in ("bench.dead", "bench.replayed"):
            await channel.declare_queue(queue, durable=True)
        headers: dict[str, FieldValue] = {
            "x-rabbitry-reason": "failed", "x-rabbitry-traceback": "x" * 1500, "x-rabbitry-queue": "bench.replayed",
        }  # fmt: skip
        for number in range(LETTERS):
            properties = Properties(headers=headers, message_id=f"m{number}", delivery_mode=2)
            await channel.send(b"%06d" % number + b"x" * 194, routing_key="bench.dead", properties=properties)
        await channel.wait_for_confirms()
        await _replay(scene, channel, LETTERS // 2, is_killed=True)
        # The broker takes back what the killed dashboard held.
        await _until(lambda: _both(channel), LETTERS)
        before = await _ready(channel, "bench.replayed")
        left = await _ready(channel, "bench.dead")
        took = await _replay(scene, channel, before + left, is_killed=False)
        found: Counter[bytes] = Counter()
        while (delivery := await channel.get("bench.replayed", no_ack=True)) is not None:
            found[delivery.body] += 1
        for queue in ("bench.dead", "bench.replayed"):
            await channel.delete_queue(queue)
    lost, doubled = LETTERS - len(found), found.total() - len(found)
    what = f"a replay of {LETTERS:,} dead letters with a kill in the middle"
    scene.add(what, f"{lost:,} lost, {doubled:,} twice", f"0 lost, <= {BATCH:,} twice")
    scene.add(f"the same: the {left:,} after the kill", f"{left / took:,.0f} a second", ">= 5,000 a second")


async def _replay(scene: Scene, channel: Channel, until: int, *, is_killed: bool) -> float:
    """Replay with a dashboard of its own until so many are replayed; return the seconds that it took."""
    more = {"RABBITRY_BROKER": scene.broker, "RABBITRY_MANAGEMENT": scene.management}
    with (
        tempfile.TemporaryDirectory(prefix="rabbitry-bench-") as folder,  # an audit log of its own
        commands.service("web", "--port", "0", more=more | {"XDG_DATA_HOME": folder}, anew=True) as web,
    ):
        url = web.wait_for(r"dashboard on (http://\S+/)")[1]
        async with httpx.AsyncClient(base_url=f"{url}dead/", timeout=60) as client:
            await take_token(client)
            began = time.perf_counter()
            asked = {"vhost": "/", "app": "bench", "everything": True}
            (await client.post("api/replay", json=asked)).raise_for_status()
            await _until(lambda: _ready(channel, "bench.replayed"), until)
            took = time.perf_counter() - began
            if is_killed:
                web.process.kill()
                await asyncio.to_thread(web.process.wait)
            else:
                await finished(client, "replay")
    return took


async def _until(asked: Callable[[], Awaitable[int]], number: int) -> None:
    async with asyncio.timeout(300):
        while await asked() < number:  # noqa: ASYNC110 # a broker does not tell when the depth of a queue changes
            await asyncio.sleep(0.05)


async def _both(channel: Channel) -> int:
    return await _ready(channel, "bench.dead") + await _ready(channel, "bench.replayed")


async def _ready(channel: Channel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).message_count


MEASURES: Final[tuple[Callable[[Scene], Awaitable[None]], ...]] = (
    measure_watching,
    measure_metrics,
    measure_page,
    measure_history,
    measure_replay,
)


async def _measure() -> list[Row]:
    port = free_port()
    with BrokerProcess("--management-port", str(port), anew=True) as broker:
        await _declare(broker.url)
        more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
        with commands.service("web", "--port", "0", more=more, anew=True) as web:
            url = web.wait_for(r"dashboard on (http://\S+/)")[1]
            web.wait_for("broker connected")
            scene = Scene(
                broker.url,
                more["RABBITRY_MANAGEMENT"],
                url,
                psutil.Process(broker.pid),
                psutil.Process(web.process.pid),
            )
            for measure in MEASURES:
                await measure(scene)
    return scene.rows


def main() -> None:
    """Measure, print, and write the table."""
    rows = asyncio.run(_measure())
    lines = ["| measure | found | to reach |", "|---|---|---|"]
    lines += [f"| {row.measure} | {row.found} | {row.target} |" for row in rows]
    write_table("bench-dashboard", "\n".join(lines))


if __name__ == "__main__":
    main()
