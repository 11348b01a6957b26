"""The scene of all parts: a broker with many queues, a dashboard on it, and the rows that are found."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import psutil
from playwright.async_api import Browser, async_playwright
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.programs import CHROMIUM, CHROMIUM_FLAGS

import rabbitry
from rabbitry.amqp.client import Properties

CHANGES: Final = 1000
"""Messages a second, each to another queue."""
PATIENCE: Final = 300.0
"""Seconds after which a wait for a page, a machine or a queue fails."""
KIB: Final = 1024
MIB: Final = 1024 * 1024


@dataclass
class Row:
    """A measure: its figure with the unit, and what is to be reached."""

    measure: str
    found: str
    target: str = ""


@dataclass
class Scene:
    """A dashboard on a broker with many queues.

    seconds: of each measurement under load. minutes: of the measurement of the server's memory. machines, pages, nodes,
    letters, series: how many of each there are.
    """

    broker: str
    management: str
    url: str
    broker_process: psutil.Process
    dashboard: psutil.Process
    queues: int
    seconds: float = 15
    minutes: float = 1
    machines: int = 1000
    pages: int = 64
    nodes: int = 1000
    letters: int = 100_000
    series: int = 1000
    rows: list[Row] = field(default_factory=list)

    def add(self, measure: str, found: str, target: str = "") -> None:
        """Add a row to the table."""
        self.rows.append(Row(measure, found, target))
        print(json.dumps({"measure": measure, "found": found, "target": target}), flush=True)


@contextlib.asynccontextmanager
async def scene(queues: int, more: dict[str, int | float]) -> AsyncIterator[Scene]:
    """Start a broker with so many queues, and a dashboard. more: members of the scene."""
    port = free_port()
    with BrokerProcess("--management-port", str(port), anew=True) as broker:
        await _declare(broker.url, queues)
        where = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
        with commands.service("web", "--port", "0", more=where, anew=True) as web:
            url = web.wait_for(r"dashboard on (http://\S+/)")[1]
            web.wait_for("broker connected")
            processes = psutil.Process(broker.pid), psutil.Process(web.process.pid)
            yield Scene(broker.url, where["RABBITRY_MANAGEMENT"], url, *processes, queues, **more)  # type: ignore[arg-type] # the members have both types


async def _declare(url: str, queues: int) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        for first in range(0, queues, 200):
            names = (f"tasks.{number}" for number in range(first, min(first + 200, queues)))
            await asyncio.gather(*(channel.declare_queue(name, durable=True) for name in names))


def cpu(process: psutil.Process) -> float:
    """Return the seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def change(scene: Scene, seconds: float, *, expires: float | None = None) -> None:
    """Publish to one queue after the other, spread over each second. expires: seconds after which a message does."""
    properties = None if expires is None else Properties(expiration=str(round(expires * 1000)))
    async with rabbitry.connect(scene.broker) as connection:
        channel = await connection.channel()
        began = time.perf_counter()
        for number in range(int(CHANGES * seconds)):
            await channel.send(b"x", routing_key=f"tasks.{number * 7 % scene.queues}", properties=properties)
            if number % 20 == 0:
                await asyncio.sleep(max(0.0, began + number / CHANGES - time.perf_counter()))
        await channel.wait_for_confirms()


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start a browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()
