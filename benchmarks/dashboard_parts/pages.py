"""The pages in headless Chromium: what they load, how long they draw, and what they cost."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from typing import Any, Final
from urllib.parse import urljoin

import httpx
import psutil
from playwright.async_api import Browser, Page

import rabbitry
from benchmarks.dashboard_parts.scene import PATIENCE, Scene, change, chromium, cpu
from benchmarks.dashboard_parts.scene import scene as scene_of

_WITHIN: Final = 90_000
_FAST: Final = 5
"""Rows that a page has before it counts as usable."""
_TIMED: Final = """
// For each message of the feed: milliseconds until the page has drawn what came, layout included. Preact draws
// in a microtask that the handler queues; therefore the second one is queued by the first behind it.
window.timed = [];
const Real = WebSocket;
window.WebSocket = class extends Real {
  set onmessage(handle) {
    super.onmessage = (event) => {
      const kind = event.data.includes('"columns"') ? "first" : event.data.includes('"rows"') ? "update" : "other";
      const began = performance.now();
      handle(event);
      queueMicrotask(() => queueMicrotask(() => {
        document.body.offsetHeight;
        window.timed.push([performance.now() - began, kind]);
      }));
    };
  }
};
"""
_LAID_OUT: Final = """async (value) => {
  const { Slots, measure } = await import(new URL("static/overview/layout.js", document.baseURI));
  const all = Object.entries(value).filter(([, each]) => typeof each === "object");
  const nodes = new Map(all.filter(([key]) => !key.startsWith("e:")));
  const edges = new Map(all.filter(([key]) => key.startsWith("e:")));
  const began = performance.now();
  const slots = new Slots();
  slots.fit(nodes, edges);
  const { boxes } = measure(slots, edges, 1200);
  const took = performance.now() - began;
  nodes.set("q://new", { kind: "queue", name: "000 new", host: "", at: 1, ready: 1 });
  slots.fit(nodes, edges);
  const later = measure(slots, edges, 1200).boxes;
  const moves = [...boxes].map(([key, { x, y }]) => Math.hypot(later.get(key).x - x, later.get(key).y - y));
  const moved = Math.max(...moves);
  return [nodes.size - 1, took, moved, later.has("q://new")];
}"""


async def measure_page(scene: Scene) -> None:
    """Measure what the first page loads, and when pages can be used at a quarter of the CPU's speed."""
    await _measure_size(scene)
    async with chromium() as browser:
        warm = await browser.new_page()  # another page that keeps the sources working, as on a dashboard in use
        await warm.goto(f"{scene.url}queues/")
        await warm.get_by_text("tasks.").first.wait_for(timeout=_WITHIN)
        for rate in (1, 4):
            for title, place, ready in (
                ("first page, to its fields", "", "input[type=search]"),
                (f"Queues page, to rows of {scene.queues:,}", "queues/", f".rows .space .row:nth-child({_FAST})"),
            ):
                took = await _usable(browser, f"{scene.url}{place}", ready, rate)
                slowly = "at 4x throttled CPU" if rate == 4 else "at full speed"
                scene.add(f"{title}, {slowly}", f"{took:.0f} ms", "< 1 s" if rate == 4 else "")


async def _usable(browser: Browser, url: str, ready: str, rate: int) -> float:
    """Return the milliseconds from the start of a navigation until something is there, the median of three."""
    found: list[float] = []
    for _ in range(3):
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        page = await context.new_page()
        devtools = await context.new_cdp_session(page)
        await devtools.send("Emulation.setCPUThrottlingRate", {"rate": rate})
        await page.goto(url, wait_until="commit")
        await page.wait_for_selector(ready, timeout=_WITHIN)
        found.append(await page.evaluate("performance.now()"))
        await context.close()
    return sorted(found)[1]


async def _measure_size(scene: Scene) -> None:
    """Measure what the first page loads with its charts."""
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


async def measure_rows(scene: Scene) -> None:
    """Measure what the Queues page takes for its first rows, and for changes of them."""
    async with chromium() as browser:
        page = await _timed(browser, f"{scene.url}queues/")
        await page.get_by_text("tasks.").first.wait_for(timeout=_WITHIN)
        await change(scene, scene.seconds)
        timed: list[tuple[float, str]] = await page.evaluate("window.timed")
    firsts = [took for took, kind in timed if kind == "first"]
    updates = sorted(took for took, kind in timed if kind == "update")
    if not firsts or not updates:
        raise RuntimeError("the page got no rows, or no changes of them")
    what = f"Queues view of {scene.queues:,} rows"
    scene.add(f"{what}: first", f"{max(firsts):.1f} ms", "< 50 ms")
    middle, worst = updates[len(updates) // 2], updates[-1]
    scene.add(f"{what}: an update, of {len(updates)}", f"{middle:.1f} ms, {worst:.1f} ms at most", "< 10 ms")


async def _timed(browser: Browser, url: str) -> Page:
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(_WITHIN)
    await page.add_init_script(_TIMED)
    await page.goto(url)
    return page


async def measure_nodes(scene: Scene) -> None:
    """Measure the overview of many things that flow, on a broker of its own."""
    async with scene_of(scene.nodes, {}) as own:
        flowing = asyncio.create_task(_flow(own))
        try:
            await _measure_nodes(scene, own)
        finally:
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)


async def _measure_nodes(scene: Scene, own: Scene) -> None:
    async with chromium() as browser, httpx.AsyncClient(base_url=own.url, timeout=60) as client:
        page = await _timed(browser, own.url)
        await page.locator(".flow[data-moving]").first.wait_for(state="attached")
        async with asyncio.timeout(PATIENCE):
            while True:
                value = (await client.get("/api/topics/topology")).raise_for_status().json()["value"]
                if sum(1 for key, each in value.items() if key.startswith("q:") and each["at"]) >= scene.nodes:
                    break
                await asyncio.sleep(1)
        number, took, moved, is_there = await page.evaluate(_LAID_OUT, value)
        assert is_there
        what = f"overview of {number:,} things that flow"
        scene.add(f"{what}: laid out", f"{took:.0f} ms", "< 50 ms")
        scene.add("the same: a new one moves the others by", f"{moved:.0f} px", "<= 8 px")
        await _cost(scene, page, f"{what}, grouped as they are shown at first")
        while await (group := page.locator(".thing[data-group]")).count():
            await group.first.click()
        await _cost(scene, page, f"the same, all {number:,} opened")
        await page.mouse.wheel(0, 20_000)
        await page.locator(".thing[aria-label*='tasks.4']").first.wait_for()
        await _cost(scene, page, "the same, scrolled to the middle")
        await _moved(scene, own, page)


async def _cost(scene: Scene, page: Page, what: str) -> None:
    """Measure the CPU of the browser's processes, and the longest update."""
    await page.evaluate("window.timed.length = 0")
    processes = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    before, began = sum(map(cpu, processes)), time.perf_counter()
    await asyncio.sleep(scene.seconds)
    took = time.perf_counter() - began
    share = (sum(map(cpu, processes)) - before) / took
    timed: list[tuple[float, str]] = await page.evaluate("window.timed")
    worst = max((each for each, _ in timed), default=0.0)
    scene.add(f"{what}: browser", f"{share:.0%} of a core, {worst:.0f} ms the longest update", "< 30 %")


_HEIGHT: Final = """document.querySelector(".topology svg").getAttribute("height")"""
_PLACES: Final = """() => Object.fromEntries(
  [...document.querySelectorAll(".thing")].map((each) => [each.dataset.key, each.getAttribute("transform")]))"""


async def _moved(scene: Scene, own: Scene, page: Page) -> None:
    """Let a queue appear, and count the things on the page that are elsewhere then."""
    height: str = await page.evaluate(_HEIGHT)
    before: dict[str, str] = await page.evaluate(_PLACES)
    async with rabbitry.connect(own.broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue("000 new", durable=True)
        await channel.publish(b"x", routing_key="000 new")
        await page.wait_for_function(f"(height) => {_HEIGHT} !== height", arg=height)  # it stands last, out of sight
    after: dict[str, str] = await page.evaluate(_PLACES)
    elsewhere = sum(1 for key, place in before.items() if key in after and after[key] != place)
    scene.add("the same: things in sight that a new queue moved", f"{elsewhere} of {len(before):,}", "0")


async def _flow(own: Scene) -> None:
    """Publish to each queue every two seconds, and take what comes."""
    async with rabbitry.connect(own.broker, name="source") as source, rabbitry.connect(own.broker, name="sink") as sink:
        taking = await sink.channel(prefetch=200)
        names = [f"tasks.{number}" for number in range(own.queues)]
        tasks = [asyncio.create_task(_take(taking, name)) for name in names]
        channel = await source.channel()
        try:
            while True:
                began = time.monotonic()
                for number, name in enumerate(names):
                    await channel.send(b"x", routing_key=name)
                    if number % 10 == 0:
                        await asyncio.sleep(max(0.0, began + 2 * number / len(names) - time.monotonic()))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _take(channel: Any, queue: str) -> None:
    async with channel.consume(queue) as deliveries:
        async for delivery in deliveries:
            delivery.ack()
