"""What surrounds each page: navigation, theme, search, the state of its sources; by keyboard, and at each width."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, expect

from rabbitry.testing import RunningBroker
from tests.browser.axe import serious
from tests.browser.proxied import behind_a_prefix
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.management import broker_and_management
from tests.support.waiting import eventually_awaited

pytestmark = pytest.mark.timeout(240)
_WITHIN = 90_000
_PLACES = ("", "monitor/", "grading/", "crawl/")


async def _open(
    browser: Browser, url: str, *, width: int = 1200, scheme: Literal["dark", "light"] = "light"
) -> Watched:
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    watched = Watched(page)
    await page.goto(url)
    await expect(page.locator(".states .state").first).to_be_visible(timeout=_WITHIN)
    return watched


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The URL of a dashboard with a machine's samples, without a management API. No test changes what it shows."""
    with RunningBroker() as broker, _served({"RABBITRY_BROKER": broker.url}) as url:
        yield url


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def whole(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same with the management API of its broker, for what a page shows of that."""
    with broker_and_management(request) as (broker, management):
        with _served({"RABBITRY_BROKER": broker, "RABBITRY_MANAGEMENT": management}) as url:
            yield url


@contextlib.contextmanager
def _served(more: dict[str, str]) -> Iterator[str]:
    with commands.service("web", "--port", "0", more=more) as web, commands.service("monitor", "publish", more=more):
        yield web.wait_for(r"dashboard on (http://\S+/)")[1]


async def _expect_theme(page: Page, theme: str) -> None:
    """Wait until the page has a theme: it follows a choice, or the system, in the page's next frame."""
    await expect(page.locator("html")).to_have_css("color-scheme", theme)


async def test_a_chosen_theme_holds_on_each_page_and_after_a_reload(browser: Browser, web: str) -> None:
    watched = await _open(browser, web, scheme="light")
    page = watched.page
    await _expect_theme(page, "light")
    await page.get_by_label("Theme").select_option("Dark")
    await _expect_theme(page, "dark")
    await page.reload()
    await _expect_theme(page, "dark")
    await page.locator(".side").get_by_role("link", name="Assignments").click()
    await expect(page.locator("h1")).to_have_text("Assignments")
    await _expect_theme(page, "dark")
    await expect(page.get_by_label("Theme")).to_have_value("dark")
    await page.get_by_label("Theme").select_option("System")
    await _expect_theme(page, "light")
    await page.emulate_media(color_scheme="dark")
    await _expect_theme(page, "dark")
    assert watched.complaints == []


_REQUESTED = """() => performance.getEntriesByType("resource")
    .filter(({ name, transferSize }) => name.includes("/static/") && transferSize > 0)
    .map(({ name }) => name.split("/static/")[1])"""


async def test_a_browser_requests_no_file_again_that_it_has(browser: Browser, web: str) -> None:
    watched = await _open(browser, f"{web}queues/")
    page = watched.page
    first = await page.evaluate(_REQUESTED)
    assert {"style.css", "shell.js", "held.js", "vendor/preact/preact.mjs"} <= {one.partition("?")[0] for one in first}
    # A module without a version would be a second one of the same name, with a state of its own.
    assert [one for one in first if "?v=" not in one] == ["views.js"]
    assert await page.evaluate("import('../static/broker/queue.js').then(() => true)")
    await page.goto(f"{web}queues/")
    await expect(page.locator(".states .state").first).to_be_visible(timeout=_WITHIN)
    assert await page.evaluate("import('../static/broker/queue.js').then(() => true)")
    assert await page.evaluate(_REQUESTED) == ["views.js"]
    assert watched.complaints == []


async def test_the_search_is_a_dialog_that_keys_open_use_and_close(browser: Browser, web: str) -> None:
    watched = await _open(browser, f"{web}monitor/")
    page = watched.page
    await page.keyboard.press("/")
    dialog = page.get_by_role("dialog", name="Search")
    search = dialog.get_by_role("combobox")
    await expect(search).to_be_focused()
    for _ in range(8):  # the focus stays inside, or goes to the browser's own controls
        await page.keyboard.press("Tab")
        assert await page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await page.keyboard.press("Control+k")
    await expect(search).to_be_focused()
    await page.keyboard.type("<b>none</b>")
    await expect(dialog).to_contain_text("Nothing is called “<b>none</b>”.")
    await search.fill("")
    await page.keyboard.type("assi")
    await expect(dialog.get_by_role("option").first).to_have_text("Assignments view")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Assignments")
    await expect(page).to_have_url(f"{web}grading/")
    assert watched.complaints == []


async def test_the_search_opens_again_before_its_close_is_reported(browser: Browser, web: str) -> None:
    watched = await _open(browser, f"{web}monitor/")
    page = watched.page
    await page.keyboard.press("/")
    dialog = page.get_by_role("dialog", name="Search")
    await dialog.get_by_role("combobox").fill("assi")
    await page.evaluate(
        """() => new Promise((closed) => {
            const dialog = document.querySelector("dialog");
            dialog.addEventListener("close", () => setTimeout(closed));
            dialog.close();
            dispatchEvent(new KeyboardEvent("keydown", { key: "k", ctrlKey: true }));
        })"""
    )
    await expect(dialog.get_by_role("combobox")).to_be_focused()
    await expect(dialog.get_by_role("combobox")).to_have_value("")
    assert watched.complaints == []


async def test_on_a_phone_the_navigation_opens_and_closes_by_keys(browser: Browser, web: str) -> None:
    watched = await _open(browser, web, width=320)
    page = watched.page
    places = page.locator(".side")
    await expect(places).to_be_hidden()
    await page.get_by_role("button", name="Menu").focus()
    await page.keyboard.press("Enter")
    await expect(places.get_by_role("link", name="Crawl")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(places).to_be_hidden()
    await expect(page.get_by_role("button", name="Menu")).to_be_focused()


@on_embedded("whole")
async def test_pages_work_behind_a_proxys_prefix(browser: Browser, whole: str) -> None:
    async with (
        behind_a_prefix(whole) as url,
        await browser.new_page(viewport={"width": 1300, "height": 900}) as page,
    ):
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        await page.goto(url)
        # What the broker has comes through: the dashboard's own connections, the agent's exchange, and its samples.
        for name, shown in (
            ("Connections", ".rows .row:has-text('rabbitry web')"),
            ("Exchanges", ".rows .row:has-text('system_info')"),
            ("Machines", "article.card"),
            ("Overview", ".thing[data-kind=exchange]"),
        ):
            await page.get_by_role("link", name=name, exact=True).click()
            await expect(page.get_by_role("heading", level=1)).to_have_text(name)
            assert page.url.startswith(url)
            await expect(page.locator(".states")).to_contain_text("WebSocket connected")
            await expect(page.locator(f"#page {shown}").first).to_be_visible(timeout=_WITHIN)
        assert [one for one in complaints if one.startswith("error")] == []


@on_embedded("whole")
async def test_the_age_of_what_is_shown_is_told(browser: Browser, whole: str) -> None:
    watched = await _open(browser, whole)
    await expect(watched.page.locator(".states .state", has_text="Management API")).to_contain_text("s old")
    await expect(watched.page.locator(".states")).to_contain_text("WebSocket connected", timeout=_WITHIN)
    await expect(watched.page.locator(".states .state-age").first).to_contain_text("s old")
    await expect(watched.page.locator("article.card")).to_have_count(1, timeout=_WITHIN)  # the machines' panel


_COVERED = """() => {
  scrollTo(0, document.body.scrollHeight);
  const [header, first] = [document.querySelector(".top"), document.querySelector(".side a")];
  return [scrollY > 0, header.offsetHeight, header.getBoundingClientRect().bottom - first.getBoundingClientRect().top];
}"""


async def test_the_header_never_covers_the_navigation(browser: Browser, web: str) -> None:
    page = (await _open(browser, web, width=1280)).page
    await expect(page.locator(".states .state")).to_have_count(4, timeout=_WITHIN)
    for width, height, has_one_line in ((1280, 500, True), (970, 500, False)):
        await page.set_viewport_size({"width": width, "height": height})

        async def is_below() -> bool:
            is_scrolled, _, covered = await page.evaluate(_COVERED)
            return bool(is_scrolled and covered <= 0)

        await eventually_awaited(is_below, f"the navigation below the header at {width} px")
        _, tall, _ = await page.evaluate(_COVERED)
        assert (tall < 60) is has_one_line, f"the header is {tall} px high at {width} px"


@on_embedded("whole")
async def test_axe_finds_nothing_serious_on_any_page(browser: Browser, whole: str) -> None:
    schemes: tuple[Literal["dark", "light"], ...] = ("dark", "light")
    page = (await _open(browser, whole)).page
    for place in _PLACES:
        await page.goto(f"{whole}{place}")
        await expect(page.locator("main > *").first).to_be_visible(timeout=_WITHIN)
        for width, scheme in itertools.product((320, 1200), schemes):
            what = f"{place} in {scheme}, {width} px wide"
            await page.set_viewport_size({"width": width, "height": 800})
            await page.emulate_media(color_scheme=scheme)
            await _expect_theme(page, scheme)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, what
            assert await serious(page) == [], what
            if not place:  # the search is the same on each page
                await page.keyboard.press("Control+k")
                await expect(page.get_by_role("combobox", name="Search")).to_be_focused()
                assert await serious(page) == [], f"the search of {what}"
                await page.keyboard.press("Escape")
                await expect(page.get_by_role("dialog", name="Search")).to_have_count(0)
