"""The server under load: CPU, bytes on the wire, the broker's cost, memory, and the answers for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, Final

import httpx
import msgspec
import websockets
from websockets.asyncio.client import ClientConnection

import rabbitry
from benchmarks.dashboard_parts.scene import CHANGES, KIB, MIB, PATIENCE, Scene, change, cpu
from rabbitry.apps.monitor import sampling
from rabbitry.runtime.http.pages import PEER_PAGE_LIMIT

PAGES: Final = 20
_LOOK: Final = 15
"""Seconds between two looks at the server's memory."""
_LIFE: Final = 60
"""Seconds after which the changes of the hour expire, so that the broker's queues do not grow."""


class _Counted(ClientConnection):
    """A WebSocket that counts the bytes that come over its socket, compressed as a browser gets them."""

    received = 0
    messages = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)


def _parts(message: str | bytes) -> list[dict[str, int]]:
    found: list[dict[str, int]] = json.loads(message).get("parts", [])
    return found


async def _look(scene: Scene, number: int, opened: asyncio.Event) -> _Counted:
    """Open a page's subscription of 50 rows, and read until cancelled."""
    address = scene.url.replace("http", "ws") + "feed"
    local = (f"127.0.0.{1 + number // PEER_PAGE_LIMIT}", 0)  # one address may open no more
    connecting = websockets.connect(address, proxy=None, max_size=None, create_connection=_Counted, local_addr=local)
    async with connecting as socket:
        assert isinstance(socket, _Counted)
        params = {"sort": ["-messages", "name"], "first": number * 10 % scene.queues, "count": 50}
        await socket.send(json.dumps({"open": 1, "topic": "queues", "params": params}))
        try:
            async for message in socket:
                socket.messages += 1
                if not opened.is_set() and any(part.get("total", 0) >= scene.queues for part in _parts(message)):
                    opened.set()
        except asyncio.CancelledError:
            return socket
    raise RuntimeError("the dashboard closed a page's WebSocket")


async def _until_open(opened: list[asyncio.Event], tasks: list[asyncio.Task[Any]]) -> None:
    """Wait until all pages have their rows. Raises the error of a task that ends before."""
    waiting = asyncio.gather(*(one.wait() for one in opened))
    try:
        await asyncio.wait((waiting, *tasks), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        _check(tasks)
        if not waiting.done():
            raise TimeoutError(f"{sum(not one.is_set() for one in opened)} pages have no rows after {PATIENCE:.0f} s")
    finally:
        waiting.cancel()


def _check(tasks: list[asyncio.Task[Any]]) -> None:
    """Raise the error of a task that has ended."""
    for task in tasks:
        if task.done():
            task.result()


async def measure_watching(scene: Scene) -> None:
    """Measure many changes while many pages look, and what being watched costs the broker."""
    before = cpu(scene.broker_process)
    await change(scene, scene.seconds)
    alone = cpu(scene.broker_process) - before
    opened = [asyncio.Event() for _ in range(PAGES)]
    pages = [asyncio.create_task(_look(scene, number, one)) for number, one in enumerate(opened)]
    await _until_open(opened, pages)
    before, dashboard, began = cpu(scene.broker_process), cpu(scene.dashboard), time.perf_counter()
    await change(scene, scene.seconds)
    took = time.perf_counter() - began
    watched, dashboard = cpu(scene.broker_process) - before, cpu(scene.dashboard) - dashboard
    for page in pages:
        page.cancel()
    sockets = await asyncio.gather(*pages)
    wire, news = max(one.received for one in sockets), min(one.messages for one in sockets) / took
    what = f"{scene.queues:,} queues, {CHANGES:,} changes a second, {PAGES} pages"
    scene.add(f"{what}: server", f"{dashboard / took:.0%} of a core", "< 15 %")
    scene.add("the same: each page's wire", f"{wire / took / 1000:.1f} kB/s, {news:.1f} updates a second", "< 20 kB/s")
    scene.add("the same: broker's cost of being watched", f"{(watched - alone) / took:.1%} of a core", "<= 5 %")
    scene.add("the same: server's memory", f"{scene.dashboard.memory_info().rss / MIB:.0f} MiB", "< 150 MiB")


async def measure_metrics(scene: Scene) -> None:
    """Measure the answers for Prometheus."""
    async with httpx.AsyncClient(base_url=scene.url, timeout=60) as client:
        for path, target in (("/metrics", "< 300 ms"), ("/metrics/detailed", "")):
            before, began = cpu(scene.dashboard) + cpu(scene.broker_process), time.perf_counter()
            answer = (await client.get(path)).raise_for_status()
            took, spent = time.perf_counter() - began, cpu(scene.dashboard) + cpu(scene.broker_process) - before
            size = len(answer.content) / KIB
            found = f"{took * 1000:.0f} ms, {spent * 1000:.0f} ms of CPU with the broker's"
            scene.add(f"`{path}` at {scene.queues:,} queues, {size:,.0f} KiB", found, target)


async def measure_memory(scene: Scene) -> None:
    """Measure the server's memory beside all queues, many machines and many pages, and whether it stays flat."""
    opened = [asyncio.Event() for _ in range(scene.pages)]
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(_look(scene, number, one)) for number, one in enumerate(opened)
    ]
    tasks += [asyncio.create_task(_sample(scene)), asyncio.create_task(_changes(scene))]
    try:
        await _until_open(opened, tasks)
        async with asyncio.timeout(PATIENCE):
            while len(await _machines(scene)) < scene.machines:
                _check(tasks)
                await asyncio.sleep(1)
        sizes, until = [scene.dashboard.memory_info().rss / MIB], time.monotonic() + 60 * scene.minutes
        while time.monotonic() < until:
            await asyncio.sleep(min(_LOOK, 60 * scene.minutes))
            _check(tasks)
            sizes.append(scene.dashboard.memory_info().rss / MIB)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    quarter = max(1, len(sizes) // 4)
    early, late = max(sizes[:quarter]), max(sizes[-quarter:])
    what = f"server's memory: {scene.queues:,} queues, {scene.machines:,} machines, {scene.pages} pages"
    scene.add(what, f"{max(sizes):.0f} MiB at most", "< 150 MiB")
    what = f"the same over {scene.minutes:g} min: first and last quarter"
    scene.add(what, f"{early:.0f} and {late:.0f} MiB", "flat")


async def _machines(scene: Scene) -> list[object]:
    async with httpx.AsyncClient(timeout=60) as client:
        found: list[object] = (await client.get(f"{scene.url}api/machines")).raise_for_status().json()
        return found


async def _changes(scene: Scene) -> None:
    while True:
        await change(scene, 10, expires=_LIFE)


async def _sample(scene: Scene) -> None:
    """Publish a real sample of this machine under the name of each machine in turn, all of them each second."""
    before = await asyncio.to_thread(sampling.read)
    await asyncio.sleep(1)
    sample = sampling.sample(before, await asyncio.to_thread(sampling.read))
    async with rabbitry.connect(scene.broker) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("system_info", "fanout", durable=True)
        while True:
            began = time.monotonic()
            for number in range(scene.machines):
                body = msgspec.json.encode(msgspec.structs.replace(sample, hostname=f"machine {number}", machine=None))
                with contextlib.suppress(rabbitry.PublishReturned):
                    await channel.send(body, exchange="system_info", mandatory=False)
                if number % 50 == 0:
                    await asyncio.sleep(max(0.0, began + number / scene.machines - time.monotonic()))
            await channel.wait_for_confirms()
            await asyncio.sleep(max(0.0, began + 1 - time.monotonic()))
