"""Names, reports, messages and dead letters that nobody honest sends, in every view, on both brokers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser, Page, expect

import rabbitry
from rabbitry.amqp.client import Channel, Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.telemetry import EXCHANGE
from rabbitry.web._navigation import OWN
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.hostile_reports import NAMES, named_reports
from tests.support.management import Api, broker_and_management

pytestmark = pytest.mark.timeout(400)
_WITHIN = 120_000
_ON_BROKER = [*(name for name in NAMES if name and len(name) < 100), "\u20ac" * 85]
"""Names of queues and exchanges: 255 bytes at most."""
_SHOWN = {
    "": "constructor",
    "flows": "constructor",
    "way": "constructor",
    "queues": "constructor",
    "dead": "constructor",
}
_DEEPEST = {True: 2000, False: 50}
"""Levels of the arguments of a queue, by whether the broker is RabbitMQ, which takes any number."""


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as (broker, management):
        deep = _DEEPEST[request.param == "rabbitmq"]
        arguments = b'{"x-deep": %b1%b}' % (b'{"x": ' * deep, b"}" * deep)
        status, _ = Api(management).raw(
            "PUT", "/api/queues/%2F/deep", b'{"durable": true, "arguments": %b}' % arguments
        )
        assert status in (201, 204)
        yield broker, management


async def _fill(channel: Channel) -> None:
    """Declare exchanges and queues of all names, and put messages and dead letters into them."""
    nested: FieldValue = "x"
    for _ in range(50):
        nested = {"constructor": nested}
    await channel.declare_exchange(EXCHANGE, "topic", durable=True)
    for name in _ON_BROKER:
        await channel.declare_exchange(name, "direct", durable=True)
        await channel.declare_queue(name, durable=True, arguments={"x-max-length": 10})
        await channel.bind_queue(name, name, name)
        headers: dict[str, FieldValue] = {name[:50]: nested, "x-death": [1, "x", {"time": 1e300}], "constructor": -1.5}
        await channel.publish(b"{" * 5000, exchange=name, routing_key=name, properties=Properties(headers=headers))
    for app in ("constructor", "__proto__"):
        await channel.declare_queue(f"{app}.dead", durable=True)
        for value in (app, "..", "\u20ac" * 400, -1, 1e300, None, nested, [app]):
            members = ("reason", "error", "traceback", "stage", "queue", "failed-at", "node", "attempt", "exchange")
            headers = {f"x-rabbitry-{member}": value for member in members}
            await channel.publish(b"\xff{", routing_key=f"{app}.dead", properties=Properties(headers=headers))


@contextlib.asynccontextmanager
async def _reporting(channel: Channel) -> AsyncIterator[None]:
    """Repeat the reports while the block runs, since silent nodes are no longer shown."""

    async def report() -> None:
        while True:
            for body in named_reports():
                await channel.publish(body, exchange=EXCHANGE, routing_key="node.evil", mandatory=False)
            await asyncio.sleep(2)

    task = asyncio.create_task(report(), name="hostile reports")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _see(page: Page, address: str, text: str) -> None:
    await page.goto(address)
    await expect(page.locator("main")).to_contain_text(text, timeout=_WITHIN)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320, address


@on_embedded("system")
async def test_no_view_fails_with_what_anybody_may_send(browser: Browser, system: tuple[str, str]) -> None:
    broker, management = system
    more = {"RABBITRY_BROKER": broker, "RABBITRY_MANAGEMENT": management}
    async with rabbitry.connect(broker) as connection, await connection.channel() as channel:
        await _fill(channel)
        with commands.service("web", "--port", "0", more=more) as web:
            url = web.wait_for(r"dashboard on (http://\S+/)")[1]
            async with _reporting(channel):
                page = await browser.new_page(viewport={"width": 320, "height": 800}, reduced_motion="reduce")
                watched = Watched(page)
                await _walk(watched.page, url)
                assert watched.complaints == []
            assert "a source of the dashboard failed" not in web.output


async def _walk(page: Page, url: str) -> None:
    for view in (view.path for group in OWN.values() for view in group):
        await _see(page, f"{url}{view}{view and '/'}", _SHOWN.get(view, ""))
        if view != "audit":  # which follows nothing live
            await expect(page.locator(".states")).to_contain_text("WebSocket connected", timeout=_WITHIN)
    for name in _ON_BROKER:
        opened = urlencode({"open": json.dumps(["/", name])})
        await _see(page, f"{url}queues/?{opened}", "can't be asked for" if name in (".", "..") else "x-max-length10")
    await _see(page, f"{url}queues/?{urlencode({'open': json.dumps(['/', 'deep'])})}", "x-deep")
    for name in ("constructor", "__proto__"):
        await _see(page, f"{url}way/?{urlencode({'id': f'{name}!'})}", name)
        await page.goto(f"{url}dead/?{urlencode({'app': name})}")
        looking = page.get_by_role("button", name="Deliver and put back")
        await expect(looking.or_(page.locator("details.group").first)).to_be_visible(timeout=_WITHIN)
        if await looking.count():
            await looking.click()
        await page.locator("details.group > summary").first.click(timeout=_WITHIN)
        await page.locator("details.letter > summary").first.click(timeout=_WITHIN)
        await expect(page.locator("details.letter").first).to_contain_text("Published to exchange", timeout=_WITHIN)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320, f"the dead letters of {name}"
