"""How long `rabbitry broker` takes to accept, and `rabbitry up` to show the first sample on the page."""

import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import time

from playwright.async_api import Browser, async_playwright
from tests.support import commands
from tests.support.ports import free_port
from tests.support.programs import CHROMIUM
from tests.support.waiting import eventually_blocking

ROUNDS = 5
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def _broker() -> float:
    """Return the seconds from the start of the process to its ready line."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "rabbitry", "broker", "--port", "0", "--log-level", "error"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - began
    assert re.match(r"rabbitry broker ready amqp://", line)
    process.terminate()
    process.wait()
    process.stdout.close()
    return seconds


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _page(browser: Browser) -> float:
    """Return the seconds from the start of `rabbitry up` to a card in a browser that is already open."""
    port = free_port()
    page = await browser.new_page()
    began = time.perf_counter()
    with commands.service("up", "--port", "0", "--http-port", "0", "--web-port", str(port)) as up:
        # The socket listens before the dashboard serves, so a page that loads from then on loads as soon as possible.
        await asyncio.to_thread(eventually_blocking, lambda: _listens(port), "the page's socket")
        await page.goto(f"http://127.0.0.1:{port}/")
        await page.locator(".card").first.wait_for()
        seconds = time.perf_counter() - began
        up.process.terminate()
        await asyncio.to_thread(up.process.wait, 20)
    await page.close()
    return seconds


async def _pages() -> list[float]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS)
        try:
            return [await _page(browser) for _ in range(ROUNDS)]
        finally:
            await browser.close()


def _print(measure: str, seconds: list[float]) -> None:
    middle, worst = statistics.median(seconds), max(seconds)
    print(json.dumps({"measure": measure, "median_s": round(middle, 3), "worst_s": round(worst, 3)}), flush=True)


def main() -> int:
    """Measure and print one JSON line each."""
    _print("rabbitry broker until it accepts", [_broker() for _ in range(ROUNDS)])
    _print("rabbitry up until the first sample is on the page", asyncio.run(_pages()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
