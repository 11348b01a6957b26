"""Every view of the dashboard, with a real system behind it, used by somebody who has a keyboard alone."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

import rabbitry
from tests.browser.watched import SERVER_AWAY, Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.web.dead.serving import bury

pytestmark = pytest.mark.timeout(400)
_WITHIN = 120_000
_MOST_STOPS = 150
_NOWHERE = "nothing has the focus"

# Remembers what has the focus, and tells what is wrong with it: it is nowhere, out of sight, covered, or not marked.
_STOP = """() => {
  const one = document.activeElement;
  if (one === document.body) return "nothing has the focus";
  (window.stops ??= new Set()).add(one);
  const name = `${one.tagName} ${one.getAttribute("aria-label") ?? one.textContent.trim().slice(0, 40)}`;
  const { left, right, top, bottom } = one.getBoundingClientRect();
  if (bottom <= 0 || top >= innerHeight || right <= 0 || left >= innerWidth) return `${name} is out of sight`;
  const at = (low, high, most) => Math.min(Math.max((low + high) / 2, 1), most - 1);
  const seen = document.elementFromPoint(at(left, right, innerWidth), at(top, bottom, innerHeight));
  if (seen && !one.contains(seen) && !seen.contains(one)) return `${name} is covered by ${seen.outerHTML.slice(0, 80)}`;
  const isMarked = [one, ...one.querySelectorAll(".at")].some((each) => { // of a table the row that the keys are at
    const { outlineStyle, outlineWidth } = getComputedStyle(each);
    return outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
  });
  const isDrawn = one.closest("svg") !== null && one.matches(":focus-visible"); // its frame is wider then
  return isMarked || isDrawn ? null : `${name} is not marked`;
}"""

_REMEMBER = """(start) => {
  window.stops = new Set([document.activeElement]);
  const kinds = ":is(button, a[href], input, select, textarea, summary, [tabindex='0'])";
  const isUsable = (one) => one.isConnected && one.checkVisibility() && !one.disabled && one.matches(kinds);
  const wanted = [...document.querySelectorAll(start === "#page" ? `main ${kinds}` : kinds)].filter(isUsable);
  window.unreached = () => wanted.filter((one) => isUsable(one) && !stops.has(one));
}"""

_UNREACHED = "unreached().map((one) => one.outerHTML.slice(0, 120))"


@dataclass(frozen=True)
class Broker:
    """A broker. looking, letters: the buttons that confirm a look at messages and dead letters, if it asks for that."""

    url: str
    management: str
    looking: str | None = None
    letters: str | None = None


class Walker:
    """Somebody with a keyboard, on one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.main = page.locator("#page")

    async def press(self, *keys: str) -> None:
        """Press keys, after each of which something has the focus and can be seen to have it."""
        for key in keys:
            await self.page.keyboard.press(key)
            assert await self.page.evaluate(_STOP) is None

    async def to(self, target: Locator) -> None:
        """Focus something, as pressing Tab often enough does: `round` shows that Tab gets to all there is."""
        await target.focus(timeout=_WITHIN)
        assert await self.page.evaluate(_STOP) is None

    async def use(self, name: str, within: Locator | None = None) -> None:
        """Go to a button and press it."""
        await self.to((within or self.main).get_by_role("button", name=name, exact=True).first)
        await self.page.keyboard.press("Enter")

    async def keeps_some(self) -> None:
        """Expect that anything gets the focus, and can be seen to have it."""
        await expect(self.page.locator(":focus")).to_have_count(1)
        assert await self.page.evaluate(_STOP) is None

    async def keeps(self, target: Locator) -> None:
        """Expect that something gets the focus, and can be seen to have it."""
        await expect(target).to_be_focused()
        assert await self.page.evaluate(_STOP) is None

    async def go(self, view: str) -> None:
        """Open a view by its link in the navigation."""
        await self.to(self.page.locator(".side").get_by_role("link", name=view, exact=True))
        await self.page.keyboard.press("Enter")
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(view)

    async def round(self, start: str = "#page") -> None:
        """Press Tab from a place to the end of the page: that reaches all that can be used there."""
        await self.page.locator(start).focus()
        await self.page.evaluate(_REMEMBER, start)
        for _ in range(_MOST_STOPS):
            await self.page.keyboard.press("Tab")
            trouble = await self.page.evaluate(_STOP)
            if trouble == _NOWHERE:  # after the last one comes the browser itself
                break
            assert trouble is None, trouble
        assert await self.page.evaluate(_UNREACHED) == []


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        yield Broker(server.url, management_url(server), looking="Fetch and put back", letters="Deliver and put back")
        return
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as process:
        yield Broker(process.url, f"http://127.0.0.1:{port}")


@pytest_asyncio.fixture(loop_scope="session")
async def dashboard(broker: Broker) -> AsyncIterator[str]:
    """The URL of a dashboard that has something to show in each of its own views, and on the page of machines."""
    app = rabbitry.App("shop")

    @app.stage("order")
    async def check(order: str) -> None: ...

    more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": broker.management}
    with commands.service("web", "--port", "0", more=more) as web:
        url = web.wait_for(r"dashboard on (http://\S+/)")[1]
        web.wait_for("broker connected")
        async with rabbitry.connect(broker.url) as connection, app.worker(broker.url):
            channel = await connection.channel()
            await channel.declare_queue("walk.queue", durable=True)
            for number in range(3):
                await channel.publish(f"{number}".encode(), routing_key="walk.queue")
            await bury(channel, "shop", [b'"a"', b'"b"'], queue="shop.check", stage="check")
            sample = {"hostname": "pi", "cpu": 0.5, "net": {}, "memory": {"percent": 10}}
            await channel.publish(json.dumps(sample).encode(), exchange="system_info", routing_key="pi")
            yield url


@on_embedded("broker")
async def test_every_view_is_used_by_keyboard_alone(browser: Browser, broker: Broker, dashboard: str) -> None:
    # No coordinator answers for the records of a course, which the pages of assignments say in their own words.
    expected = (*SERVER_AWAY, "status of 503")
    watched = Watched(await browser.new_page(viewport={"width": 1300, "height": 800}), expected)
    await watched.page.goto(dashboard)
    walker = Walker(watched.page)
    await _shell(walker)
    await _overview(walker)
    await _flows_and_messages(walker)
    await _queues(walker, broker)
    await _tables(walker)
    await _dead_letters(walker, broker)
    await _raw_and_audit(walker)
    await _apps(walker)
    assert watched.complaints == []


async def _shell(walker: Walker) -> None:
    """Skip the navigation, search, and choose a theme."""
    page = walker.page
    await page.keyboard.press("Tab")
    await walker.keeps(page.get_by_text("Skip to the content"))
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.closest('main') !== null")
    await walker.to(page.get_by_role("button", name="Search"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("combobox", name="Search")).to_be_focused()
    await walker.press("ArrowDown", "ArrowUp")
    await page.keyboard.press("Escape")
    await walker.keeps(page.get_by_role("button", name="Search"))
    await walker.to(page.get_by_label("Theme"))
    await page.keyboard.type("Dark")
    await expect(page.locator("html")).to_have_css("color-scheme", "dark")


# A button is disabled while the server is asked. Here it is enabled again as soon as it has lost the focus.
_ANSWERED_AT_ONCE = """() => {
  const one = document.activeElement;
  one.addEventListener("focusout", () => queueMicrotask(() => (one.disabled = false)), { once: true });
  one.disabled = true;
}"""


async def _overview(walker: Walker) -> None:
    page, main = walker.page, walker.main
    await expect(main.locator(".thing[aria-label^='queue walk.queue']")).to_be_visible(timeout=_WITHIN)
    await walker.round(".skip")
    await walker.to(main.locator(".thing[tabindex='0']"))
    await walker.press("ArrowDown", "ArrowRight", "Enter")
    chosen = main.get_by_role("complementary")
    await walker.use("Close", chosen)
    await expect(chosen).to_have_count(0)
    await walker.keeps(main.locator(".thing:focus"))
    await walker.use("History")
    dialog = page.get_by_role("dialog")
    await walker.use("Last week", dialog)
    await walker.use("Close", dialog)
    await walker.keeps(main.get_by_role("button", name="History"))
    await walker.use("Freeze")
    await page.keyboard.press("Enter")
    await walker.keeps(main.get_by_role("button", name="Freeze"))
    trials = main.get_by_role("region", name="To try")
    await walker.use("Dismiss", trials)
    await expect(trials).to_have_count(0)
    await walker.press("Tab")


async def _flows_and_messages(walker: Walker) -> None:
    page, main = walker.page, walker.main
    await walker.go("Flows")
    await walker.to(main.get_by_role("button", name="Pause check"))
    await page.keyboard.press("Enter")
    await walker.keeps(main.get_by_role("button", name="Resume check"))
    await page.keyboard.press("Enter")
    await walker.keeps(main.get_by_role("button", name="Pause check"))
    await walker.to(main.get_by_text("1 worker", exact=True))
    await walker.press("Enter")
    await walker.round()
    await walker.go("Messages")
    await walker.to(main.get_by_role("searchbox"))
    await page.keyboard.type("nobody")
    await page.keyboard.press("Enter")
    await expect(main).to_contain_text("No worker reported a message with the id nobody")
    await walker.round()


async def _queues(walker: Walker, broker: Broker) -> None:
    """Open a row, look at its messages, purge and delete it; begin to declare another."""
    page, main = walker.page, walker.main
    await walker.go("Queues")
    await walker.to(main.get_by_role("searchbox", name="Filter"))
    await page.keyboard.type("name=walk")
    await expect(main.locator(".rows .space .row")).to_have_count(1, timeout=_WITHIN)
    await walker.use("Name")
    await walker.keeps(main.get_by_role("button", name="Name"))
    await walker.to(main.locator(".rows"))
    await walker.press("ArrowDown", "Home", "Enter")
    details = main.get_by_role("complementary")
    await expect(details.get_by_role("button", name="Purge…")).to_be_visible(timeout=_WITHIN)
    await walker.use("Look at messages", details)
    if broker.looking:
        await walker.use(broker.looking, details)
    await walker.keeps(details.get_by_role("button", name="Look again"))
    await walker.to(details.locator("summary").first)
    await walker.press("Enter")
    await walker.round()
    await walker.use("Bind…", details)
    await walker.use("Leave it", details)
    await walker.keeps(details.get_by_role("button", name="Bind…"))
    await walker.use("Purge…", details)
    await walker.keeps(details.get_by_label("Type the queue's name"))
    await page.keyboard.type("walk.queue")
    await page.keyboard.press("Enter")
    await expect(details.get_by_text("Purged.")).to_be_visible()
    await walker.keeps(details.get_by_role("button", name="Purge…"))
    await walker.use("Delete…", details)
    await page.keyboard.type("walk.queue")
    await walker.use("Delete the queue", details)
    await expect(details).to_contain_text("This queue is gone", timeout=_WITHIN)
    await walker.keeps(details.get_by_role("button", name="Close the details"))
    await page.keyboard.press("Enter")
    await expect(details).to_have_count(0)
    await walker.keeps_some()
    await walker.use("Declare…")
    await walker.keeps(details.get_by_label("Name", exact=True))
    await walker.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await walker.keeps(main.get_by_role("button", name="Declare…"))
    await page.keyboard.press("Enter")
    await walker.use("Add an argument", details)
    await walker.round()


async def _tables(walker: Walker) -> None:
    """Open a row of each of the other tables, and close it."""
    for view in ("Exchanges", "Connections", "Channels", "Consumers"):
        await walker.go(view)
        await expect(walker.main.locator(".rows .space .row").first).to_be_visible(timeout=_WITHIN)
        await walker.to(walker.main.locator(".rows"))
        await walker.press("End", "Enter")
        details = walker.main.get_by_role("complementary")
        await expect(details.locator("h3").first).to_be_visible(timeout=_WITHIN)
        await walker.round()
        await walker.use("Close the details", details)
        await expect(details).to_have_count(0)
        await walker.keeps(walker.main.locator(".rows"))


async def _dead_letters(walker: Walker, broker: Broker) -> None:
    page, main = walker.page, walker.main
    await walker.go("Dead letters")
    if broker.letters:
        await walker.use(broker.letters)
    group = main.locator("details.group")
    await walker.to(group.locator("summary").first)
    await walker.press("Enter")
    await walker.to(group.locator("details.letter summary").first)
    await walker.press("Enter")
    await walker.use("Edit and replay…", group)
    await expect(group.get_by_role("textbox")).to_be_visible()
    await walker.use("Leave it", group)
    await walker.keeps_some()
    await walker.round()
    await walker.use("Replay…", group)
    await walker.use("Replay 1 message", group)
    job = main.get_by_label("Replay or drop")
    await expect(job).to_contain_text("Replayed 1")
    if broker.letters:  # it is asked again only by the button
        await walker.use("Look again")
    await expect(group.locator(".count")).to_have_text("1")
    await walker.use("Drop this group…", group)
    await walker.to(group.get_by_label("Type the queue’s name"))
    await page.keyboard.type("shop.dead")
    await page.keyboard.press("Enter")
    await expect(main).to_contain_text("0 messages in the queue", timeout=_WITHIN)
    await expect(job).to_contain_text("Dropped 1")  # the result stays when nothing is left
    if broker.letters:
        await walker.use("Look again")
    await expect(group).to_have_count(0)
    await walker.keeps_some()


async def _raw_and_audit(walker: Walker) -> None:
    page, main = walker.page, walker.main
    await walker.go("Raw messages")
    await walker.to(main.get_by_role("combobox", name="Exchange"))
    await page.keyboard.type("rabbitry.telemetry")
    await page.keyboard.press("Enter")
    await expect(main.locator(".sampled .list > li").first).to_be_visible(timeout=_WITHIN)
    await walker.use("Freeze")
    await walker.to(main.locator(".sampled summary").first)
    await walker.press("Enter")
    await walker.round()
    await walker.use("Stop")
    await expect(main.get_by_role("button", name="Stop")).to_have_count(0)
    await walker.keeps_some()
    await walker.go("Audit")
    await expect(main.locator("tbody tr").filter(has_text=re.compile("purge|delete"))).to_have_count(2)
    await walker.use("Load again")
    await walker.keeps(main.get_by_role("button", name="Load again"))
    await page.evaluate(_ANSWERED_AT_ONCE)
    await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn, 50)))")
    await walker.keeps(main.get_by_role("button", name="Load again"))
    await walker.round()


async def _apps(walker: Walker) -> None:
    page, main = walker.page, walker.main
    await walker.go("Machines")
    await walker.use("pi")
    await walker.use("Close", page.get_by_role("dialog"))
    await walker.keeps(main.get_by_role("button", name="pi"))
    await walker.round()
    await walker.go("Assignments")
    for place in ("Submit", "Requests", "Statistics", "Submissions"):
        await walker.to(main.get_by_role("link", name=place, exact=True))
        await walker.press("Enter")
        await expect(main.get_by_role("link", name=place, exact=True)).to_have_attribute("aria-current", "page")
        await walker.round()
    field = main.get_by_label("Find")
    await walker.to(field)
    await page.keyboard.type("a/")
    await expect(field).to_have_value("a/")  # a slash in a field opens no search
    await walker.go("Crawl")
    for place in ("Hosts", "Search", "Why?", "Add", "Live"):
        await walker.to(main.get_by_role("link", name=place, exact=True))
        await walker.press("Enter")
        await expect(main.get_by_role("link", name=place, exact=True)).to_have_attribute("aria-current", "page")
        await walker.round()
