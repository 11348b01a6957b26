"""The history: its size on disk, a write, and a week's chart."""

from __future__ import annotations

import asyncio
import tempfile
import time
from array import array
from math import sin
from pathlib import Path

import msgspec

from benchmarks.dashboard_parts.scene import MIB, Scene
from rabbitry.web.history._blocks import LENGTHS, POINTS, STEPS, Series
from rabbitry.web.history._store import Store


async def measure_history(scene: Scene) -> None:
    """Measure a full history: its size on disk, a write, and a week's chart."""
    with tempfile.TemporaryDirectory(prefix="rabbitry-bench-") as folder:
        file = Path(folder) / "history.sqlite3"
        store = Store(file, "bench")
        names = ("cpu", "memory", "disk", "received", "sent")
        series = [Series("monitor", f"{number // 5:016x}", names[number % 5]) for number in range(scene.series)]
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
        size = file.stat().st_size / MIB
    scene.add(f"history of {scene.series:,} series, a week and an hour: on disk", f"{size:.0f} MiB", "<= 500 MiB")
    what = f"a week's chart of 5 series, {len(chart.at):,} times, {len(sent) // 1000} kB of JSON"
    scene.add(what, f"{drawing * 1000:.0f} ms", "< 200 ms")
    scene.add(f"a write of {scene.series:,} series, each 10 s", f"{writing * 1000:.0f} ms, {cpu * 1000:.0f} ms of CPU")


def _fill(store: Store, keys: list[tuple[Series, int]], block: array[float]) -> None:
    """Write an hour by the minute, as 60 writes by the second would leave it."""
    store.write(dict.fromkeys(keys, block), keys[0][1])
    with store._transaction() as connection:
        connection.execute("UPDATE week SET numbers = ? WHERE start = ?", (block.tobytes(), keys[0][1]))
