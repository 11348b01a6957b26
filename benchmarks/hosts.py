"""A hundred agents on one page: samples published, and those that a WebSocket and a real page received."""

import asyncio
import json
import sys
import time

import psutil
import websockets
from playwright.async_api import async_playwright
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.programs import CHROMIUM

import rabbitry

HOSTS = 100
SECONDS = 20
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


async def _publish(url: str) -> int:
    """Publish as each host once a second, spread over the second; return the number of samples."""
    sent = 0
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        began = time.perf_counter()
        for second in range(SECONDS):
            for host in range(HOSTS):
                body = {"hostname": f"host-{host}", "cpu": host / HOSTS, "net": {"eth0": {"rx": second, "tx": host}}}
                await channel.send(json.dumps(body).encode(), exchange="system_info", routing_key=f"host-{host}")
                sent += 1
                pause = began + sent / HOSTS - time.perf_counter()
                if pause > 0:
                    await asyncio.sleep(pause)
        await channel.wait_for_confirms()
    return sent


async def _count(port: int) -> tuple[int, int]:
    """Count the samples over a WebSocket until a second of silence, and those reported as missed."""
    got = skipped = 0
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws", proxy=None, max_size=None) as socket:
        quiet_since = time.perf_counter()
        while got == 0 or time.perf_counter() - quiet_since < 2:
            update = json.loads(await socket.recv())
            new = sum(len(host["history"]) for host in update.get("hosts", [])) + len(update.get("samples", []))
            got += new
            skipped = max(skipped, update.get("skipped", 0))
            if new:
                quiet_since = time.perf_counter()
    return got, skipped


async def _measure() -> dict[str, object]:
    port = free_port()
    with (
        BrokerProcess(anew=True) as broker,
        commands.service("web", "--port", str(port), more={"RABBITRY_BROKER": broker.url}) as web,
    ):
        web.wait_for("broker connected")
        server = psutil.Process(web.process.pid)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS)
            page = await browser.new_page(viewport={"width": 1400, "height": 900})
            await page.goto(f"http://127.0.0.1:{port}/")
            counting = asyncio.create_task(_count(port))
            before = sum(server.cpu_times()[:2])
            sent = await _publish(broker.url)
            got, skipped = await counting
            cards = await page.locator(".card:not(.stale)").count()
            missed = await page.get_by_text("This page missed").count()
            cpu = sum(server.cpu_times()[:2]) - before
            rss = server.memory_info().rss
            await browser.close()
    return {
        "hosts": HOSTS,
        "published": sent,
        "websocket_got": got,
        "websocket_skipped": skipped,
        "page_cards": cards,
        "page_missed_some": bool(missed),
        "dashboard_of_a_core": round(cpu / SECONDS, 3),
        "dashboard_rss_mib": round(rss / (1 << 20)),
    }


def main() -> int:
    """Measure and print one JSON line."""
    print(json.dumps(asyncio.run(_measure())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
