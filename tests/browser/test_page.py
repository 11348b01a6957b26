"""The page in a real browser: samples appear, losses are told and mended, and nothing from the wire is markup."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

import rabbitry
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(120)
_WITHIN = 30_000


@dataclass
class Watched:
    """A page, and what its console complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        # A WebSocket that finds no server is reported by the browser itself; the page says it in its own words.
        if message.type in ("error", "warning") and "WebSocket connection to" not in message.text:
            self.complaints.append(message.text)


async def _open(
    browser: Browser, url: str, *, width: int = 1200, scheme: Literal["dark", "light"] = "light"
) -> Watched:
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    watched = Watched(page)
    page.on("console", watched.note)
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", lambda dialog: watched.complaints.append(f"dialog {dialog.message}"))
    await page.goto(url)
    return watched


async def _publish(url: str, *bodies: object) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        for body in bodies:
            await channel.publish(json.dumps(body).encode(), exchange="system_info", routing_key="from-the-test")


@pytest.fixture
async def web(broker_url: str) -> AsyncIterator[str]:
    """The URL of a dashboard on a broker."""
    port = free_port()
    with commands.service("web", "--port", str(port), more={"RABBITRY_BROKER": broker_url}) as web:
        web.wait_for("broker connected")
        yield f"http://127.0.0.1:{port}/"


async def test_real_samples_of_this_machine_appear(browser: Browser, web: str, broker_url: str) -> None:
    with commands.service("monitor", "publish", "-k", "here", more={"RABBITRY_BROKER": broker_url}):
        watched = await _open(browser, web)
        page = watched.page
        await expect(page.locator(".card")).to_have_count(1, timeout=_WITHIN)
        await expect(page.locator(".card .figures")).to_contain_text("CPU")
        await expect(page.locator(".card canvas").first).to_be_visible()
        await expect(page.locator(".states")).to_contain_text("WebSocket connected")
        await expect(page.locator(".states")).to_contain_text("Broker connected")
        await page.get_by_text("Raw JSON").click()
        raw = page.locator("pre.raw")
        await expect(raw).to_contain_text('"hostname"')
        before = await raw.inner_text()
        await expect(raw).not_to_have_text(before, timeout=_WITHIN)  # the next one came
    assert watched.complaints == []


async def test_what_comes_over_the_wire_is_text(browser: Browser, web: str, broker_url: str) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    net = {evil: {"rx": 1, "tx": 2}}
    watched = await _open(browser, web)
    await _publish(
        broker_url,
        {"hostname": evil, "platform": evil, "cpu": 0.5, "net": net, "memory": {"percent": 10}},
        {"hostname": "other", "what": evil, "list": [1, 2, {"deep": evil}]},
        {"hostname": "numbers", "cpu": 1e308, "net": {"e": {"rx": -1, "tx": 1e300}}, "memory": "much"},
    )
    page = watched.page
    await expect(page.locator(".card")).to_have_count(3, timeout=_WITHIN)
    await expect(page.locator(f".card[data-host='{evil}']")).to_have_count(1)
    assert await page.locator("script:not([src])").count() == 0
    assert await page.locator("main img, main script").count() == 0
    other = page.locator(".card[data-host='other']")
    await expect(other).to_contain_text("hold no CPU")
    await expect(other.locator("pre.raw")).to_contain_text("<script>alert(2)</script>")
    assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_a_phone_needs_no_scrolling_sideways(
    browser: Browser, web: str, broker_url: str, scheme: Literal["dark", "light"]
) -> None:
    watched = await _open(browser, web, width=360, scheme=scheme)
    long = "a-host-with-a-very-long-name." * 5
    await _publish(broker_url, {"hostname": long, "cpu": 0.5, "net": {"eth0": {"rx": 1e9, "tx": 2e9}}})
    page = watched.page
    await expect(page.locator(".card")).to_have_count(1, timeout=_WITHIN)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.strip("rgb()").split(",")[:3]) / 3
    assert (brightness < 80) is (scheme == "dark")
    assert watched.complaints == []


async def test_a_broker_that_is_killed_is_told_and_comes_back(browser: Browser) -> None:
    port = free_port()
    with BrokerProcess() as broker:
        more = {"RABBITRY_BROKER": broker.url}
        with commands.service("web", "--port", str(port), more=more) as web:
            web.wait_for("broker connected")
            watched = await _open(browser, f"http://127.0.0.1:{port}/")
            states = watched.page.locator(".states")
            await expect(states).to_contain_text("Broker connected", timeout=_WITHIN)
            broker.kill()
            await expect(states).to_contain_text("Broker away since", timeout=_WITHIN)
            await expect(watched.page.locator(".notice.bad")).to_contain_text("The broker is away")
            broker.start()
            await expect(states).to_contain_text("Broker connected", timeout=_WITHIN)
            await _publish(broker.url, {"hostname": "after", "cpu": 0.5, "net": {}})
            await expect(watched.page.locator(".card[data-host='after']")).to_have_count(1, timeout=_WITHIN)
            assert watched.complaints == []


async def test_a_dashboard_that_is_killed_is_told_and_comes_back(browser: Browser, broker_url: str) -> None:
    port = free_port()
    more = {"RABBITRY_BROKER": broker_url}
    with commands.service("web", "--port", str(port), more=more) as web:
        web.wait_for("broker connected")
        watched = await _open(browser, f"http://127.0.0.1:{port}/")
        states = watched.page.locator(".states")
        await expect(states).to_contain_text("WebSocket connected", timeout=_WITHIN)
        web.process.kill()
        web.process.wait()
        await expect(states).to_contain_text("WebSocket disconnected, next try in", timeout=_WITHIN)
    with commands.service("web", "--port", str(port), more=more) as web:
        web.wait_for("broker connected")
        await expect(states).to_contain_text("WebSocket connected", timeout=_WITHIN)
    await watched.page.close()
