"""Every view where it has nothing to show: empty, filtered to nothing, without a source, cut off; axe finds nothing."""

import contextlib
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, Page, WebSocketRoute, expect

from rabbitry.web._navigation import OWN
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.management import broker_and_management
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(400)
_WITHIN = 120_000
_VIEWS = [view.path for group in OWN.values() for view in group]
_APPS = ["monitor", "grading", "crawl"]
_TABLES = ["queues", "exchanges", "connections", "channels", "consumers"]
# axe applies inline styles, which the policy of the page refuses.
_EXPECTED = ("WebSocket connection to", "Failed to load resource", "Applying inline style")


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker that has nothing, and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


@contextlib.contextmanager
def _served(broker: str, management: str) -> Iterator[str]:
    more = {"RABBITRY_BROKER": broker, "RABBITRY_MANAGEMENT": management}
    with commands.service("web", "--port", "0", more=more) as web:
        yield web.wait_for(r"dashboard on (http://\S+/)")[1]


async def _found(page: Page) -> list[str]:
    """Return what axe finds, and whether the page has to be scrolled sideways."""
    wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return [*await serious(page), *(["it is too wide"] if wide else [])]


async def _open(browser: Browser) -> Watched:
    return Watched(await browser.new_page(viewport={"width": 320, "height": 800}), _EXPECTED)


def _place(view: str) -> str:
    return f"{view}/" if view else ""


@on_embedded("system")
async def test_empty_views_and_those_without_a_match(browser: Browser, system: tuple[str, str]) -> None:
    with _served(*system) as url:
        watched = await _open(browser)
        page = watched.page
        for view in [*_VIEWS, *_APPS]:
            await page.goto(url + _place(view))
            await expect(page.locator("main > *").first).to_be_visible(timeout=_WITHIN)
            assert await _found(page) == [], view
        # All tables have the same rows, and all details the same frame.
        await page.goto(f"{url}channels/?filter=nobody")
        await expect(page.locator(".rows")).to_contain_text("No channel matches “nobody”", timeout=_WITHIN)
        assert await _found(page) == []
        await page.goto(f'{url}queues/?open=["/","nobody"]')
        await expect(page.get_by_role("complementary")).to_contain_text("This queue is gone", timeout=_WITHIN)
        assert await _found(page) == []
        await page.goto(f"{url}way/?id=nobody")
        await expect(page.locator("main")).to_contain_text("No worker reported a message with the id nobody")
        assert await _found(page) == []
        await page.goto(f"{url}raw/?exchange=nobody")
        await expect(page.locator("main").get_by_role("alert")).to_be_visible(timeout=_WITHIN)
        assert await _found(page) == []
        assert watched.complaints == []


@pytest.mark.faults
async def test_views_without_a_source_while_they_load_and_when_cut_off(
    browser: Browser, system: tuple[str, str]
) -> None:
    with _served(system[0], f"http://127.0.0.1:{free_port()}") as url:
        watched = await _open(browser)
        page = watched.page
        held: list[WebSocketRoute] = []
        for view in [*_VIEWS, *_APPS]:
            await page.goto(url + _place(view))
            await expect(page.locator("main > *").first).to_be_visible(timeout=_WITHIN)
            if view in _TABLES:
                await expect(page.locator("main").get_by_role("alert")).to_be_visible(timeout=_WITHIN)
            assert await _found(page) == [], f"{view} without a management API"
        loading = await _open(browser)
        await loading.page.route_web_socket(
            "**/feed", lambda socket: held.append(socket)
        )  # it opens, and nothing comes
        for view in _VIEWS:
            await loading.page.goto(url + _place(view))
            await expect(loading.page.locator("main > *").first).to_be_visible(timeout=_WITHIN)
            assert await _found(loading.page) == [], f"{view} while it loads"
        assert held
        pages = [(await _open(browser), view) for view in ("", "flows", "queues", "dead", "raw", "monitor")]
        for cut, view in pages:
            await cut.page.goto(url + _place(view))
            await expect(cut.page.locator(".states")).to_contain_text("connected", timeout=_WITHIN)
    for cut, view in pages:
        await expect(cut.page.locator(".states")).to_contain_text("disconnected", timeout=_WITHIN)
        assert await _found(cut.page) == [], f"{view}, cut off"
        assert cut.complaints == []
    assert watched.complaints == loading.complaints == []
