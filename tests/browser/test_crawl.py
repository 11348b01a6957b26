"""The page of a crawl in a real browser: nodes come and go, the keeper is asked, and nothing that came in is markup."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, expect

import rabbitry
from rabbitry.amqp.client import Channel, Properties
from rabbitry.apps import Site
from rabbitry.apps.crawl import picture
from rabbitry.apps.crawl.hosting import hosted
from rabbitry.apps.crawl.messages import Add, Pause, Resume
from rabbitry.apps.crawl.plugin import plugin
from rabbitry.apps.crawl.web import Pages
from rabbitry.apps.settings import Settings
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.server import Mount, create_app, mounts
from tests.apps.crawl._fake import EVIL, URL, FakeKeeper
from tests.browser.watched import SERVER_AWAY, Watched
from tests.support.brokers import ON_EMBEDDED

pytestmark = pytest.mark.timeout(300)
_WITHIN = 90_000
_PLACES = ("", "hosts", "search/words", "why/http%3A%2F%2Fa%2F", "add")


@pytest.fixture(autouse=True)
def _patient_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a silent node stay for as long as a test takes on a busy machine."""
    monkeypatch.setattr(picture, "SILENCE", 600.0)


@dataclass
class Served:
    """The dashboard's URL, a channel to its broker, and the keeper that it asks."""

    url: str
    channel: Channel
    keeper: FakeKeeper

    async def log(self, *lines: str | bytes, headers: Mapping[str, Any] | None = None) -> None:
        """Log lines as a crawler or processor does."""
        properties = Properties(app_id="crawl", headers=dict(headers)) if headers else Properties()
        for line in lines:
            body = line if isinstance(line, bytes) else line.encode()
            await self.channel.send(
                body, exchange="exchtopic", routing_key="rlog", properties=properties, mandatory=False
            )
        await self.channel.wait_for_confirms()


@asynccontextmanager
async def _served(broker: str, *, with_keeper: bool = True) -> AsyncIterator[Served]:
    keeper, stop = FakeKeeper(), asyncio.Event()
    (listener,) = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    site = Site(broker=broker)
    others = [mount for mount in mounts(site) if mount.plugin is not plugin]
    app = create_app(Settings(broker=broker, port=port), [Mount(plugin, hosted(Pages(broker, keeper))), *others])
    async with rabbitry.connect(broker) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("exchtopic", "topic", durable=True)
        if with_keeper:
            await channel.declare_queue("crawl.questions", durable=True)
            await channel.consume("crawl.questions").start()
        serving = asyncio.create_task(serve(app, [listener], stop))
        try:
            yield Served(f"http://127.0.0.1:{port}/crawl/", channel, keeper)
        finally:
            stop.set()
            await serving


async def _opened(
    browser: Browser, served: Served, *, width: int = 1200, scheme: Literal["dark", "light"] = "light", place: str = ""
) -> Watched:
    page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    watched = Watched(page, (*SERVER_AWAY, "status of 400"))  # the page says why in its own words
    page.set_default_timeout(_WITHIN)
    await page.goto(f"{served.url}#/{place}")
    await expect(page.locator(".states")).to_contain_text("Broker connected", timeout=_WITHIN)
    return watched


@ON_EMBEDDED
async def test_nodes_appear_with_their_first_message_and_go_in_silence(
    browser: Browser, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _served(broker_url) as served:
        watched = await _opened(browser, served)
        page = watched.page
        entries = page.locator(".entry")
        await expect(page.locator(".absent")).to_have_count(2)
        await served.log("crawler|a3f|2026-11-21T10:00:00|http://example.org/|log")
        await expect(page.locator(".entry[data-kind=crawler]")).to_have_attribute("data-key", "crawler|a3f")
        await served.log(b"processor|b7c|" + b"<p>|\n" * 300_000 + b"|log", "keeper|c01e|2026-11-21T10:00:00||sent")
        # As many as keep the rate above 0 for half a minute.
        await served.log(
            *["crawler|a3f|2026-11-21T10:00:00|http://example.org/2|200"] * 400,
            headers={"x-rabbitry-outcome": "page", "x-rabbitry-wire": 2048},
        )
        await expect(entries).to_have_count(3, timeout=_WITHIN)
        await expect(page.locator("[data-sum=crawled] b")).to_have_text("401")
        await expect(page.locator("[data-sum=processed] b")).to_have_text("1")
        await expect(page.locator("[data-sum='over the network'] b")).to_have_text("800 KiB")
        await expect(page.locator(".edge[data-kind=crawler] .moving")).to_have_count(1)
        await page.get_by_text("All 3 nodes as a table").click()
        row = page.locator("details tbody tr").first
        await expect(row).to_contain_text("http://example.org/2")
        monkeypatch.setattr(picture, "SILENCE", 0.1)
        await expect(entries).to_have_count(0, timeout=_WITHIN)
        await expect(page.locator("[data-sum=crawled] b")).to_have_text("401")
        assert watched.complaints == []
        await page.close()


async def test_the_picture_is_read_with_the_keyboard(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served)
        page = watched.page
        lines = [f"crawler|a{number}|t|http://example.org/|log" for number in range(3)]
        await served.log(*lines, "processor|b7c|<html>|log")
        await expect(page.locator(".entry")).to_have_count(4, timeout=_WITHIN)
        assert await page.locator(".entry[tabindex='0']").count() == 1
        await page.locator(".entry[tabindex='0']").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
            await page.keyboard.press(key)
        focused = page.locator(".entry:focus")
        await expect(focused).to_have_attribute("aria-label", re.compile(r"crawler a1, 1 page, [\d.]+ a second"))
        await page.keyboard.press("ArrowRight")
        await expect(focused).to_have_attribute("data-key", "processor|b7c")
        await page.keyboard.press("Enter")
        await expect(page.locator(".chosen h2")).to_have_text("processor b7c")
        await page.keyboard.press("Enter")
        await expect(page.locator(".chosen")).to_have_count(0)
        assert watched.complaints == []
        await page.close()


async def test_data_from_the_wire_is_shown_as_text(browser: Browser, embedded_url: str) -> None:
    evil = "<img src=x onerror=alert(1)>"
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served)
        page = watched.page
        await served.log(f"crawler|{evil}|2026-11-21T10:00:00|http://x/<script>alert(1)</script>\u202e|log")
        entry = page.locator(".entry")
        await expect(entry).to_have_attribute("data-key", f"crawler|{evil}", timeout=_WITHIN)
        await entry.click()
        await expect(page.locator(".chosen h2")).to_have_text(f"crawler {evil}")
        await expect(page.locator(".chosen tbody")).to_contain_text("<script>alert(1)</script>\\u202e")
        for place in _PLACES:
            await page.goto(f"{served.url}#/{place}")
            await expect(page.locator("main .panel")).not_to_have_count(0)
            if place != "add":
                await expect(page.locator(".age").first).to_be_visible(timeout=_WITHIN)
            assert await page.locator("main img, main script").count() == 0
        assert await page.locator("script:not([src], head > [type=importmap])").count() == 0
        assert watched.complaints == []
        await page.close()


async def test_more_nodes_than_a_column_holds_are_groups(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served, width=1440, scheme="dark")
        page = watched.page
        await served.log(*(f"crawler|{number:02x}{number * 7 % 16:x}|t|http://x/|log" for number in range(200)))
        await served.log(*(f"processor|{number:03x}|<html>|log" for number in range(40)))
        crawlers, processors = (page.locator(f".entry[data-kind={kind}]") for kind in ("crawler", "processor"))
        await expect(crawlers).to_have_count(13, timeout=_WITHIN)  # 200 ids begin with 0 to c
        await expect(processors).to_have_count(40)
        await expect(page.locator("[data-sum=crawled]")).to_contain_text("200 crawlers")
        boxes = [await crawlers.nth(at).bounding_box() for at in range(13)]
        tops = [box["y"] for box in boxes if box]
        assert tops == sorted(set(tops))
        await crawlers.first.click()
        await expect(page.locator(".chosen tbody tr")).to_have_count(16)
        assert watched.complaints == []
        await page.close()


@pytest.mark.parametrize("width", [320, 1440])
async def test_no_width_needs_scrolling_sideways(browser: Browser, embedded_url: str, width: int) -> None:
    async with _served(embedded_url) as served:
        await served.channel.declare_queue("proc", durable=True)
        await served.channel.publish(b"page", routing_key="proc")
        watched = await _opened(browser, served, width=width)
        page = watched.page
        long = "a-name-of-forty-letters-that-is-too-long"
        await served.log(*(f"{kind}|{long[:number]}|t|http://{'x' * 300}/|log" for number in range(1, 30)
                           for kind in ("crawler", "processor", "other")))  # fmt: skip
        await expect(page.locator(".entry[data-kind=processor]")).to_have_count(29, timeout=_WITHIN)
        await expect(page.locator(".notice")).to_contain_text("1 page waits, and no processor")
        await page.locator(".entry").first.click()
        await page.locator("details summary").click()
        for place in _PLACES:
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, place
            await page.goto(f"{served.url}#/{place}")
            if place != "add":
                await expect(page.locator(".age").first).to_be_visible(timeout=_WITHIN)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, place
        await page.close()


async def test_nothing_moves_with_reduced_motion(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        page = await browser.new_page(reduced_motion="reduce")
        await page.goto(served.url)
        await expect(page.locator(".states")).to_contain_text("Broker connected", timeout=_WITHIN)
        await served.log(*["crawler|a3f|t|http://example.org/|log"] * 400)  # they move for half a minute
        await expect(page.locator(".edge .moving")).to_have_count(1, timeout=_WITHIN)
        name = await page.locator(".edge .moving").evaluate("(path) => getComputedStyle(path).animationName")
        assert name == "none"
        await page.close()


async def test_hosts_search_and_why_query_the_keeper(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served)
        page = watched.page
        await expect(page.locator("#status [data-sum=documents] b")).to_have_text("1,198", timeout=_WITHIN)
        await expect(page.locator("#status .outcomes")).to_contain_text("too-slow 3")
        await watched.go("hosts")
        await expect(page.locator("#hosts tbody tr")).to_have_count(50)
        row = page.locator("#hosts tbody tr").nth(7)
        await expect(row).to_contain_text("http://site-7.example.org")
        shown = EVIL.replace("\u202e", "\\u202e").replace("\u0007", "\\u0007")
        why = f"not complete within the time limit: {shown}"
        await expect(row.locator(".outcome").nth(2)).to_have_attribute("title", why)
        await page.get_by_role("button", name="Next").click()
        await expect(page.locator("#hosts tbody tr").first).to_contain_text("site-50.")
        await watched.go("search")
        await page.get_by_role("searchbox").fill("green rabbits")
        await page.get_by_role("button", name="Search", exact=True).click()
        await expect(page.locator(".hits li")).to_have_count(2)
        await expect(page.locator("mark")).to_have_text("green rabbits")
        await expect(page.locator(".hits a[target]")).to_have_count(1)
        assert await page.locator("a[href^='javascript']").count() == 0
        await page.locator(".hits").get_by_text("Why?").first.click()
        await expect(page.locator("#why h3")).to_have_text(URL.replace("\u202e", "\\u202e"))
        await expect(page.locator(".decisions li")).to_have_count(2)
        await expect(page.locator(".decisions li").first).to_contain_text("queued by keeper c01e")
        await page.locator("#why").get_by_text("http://site-2.example.org/").click()
        await expect(page.locator("#why h3")).to_have_text("http://site-2.example.org/")
        assert watched.complaints == []
        await page.close()


async def test_adding_pausing_and_resuming(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served, place="add")
        page = watched.page
        form = page.locator("#add form")
        await form.get_by_label("Addresses, one a line").fill("http://a.example/\nhttp://b.example/")
        await form.get_by_label("Follow links").select_option("on these domains")
        await form.get_by_role("textbox", name="Domains").fill("example, example.org")
        await form.get_by_label("Links away").fill("3")
        await form.get_by_label("Most pages").fill("500")
        await form.get_by_label("Seconds").fill("0.5")
        await form.get_by_label("Contact").fill("me@example.org")
        await form.get_by_role("button", name="Add").click()
        await expect(page.locator("#add .outcomes li")).to_have_count(2)
        assert served.keeper.told == [
            Add(["http://a.example/", "http://b.example/"], 3, False, ["example", "example.org"], 500,
                "me@example.org", 0.5)
        ]  # fmt: skip
        await form.get_by_label("Addresses, one a line").fill("http://refused/")
        await form.get_by_role("button", name="Add").click()
        await expect(page.locator("#add .notice.bad")).to_contain_text("needs --contact")
        await expect(form.get_by_label("Addresses, one a line")).to_have_value("http://refused/")
        await watched.go("")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator(".running")).to_have_text("Paused: no batches are sent.")
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator(".running")).to_have_text("Running.")
        assert served.keeper.told[2:] == [Pause(), Resume()]
        assert watched.complaints == []
        await page.close()


async def test_without_a_keeper_the_page_shows_what_to_do(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url, with_keeper=False) as served:
        watched = await _opened(browser, served)
        await expect(watched.page.locator("#status")).to_contain_text("rabbitry crawl keeper", timeout=_WITHIN)
        assert watched.complaints == []
        await watched.page.close()


async def test_an_old_answer_shows_its_age(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served, place="hosts")
        page = watched.page
        await expect(page.locator("#hosts tbody tr")).to_have_count(50, timeout=_WITHIN)
        served.keeper.is_silent = True
        await expect(page.locator("#hosts .notice")).to_contain_text("no keeper answered", timeout=_WITHIN)
        await expect(page.locator(".age")).to_contain_text("s ago")
        await expect(page.locator("#hosts tbody tr")).to_have_count(50)
        await page.close()


async def test_the_pages_are_linked_with_each_other(browser: Browser, embedded_url: str) -> None:
    async with _served(embedded_url) as served:
        watched = await _opened(browser, served)
        page = watched.page
        for link, title in (
            ("Assignments", "Assignments"),
            ("Crawl", "Crawl"),
            ("Machines", "Machines"),
            ("Overview", "Overview"),
            ("Crawl", "Crawl"),
        ):
            await page.locator(".places").get_by_role("link", name=link, exact=True).click()
            await expect(page.locator("h1")).to_have_text(title)
        await page.close()
