"""The pictures of the documentation: taken of a real system, into RABBITRY_PICTURES if that names a folder."""

import asyncio
import json
import os
import random
import re
import time
from array import array
from collections.abc import AsyncIterator, Callable
from math import nan, sin
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

import rabbitry
from rabbitry.amqp.client import Channel, Connection
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps.monitor.reading import source
from rabbitry.flow.wiring import pausing
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.web.history._blocks import LENGTHS, POINTS, Series, packed
from rabbitry.web.history._store import Store
from tests.support import commands
from tests.support.crawling import Crawl
from tests.support.embedded import BrokerProcess
from tests.support.pages import Graph
from tests.support.ports import free_port
from tests.support.sites import Sites
from tests.support.waiting import eventually
from tests.web.dead.serving import bury

pytestmark = pytest.mark.timeout(240)
_WITHIN = 120_000
_QUEUES = {
    "orders.payment": "order.*",
    "orders.packing": "order.paid",
    "orders.invoices": "order.paid",
    "mail.outgoing": "mail.#",
    "sensors.archive": "sensor.#",
    "sensors.alerts": "sensor.alarm",
}
_SENT = {  # program → exchange, routing keys, messages a second
    "web shop": ("orders", ("order.new", "order.paid"), 40),
    "mobile app": ("orders", ("order.new",), 15),
    "greenhouse 1": ("sensors", ("sensor.temperature", "sensor.alarm"), 60),
    "greenhouse 2": ("sensors", ("sensor.temperature",), 30),
    "newsletter": ("mail", ("mail.monthly",), 5),
}
_MACHINE = {
    "hostname": "greenhouse-pi", "cpu": 0.31, "memory": {"percent": 61.0}, "disk": {"percent": 71.0},
    "net": {"eth0": {"rx": 2.1e6, "tx": 3.2e5}},
}  # fmt: skip
_TAKEN = {  # program → queues
    "payment service": ("orders.payment",),
    "warehouse": ("orders.packing",),
    "accounting": ("orders.invoices",),
    "mail relay": ("mail.outgoing",),
    "archive": ("sensors.archive",),
}


def _shop() -> rabbitry.App:
    app = rabbitry.App("shop")

    @app.stage("order", then="priced", rate="500/s")
    async def price(order: str) -> str:
        await asyncio.sleep(random.uniform(0.01, 0.03))
        return order

    @app.stage("priced", then="packed", total_concurrency=20)
    async def pack(order: str) -> str:
        await asyncio.sleep(random.uniform(0.02, 0.1))
        return order

    @app.stage("packed", attempts=2, delays=[0])
    async def bill(order: str) -> None:
        if random.random() < 0.1:
            raise TimeoutError("the bank does not answer")

    @app.every("1h")
    async def report(tick: rabbitry.Tick) -> None: ...

    return app


@pytest_asyncio.fixture(loop_scope="session")
async def company(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """The URLs of a dashboard, and of its broker, through which a small company's messages flow."""
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
        async with rabbitry.connect(broker.url, name="setup") as connection:
            await _declare(await connection.channel())
        connections = {name: rabbitry.connect(broker.url, name=name) for name in (*_SENT, *_TAKEN)}
        opened = {name: await connection for name, connection in connections.items()}
        working = [asyncio.create_task(_send(opened[name], *_SENT[name])) for name in _SENT]
        working += [asyncio.create_task(_take(opened[name], queue)) for name in _TAKEN for queue in _TAKEN[name]]
        _remember(tmp_path / "history.sqlite3", broker.url)
        with commands.service("web", "--port", "0", more=more | {RECORDS_FOLDER: str(tmp_path)}) as web:
            yield web.wait_for(r"dashboard on (http://\S+/)")[1], broker.url
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for connection in opened.values():
            await connection.close()


def _remember(file: Path, broker: str) -> None:
    """Write the last week of a machine, of which no test can wait for more than a minute."""
    store = Store(file, str(parse_url(broker)))
    now = int(time.time())
    machine = source(str(_MACHINE["hostname"]), "", str(_MACHINE["hostname"])).id
    curves: dict[str, Callable[[int], float]] = {
        "cpu": lambda at: 35 + 25 * sin(at / 13751) + at * 7919 % 10,
        "memory": lambda at: 55 + at % 80000 / 8000,
        "disk": lambda at: 71 + (at - now) / 86400,
        "received": lambda at: 2e6 * (1.1 + sin(at / 13751)) + at * 7919 % 400_000,
        "sent": lambda at: 4e5 * (1.1 + sin(at / 13751 + 1)),
    }
    for start in range(now // 3600 * 3600 - LENGTHS["week"], now, 3600):
        hour = {
            name: array("f", [curve(start + 60 * place) for place in range(POINTS)]) for name, curve in curves.items()
        }
        store.write({(Series("monitor", machine, name), start): block for name, block in hour.items()}, start)
        with store._transaction() as connection:
            for name, block in hour.items():
                number = store._numbers[Series("monitor", machine, name)]
                kept = array("f", [value if start + 60 * place < now else nan for place, value in enumerate(block)])
                connection.execute(
                    "UPDATE week SET numbers = ? WHERE start = ? AND series = ?", (packed(kept), start, number)
                )
    store.close()


async def _take_machine(page: Page, dashboard: str, broker: str, folder: Path) -> None:
    await page.goto(f"{dashboard}monitor/")
    async with rabbitry.connect(broker) as connection:
        channel = await connection.channel()
        body = json.dumps(_MACHINE).encode()
        await channel.publish(body, exchange="system_info", routing_key=str(_MACHINE["hostname"]))
    await page.get_by_role("button", name=str(_MACHINE["hostname"])).click(timeout=_WITHIN)
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Last week").click(timeout=_WITHIN)
    await expect(dialog.get_by_role("status")).to_contain_text("6 d", timeout=_WITHIN)
    await expect(dialog.locator("canvas")).to_have_count(2, timeout=_WITHIN)
    await _shoot(page, folder, "machine")


async def _declare(channel: Channel) -> None:
    for exchange in ("orders", "sensors", "mail"):
        await channel.declare_exchange(exchange, "topic", durable=True)
    for queue, key in _QUEUES.items():
        await channel.declare_queue(queue, durable=True)
        exchange = {"order": "orders", "senso": "sensors", "mail.": "mail"}[key[:5]]
        await channel.bind_queue(queue, exchange, key)


async def _send(connection: Connection, exchange: str, keys: tuple[str, ...], rate: float) -> None:
    channel = await connection.channel()
    while True:
        await channel.publish(b"{}", exchange=exchange, routing_key=random.choice(keys))
        await asyncio.sleep(1 / rate)


async def _take(connection: Connection, queue: str) -> None:
    channel = await connection.channel(prefetch=20)
    async with channel.consume(queue) as deliveries:
        async for delivery in deliveries:
            await asyncio.sleep(0.01)
            delivery.ack()


async def _order(broker: str) -> str:
    """Let a worker take an order that leads to two messages, one of which becomes a dead letter; return its id."""
    app = rabbitry.App("store")
    dead = asyncio.Event()

    @app.stage("order.placed", then="order.item")
    async def split(items: list[str]) -> list[str]:
        return items

    @app.stage("order.item", attempts=2, delays=[0.0])
    async def reserve(item: str, message: rabbitry.Message) -> None:
        await asyncio.sleep(0.02)
        if item == "lamp":
            if message.attempt == 2:
                dead.set()
            raise LookupError("item 'lamp' is in no warehouse")

    async with app.worker(broker), app.publisher(broker) as publisher:
        identity = await publisher.publish(["chair", "lamp"], key="order.placed")
        await dead.wait()
    return identity


_STILL = """async () => {
    const ending = document.getAnimations().filter(({effect}) => effect.getComputedTiming().iterations !== Infinity);
    await Promise.allSettled(ending.map(({finished}) => finished));
    for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame);
}"""


async def _shoot(page: Page, folder: Path, name: str) -> None:
    """Take a picture in each theme, once nothing fades; the charts are drawn anew in the frame after a change of it."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        await page.emulate_media(color_scheme=scheme)
        await expect(page.locator("html")).to_have_css("color-scheme", scheme)
        await page.evaluate(_STILL)
        await page.screenshot(path=folder / f"{name}-{scheme}.png")


@pytest.mark.faults  # 15 s of CPU, for pages that have tests of their own
async def test_pictures_are_taken(browser: Browser, company: tuple[str, str], tmp_path: Path) -> None:
    dashboard, broker = company
    folder = Path(os.environ.get("RABBITRY_PICTURES", tmp_path))
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    await page.goto(dashboard)
    for kind, names in (("publisher", _SENT), ("consumer", _TAKEN)):
        for name in names:
            await expect(page.locator(f".thing[aria-label^='{kind} {name} ']")).to_have_count(1, timeout=_WITHIN)
    await expect(page.locator(".flow[data-moving]").nth(10)).to_be_attached(timeout=_WITHIN)
    await expect(page.get_by_role("region", name="Needs attention")).to_contain_text("sensors.alerts", timeout=_WITHIN)
    await page.get_by_role("region", name="To try").get_by_role("button", name="Dismiss").click()
    await _shoot(page, folder, "overview")
    opened = urlencode({"open": json.dumps(["/", "orders.packing"], separators=(",", ":"))})
    await page.goto(f"{dashboard}queues/?{opened}")
    row = page.locator(".rows .row.chosen")
    moving = row.get_by_role("cell").filter(has_text=re.compile(r"^\s*[1-9][\d.,]*/s"))
    await expect(moving.first).to_be_visible(timeout=_WITHIN)  # rates take some seconds to be right
    await expect(page.get_by_role("complementary")).to_contain_text("order.paid", timeout=_WITHIN)
    await _shoot(page, folder, "queues")
    identity = await _order(broker)
    await page.goto(f"{dashboard}way/?id={identity}")
    await expect(page.locator(".message[data-dead]")).to_contain_text("attempt 2", timeout=_WITHIN)
    await expect(page.locator(".message")).to_have_count(3, timeout=_WITHIN)
    await _shoot(page, folder, "way")
    await _take_flows(page, dashboard, broker, folder)
    await _take_machine(page, dashboard, broker, folder)
    await page.goto(f"{dashboard}raw/?exchange=sensors&key=%23")
    shown = page.locator(".sampled .list > li")
    await expect(shown.nth(4)).to_be_visible(timeout=_WITHIN)
    await page.get_by_role("button", name="Freeze").click()
    await shown.first.locator("summary").first.click()
    await _shoot(page, folder, "raw")
    await page.goto(f"{dashboard}queues/")
    for width in (320, 1280):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def _take_flows(page: Page, dashboard: str, broker: str, folder: Path) -> None:
    shop = _shop()
    async with (
        shop.worker(broker) as worker,
        shop.worker(broker, stages=["pack"]),
        shop.publisher(broker) as publisher,
        rabbitry.connect(broker) as connection,
    ):
        await page.goto(f"{dashboard}flows/")
        await expect(page.get_by_role("article", name="report")).to_contain_text("next in", timeout=_WITHIN)
        await expect(page.locator(".limits")).to_have_count(2, timeout=_WITHIN)
        for number in range(200):
            await publisher.send(f"{number}", key="order")
        bill = page.get_by_role("article", name="bill")
        within = bill.locator(".figures div", has_text="50 % within").locator("dd")
        await expect(within).not_to_have_text("–", timeout=_WITHIN)
        await pausing.pause(connection, "shop", "bill", by="ada, 192.0.2.7", why="the bank is down")
        await expect(bill).to_contain_text("the bank is down", timeout=_WITHIN)
        await eventually(lambda: worker._engine.counting.stages["bill"].is_paused, "the worker to see it")
        for number in range(50):
            await publisher.send(f"{number}", key="order")
        waiting = bill.locator(".figures div", has_text="Waiting").locator("dd")
        await expect(waiting).to_have_text("50", timeout=_WITHIN)
        await _shoot(page, folder, "flows")


async def test_pictures_of_dead_letters_are_taken(browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("RABBITRY_PICTURES", tmp_path))
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("orders.payment", durable=True)
            bodies = [b'{"order": %d, "items": ["tulips"], "price": null}' % number for number in range(1041, 1078)]
            error = "ValueError: order {n} has no price"
            await bury(channel, "orders", bodies, queue="orders.payment", error=error, stage="payment")
            late = [b'{"order": 977}'] * 4
            await bury(channel, "orders", late, queue="orders.packing", error="TimeoutError", stage="packing")
        more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
        with commands.service("web", "--port", "0", more=more) as web:
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            await page.goto(web.wait_for(r"dashboard on (http://\S+/)")[1] + "dead/")
            await page.locator("details.group > summary").first.click(timeout=_WITHIN)
            letter = page.locator("details.letter").first
            await letter.locator("summary").click(timeout=_WITHIN)
            await letter.get_by_role("button", name="Edit and replay").click()
            body = letter.get_by_role("textbox")
            await body.fill((await body.input_value(timeout=_WITHIN)).replace("null", "12.5"))
            await expect(letter.get_by_label("Dry run")).to_be_visible(timeout=_WITHIN)
            await expect(letter.get_by_label("Check of the type")).to_be_visible(timeout=_WITHIN)
            await _shoot(page, folder, "dead")


@pytest.mark.faults  # seven processes; the page has tests of its own
async def test_pictures_of_a_crawl_are_taken(browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("RABBITRY_PICTURES", tmp_path))
    hosts = 4
    with (
        Sites(Graph(2000, hosts=hosts), hosts) as sites,
        BrokerProcess() as broker,
        Crawl(broker.url, tmp_path) as crawl,
        commands.service("web", "--port", "0", more={"RABBITRY_BROKER": broker.url}) as web,
    ):
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(web.wait_for(r"dashboard on (http://\S+/)")[1] + "crawl/")
        await expect(page.locator(".states")).to_contain_text("Broker connected", timeout=_WITHIN)
        crawl.start_all(crawlers=2, processors=2)
        urls = [sites.url(f"/p/{number}", number) for number in range(hosts)]
        await asyncio.to_thread(crawl.add, *urls, delay=0.1)
        for kind, count in (("crawler", 2), ("processor", 2), ("keeper", 1)):
            await expect(page.locator(f".entry[data-kind={kind}]")).to_have_count(count, timeout=_WITHIN)
        await expect(page.locator(".edge .moving").nth(3)).to_be_attached(timeout=_WITHIN)
        await expect(page.locator("#status .outcomes")).to_contain_text("page", timeout=_WITHIN)
        indexed = page.locator("#status [data-sum=documents] b")
        await expect(indexed).to_have_text(re.compile(r"^\d{2,}$"), timeout=_WITHIN)
        await _shoot(page, folder, "crawl")
