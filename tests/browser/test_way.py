"""The overview without a management API, raw messages, and one message's way, with a real worker on both brokers."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

import rabbitry
from rabbitry.flow.publisher import Publisher
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(400)
_WITHIN = 120_000
_EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a broker."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("module_rabbitmq").url
        return
    with BrokerProcess() as broker:
        yield broker.url


@pytest.fixture
def web(broker: str) -> Iterator[str]:
    """The URL of a dashboard that finds no management API."""
    more = {"RABBITRY_BROKER": broker, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{free_port()}"}
    with commands.service("web", "--port", "0", more=more) as web:
        yield web.wait_for(r"dashboard on (http://\S+/)")[1]


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(broker: str) -> AsyncIterator[Publisher]:
    """The publisher of an app whose worker runs: `order` leads to two parcels, one of which fails for good."""
    app = rabbitry.App("shop")

    @app.stage("order", then="parcel")
    async def split(text: str) -> list[str]:
        return ["good", text]

    @app.stage("parcel", attempts=2, delays=[0.0])
    async def send(text: str) -> None:
        if text == "bad":
            raise ValueError(_EVIL)

    async with app.worker(broker), app.publisher(broker) as publisher:
        yield publisher


async def _fits(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


async def _check(watched: Watched) -> None:
    """Check that nothing was complained of and that axe finds nothing serious; axe itself applies inline styles."""
    assert watched.complaints == []
    assert await serious(watched.page) == []
    watched.complaints.clear()


@on_embedded("broker")
async def test_a_message_is_found_and_followed(browser: Browser, web: str, publisher: Publisher) -> None:
    watched = Watched(await browser.new_page(viewport={"width": 1300, "height": 900}))
    await watched.page.goto(web)
    identity = await _reported(watched, publisher)
    await _followed(watched, identity)
    await _listed(watched.page, identity)
    await watched.page.goto(f"{web}raw/")
    await _watched_raw(watched, publisher)


async def _reported(watched: Watched, publisher: Publisher) -> str:
    """Look at the overview while a message passes; return its id."""
    page = watched.page
    # The overview lives on what workers report, and says what is missing.
    await expect(page.locator(".notice")).to_contain_text("Shown is what workers report", timeout=_WITHIN)
    await expect(page.locator(".notice")).to_contain_text("rabbitmq-plugins enable rabbitmq_management")
    await expect(page.locator(".states")).to_contain_text("Telemetry live")
    identity = await publisher.publish("bad", key="order")
    queue = page.locator(".thing[data-kind=queue][aria-label^='queue shop.send']")
    await expect(queue).to_be_visible(timeout=_WITHIN)
    await expect(page.locator(".flow[data-moving]").first).to_be_attached(timeout=_WITHIN)
    await queue.focus()
    await page.keyboard.press("Enter")
    chosen = page.get_by_role("complementary", name="Queue shop.send")
    await expect(chosen).to_contain_text("not told")
    await expect(chosen.locator(".last li", has_text="dead letter, attempt 2")).to_have_count(1, timeout=_WITHIN)
    await expect(chosen.get_by_role("link", name="The queue in full")).to_be_visible()
    await _check(watched)
    return identity


async def _followed(watched: Watched, identity: str) -> None:
    """Find the message by the beginning of its id, without a mouse, and look at its way."""
    page = watched.page
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await page.keyboard.type(identity[:12])
    await expect(page.locator("#found [role=option]").first).to_contain_text(identity, timeout=_WITHIN)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/way/?id=*")
    tree = page.locator(".way .tree")
    await expect(tree.locator(".message")).to_have_count(3, timeout=_WITHIN)
    await expect(tree.locator("ul > li > .message")).to_have_count(2)
    dead = tree.locator(".message[data-dead]")
    await expect(dead).to_contain_text("shop send failed, comes again")
    await expect(dead).to_contain_text("attempt 2")
    await expect(dead).to_contain_text(f"ValueError: {_EVIL}")
    await expect(dead).to_contain_text("shop.dead")
    await dead.locator("summary").first.click()
    await expect(dead.get_by_role("region", name="Traceback").first).to_contain_text("in send")
    assert await page.locator("main img, main script").count() == 0
    await _check(watched)
    await page.set_viewport_size({"width": 320, "height": 800})
    await page.evaluate("rabbitryTheme.choose('dark')")
    assert await _fits(page)
    await _check(watched)


async def _listed(page: Page, identity: str) -> None:
    """Look at the page without an id, which lists the newest messages, and with one that nobody knows."""
    await page.get_by_role("link", name="Newest messages").click()
    await expect(page.get_by_role("region", name="Newest that failed")).to_contain_text(identity, timeout=_WITHIN)
    assert await _fits(page)
    await page.get_by_role("searchbox").fill("nobody")
    await page.keyboard.press("Enter")
    await expect(page.locator(".nothing")).to_contain_text("No worker reported a message with the id nobody")


async def _watched_raw(watched: Watched, publisher: Publisher) -> None:
    """Watch the messages of the app's exchange, picked by keyboard."""
    page = watched.page
    await page.get_by_role("combobox", name="Exchange").fill("shop")
    await page.get_by_role("textbox", name="Binding key").fill("order")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").filter(has_text="Watching")).to_be_visible(timeout=_WITHIN)
    await publisher.publish(_EVIL, key="order")
    message = page.locator(".sampled .list li", has_text="order").last
    await message.locator("summary").click(timeout=_WITHIN)
    await expect(message.get_by_role("region", name="Body")).to_contain_text(_EVIL)
    assert await page.locator("main img, main script").count() == 0
    assert await _fits(page)
    await _check(watched)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator(".sampled .list li")).to_have_count(0)
    assert watched.complaints == []
