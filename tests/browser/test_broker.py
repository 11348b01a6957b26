"""The views of the broker in a real browser, with the embedded broker and RabbitMQ behind them."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, Page, expect

import rabbitry
from rabbitry import Properties
from rabbitry.amqp.client import Channel
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.web._navigation import OWN
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.timeout(240)
_WITHIN = 90_000
_EVIL = "<img src=x onerror=alert(1)>"


@dataclass
class System:
    """A broker and the dashboard that shows it."""

    broker: str
    url: str
    is_rabbitmq: bool = False


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        with _served(server.url, management_url(server)) as web:
            yield System(server.url, web.wait_for(r"dashboard on (http://\S+/)")[1], is_rabbitmq=True)
        return
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        with _served(broker.url, f"http://127.0.0.1:{port}") as web:
            yield System(broker.url, web.wait_for(r"dashboard on (http://\S+/)")[1])


def _served(broker: str, management: str) -> AbstractContextManager[commands.Service]:
    more = {"RABBITRY_BROKER": broker, "RABBITRY_MANAGEMENT": management}
    return commands.service("web", "--port", "0", more=more)


async def _open(browser: Browser, url: str, *, width: int = 1400) -> Watched:
    page = await browser.new_page(viewport={"width": width, "height": 800})
    watched = Watched(page)
    await page.goto(url)
    return watched


# The page is drawn anew between a key and the end of the pause after which the filter is asked for.
_TYPED_WHILE_DRAWN = """async () => {
  const field = document.querySelector(".filter input");
  field.value = "typed";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const declare = [...document.querySelectorAll(".tools button")].find((one) => one.textContent === "Declare…");
  declare.click();
  await new Promise((drawn) => requestAnimationFrame(drawn));
  declare.click();
  return field.value;
}"""


@on_embedded("system")
async def test_queues_are_sorted_filtered_and_shown_in_full_by_keyboard(browser: Browser, system: System) -> None:
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        for name in ("view.a", "view.b", f"view.{_EVIL}"):
            await channel.declare_queue(name, auto_delete=False)
        await channel.publish(b"x", routing_key="view.b")
        watched = await _open(browser, f"{system.url}queues/")
        page = watched.page
        await page.get_by_label("Filter").fill("view.")
        rows = page.locator(".rows .space .row")
        await expect(rows).to_have_count(3, timeout=_WITHIN)
        await expect(rows.first).to_contain_text("view.b", timeout=_WITHIN)
        await expect(rows.first).to_contain_text("none")
        await page.get_by_role("button", name="Name").click()
        await expect(rows.first).to_contain_text(_EVIL)
        await page.get_by_role("button", name="Total").click()
        await page.get_by_role("button", name="Name").click(modifiers=["Shift"])
        await expect(rows.nth(1)).to_contain_text(_EVIL)
        assert "sort=-messages%2Cname" in page.url
        await page.locator(".rows").focus()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        details = page.get_by_role("complementary")
        await expect(details).to_contain_text("(default)", timeout=_WITHIN)
        await expect(details).to_contain_text(_EVIL)
        await page.get_by_label("Filter").fill("view. ready>0")
        await expect(rows).to_have_count(1)
        await page.get_by_label("Filter").fill("view. ready>many")
        await expect(page.locator(".rows .nothing")).to_contain_text("'many' is not a number")
        await page.get_by_label("Filter").fill("nothing-is-called-so")
        await page.get_by_role("button", name="Show all queues").click()
        await expect(page.get_by_label("Filter")).to_have_value("")
        assert await page.evaluate(_TYPED_WHILE_DRAWN) == "typed"
        await expect(page.get_by_role("button", name="Show all queues")).to_be_visible()
        assert await serious(page) == []  # of a table that is empty
        for name in ("view.a", "view.b", f"view.{_EVIL}"):
            await channel.delete_queue(name)
        await expect(details).to_contain_text("This queue is gone", timeout=_WITHIN)
    assert watched.complaints == []


async def test_messages_are_looked_at_and_hostile_ones_are_text(browser: Browser, system: System) -> None:
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue("look.me")
        death: dict[str, FieldValue] = {
            "count": 3,
            "reason": _EVIL,
            "queue": "before",
            "exchange": "",
            "routing-keys": ["k"],
        }
        await channel.publish(
            f'{{"big": 12345678901234567890, "text": "{_EVIL}"}}'.encode(),
            routing_key="look.me",
            properties=Properties(headers={_EVIL: _EVIL, "x-death": [death]}, app_id=_EVIL),
        )
        await channel.publish(f"plain {_EVIL} \u202etxt".encode(), routing_key="look.me")
        await channel.publish(b"\x00\xffAB", routing_key="look.me")
        watched = await _open(browser, f"{system.url}queues/?filter=look.me")
        page = watched.page
        await page.locator(".rows .space .row").click(timeout=_WITHIN)
        details = page.get_by_role("complementary")
        await details.get_by_role("button", name="Look at messages").click(timeout=_WITHIN)
        if system.is_rabbitmq:
            await expect(details.get_by_label("Before you look")).to_contain_text("marked as redelivered")
            await details.get_by_role("button", name="Fetch and put back").click()
        messages = details.locator(".messages li")
        await expect(messages).to_have_count(3)
        for place in range(3):
            await messages.nth(place).locator("summary").click()
        await expect(messages.nth(0).locator("pre")).to_have_text(
            f'{{\n  "big": 12345678901234567890,\n  "text": "{_EVIL}"\n}}'
        )
        await expect(messages.nth(0).locator("table", has_text="Properties")).to_contain_text(_EVIL)
        await expect(messages.nth(0).locator("table", has_text="Headers")).to_contain_text(_EVIL)
        await expect(messages.nth(0).get_by_label("Dead-lettered")).to_contain_text(f"3{_EVIL}before")
        await expect(messages.nth(1).locator("pre")).to_have_text(f"plain {_EVIL} \\u202etxt")
        await expect(messages.nth(2).locator("pre")).to_contain_text("4 bytes that are no text")
        assert await serious(page) == []
        while (taken := await channel.get("look.me")) is None:
            pass  # on RabbitMQ they are being put back
        assert taken.redelivered is system.is_rabbitmq
        taken.ack()
        await channel.delete_queue("look.me")
    assert watched.complaints == []


@on_embedded("system")
async def test_a_queue_is_purged_and_deleted_once_its_name_is_typed(browser: Browser, system: System) -> None:
    name = f"drop.{_EVIL}"
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name)
        await channel.publish(b"x", routing_key=name)
        watched = await _open(browser, f"{system.url}queues/?filter=drop.")
        page = watched.page
        await page.locator(".rows .space .row").click(timeout=_WITHIN)
        details = page.get_by_role("complementary")
        await details.get_by_role("button", name="Purge…").click(timeout=_WITHIN)
        purge = details.get_by_role("button", name="Purge the queue")
        await expect(purge).to_be_disabled()
        field = details.get_by_label("Type the queue's name")
        await field.fill(name[:-1])
        await expect(purge).to_be_disabled()
        await page.keyboard.press("Enter")
        assert (await channel.declare_queue(name, passive=True)).message_count == 1
        await field.fill(name)
        assert await serious(page) == []
        await page.keyboard.press("Enter")
        await expect(details.get_by_text("Purged.")).to_be_visible()
        assert (await channel.declare_queue(name, passive=True)).message_count == 0
        await details.get_by_role("button", name="Delete…").click()
        await details.get_by_label("Type the queue's name").fill(name)
        await details.get_by_role("button", name="Delete the queue").click()
        await expect(details).to_contain_text("This queue is gone", timeout=_WITHIN)
        await page.goto(f"{system.url}audit/")
        rows = page.locator(".audit tbody tr")
        await expect(rows).to_have_count(2)
        for row, action in ((rows.nth(0), "delete"), (rows.nth(1), "purge")):
            await expect(row).to_contain_text(f"this machine{action}/{name}done")
        assert await serious(page) == []
    assert watched.complaints == []


class _Keyboard:
    """A narrow page of the broker's things, and somebody who has a keyboard alone."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.details = page.get_by_role("complementary")

    async def open(self, place: str) -> None:
        """Go to a page; where it has a filter, open its only row."""
        await self.page.goto(f"{self.url}{place}")
        if "filter=" in place:
            await self.page.locator(".rows .space .row").click(timeout=_WITHIN)

    async def enter(self, name: str) -> None:
        """Press a button."""
        await self.page.get_by_role("button", name=name, exact=True).press("Enter", timeout=_WITHIN)

    async def type(self, *texts: str) -> None:
        """Type texts into one field after the other, and press Enter."""
        for number, text in enumerate(texts):
            if number:
                await self.page.keyboard.press("Tab")
            await self.page.keyboard.type(text)
        await self.page.keyboard.press("Enter")

    async def replace(self, field: str, text: str) -> None:
        """Replace what is in a field, and press Enter."""
        await self.details.get_by_label(field).focus()
        await self.page.keyboard.press("ControlOrMeta+a")
        await self.type(text)

    async def argue(self, name: str, value: str) -> None:
        """Add an argument, and press Enter."""
        await self.details.get_by_role("button", name="Add an argument").press("Enter")
        await self.type(name, value)


@on_embedded("system")
async def test_things_are_declared_bound_and_removed_by_keyboard(browser: Browser, system: System) -> None:
    queue, exchange = f"made.{_EVIL}", f"way.{_EVIL}"
    page = await browser.new_page(viewport={"width": 320, "height": 800})
    watched = Watched(page, expected=("status of 503",))  # what the broker refuses
    keyboard = _Keyboard(page, system.url)
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        await _declare_queue(keyboard, queue)
        await channel.declare_queue(queue, durable=True, arguments={"x-max-length": 10})  # it is there, with these
        await _declare_and_bind(keyboard, exchange, queue)
        await channel.publish(b"x", exchange=exchange, routing_key="a.b")  # mandatory: it was routed

        await keyboard.open("queues/?filter=made.")
        unbind = keyboard.details.get_by_role("button", name=f"Unbind {exchange} with key a.*")
        await unbind.press("Enter", timeout=_WITHIN)
        await keyboard.enter("Remove the binding")
        await expect(unbind).to_have_count(0, timeout=_WITHIN)
        with pytest.raises(rabbitry.PublishReturned):
            await channel.publish(b"x", exchange=exchange, routing_key="a.b")
        await channel.delete_queue(queue)

        await keyboard.open("exchanges/?filter=way.")
        await keyboard.enter("Delete…")
        await keyboard.type(exchange)
        await expect(keyboard.details).to_contain_text("This exchange is gone", timeout=_WITHIN)
    assert watched.complaints == []


async def _declare_queue(keyboard: _Keyboard, queue: str) -> None:
    page, details = keyboard.page, keyboard.details
    await keyboard.open("queues/")
    await keyboard.enter("Declare…")
    await expect(details.get_by_label("Name", exact=True)).to_be_focused()
    types = details.get_by_label("Type").locator("option")
    await expect(types).to_have_text(["as the virtual host has it", "classic", "quorum", "stream"])
    await page.keyboard.type(queue)
    await keyboard.argue("x-max-length", "many")
    await expect(details).to_contain_text("The most messages that may be ready.")
    await expect(details.get_by_role("alert")).to_have_text("x-max-length is a number, and not “many”.")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await serious(page) == []
    await page.keyboard.press("ControlOrMeta+a")
    await keyboard.type("10")
    await expect(details.get_by_role("heading", name=queue)).to_be_visible()


async def _declare_and_bind(keyboard: _Keyboard, exchange: str, queue: str) -> None:
    page, details = keyboard.page, keyboard.details
    await keyboard.open("exchanges/")
    await keyboard.enter("Declare…")
    await page.keyboard.type(exchange)
    await keyboard.replace("Type", "nonsense")
    await expect(details.get_by_role("alert")).to_contain_text(re.compile("^the broker refuses it: .*nonsense"))
    await expect(details.get_by_label("Name", exact=True)).to_have_value(exchange)
    await keyboard.replace("Type", "topic")
    await keyboard.enter("Bind…")
    await details.get_by_label("Its name").focus()
    await page.keyboard.type(queue)
    await page.keyboard.press("Tab")
    await page.keyboard.type("a.*")
    await keyboard.argue("x-why", _EVIL)
    await expect(details.get_by_text("Bound.")).to_be_visible()
    binding = details.get_by_role("listitem").filter(has_text=queue)
    await expect(binding.get_by_role("button", name=f"Unbind {queue} with key a.*")).to_be_visible(timeout=_WITHIN)
    await expect(binding).to_contain_text(f"x-why{_EVIL}", use_inner_text=False)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await serious(page) == []


@on_embedded("system")
async def test_a_connection_is_closed_with_a_reason(browser: Browser, system: System) -> None:
    async with rabbitry.connect(system.broker, name=f"close {_EVIL}"):
        watched = await _open(browser, f"{system.url}connections/?filter=client=close")
        page = watched.page
        await page.locator(".rows .space .row").click(timeout=_WITHIN)
        details = page.get_by_role("complementary")
        name = await details.get_by_role("heading").first.inner_text()
        await details.get_by_role("button", name="Close…").press("Enter")
        await page.keyboard.type("over")
        await page.keyboard.press("Tab")
        await page.keyboard.type(name)
        assert await serious(page) == []
        await page.keyboard.press("Enter")
        await expect(details).to_contain_text("This connection is gone", timeout=_WITHIN)
        await page.goto(f"{system.url}audit/")
        row = page.locator(".audit tbody tr").first
        await expect(row).to_contain_text(f"close connection: over{name}done")
    assert watched.complaints == []


@on_embedded("system")
async def test_rows_stay_where_they_are_under_the_pointer(browser: Browser, system: System) -> None:
    async with rabbitry.connect(system.broker) as connection:
        channel = await connection.channel()
        for name, count in (("stay.a", 2), ("stay.b", 1)):
            await channel.declare_queue(name)
            for _ in range(count):
                await channel.publish(b"x", routing_key=name)
        watched = await _open(browser, f"{system.url}queues/?filter=stay.&sort=-ready")
        page = watched.page
        rows = page.locator(".rows .space .row")
        await expect(rows).to_contain_text(["stay.a", "stay.b"], timeout=_WITHIN)
        held = page.get_by_text("order held")
        await expect(held).to_be_hidden()

        await rows.first.hover()
        await expect(held).to_be_visible()
        for _ in range(8):
            await channel.publish(b"x", routing_key="stay.b")
        await expect(rows.nth(1).get_by_role("cell", name="9", exact=True).first).to_be_visible(timeout=_WITHIN)
        await channel.declare_queue("stay.c")
        await expect(rows).to_contain_text(["stay.a", "stay.b", "stay.c"], timeout=_WITHIN)
        await channel.delete_queue("stay.c")
        await expect(page.get_by_role("status")).to_contain_text(["2 of"], timeout=_WITHIN)
        await page.mouse.down()
        await page.mouse.up()
        details = page.get_by_role("complementary")
        await expect(details.get_by_role("heading", name="stay.a")).to_be_visible(timeout=_WITHIN)
        await page.get_by_label("Filter").hover()
        await expect(rows).to_contain_text(["stay.b", "stay.a"])
        await expect(held).to_be_hidden()

        await page.get_by_role("button", name="Ready").focus()
        await page.keyboard.press("Enter")  # the fewest first
        await expect(rows).to_contain_text(["stay.a", "stay.b"])
        await page.locator(".rows").press("Home")
        for _ in range(17):
            await channel.publish(b"x", routing_key="stay.a")
        await expect(rows.first.get_by_role("cell", name="19", exact=True).first).to_be_visible(timeout=_WITHIN)
        await expect(rows).to_contain_text(["stay.a", "stay.b"])
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(details.get_by_role("heading", name="stay.b")).to_be_visible(timeout=_WITHIN)
        await page.context.close()
        await _rows_stay_after_a_touch(browser, system, channel)
    assert watched.complaints == []


# The order is held for some seconds after a touch. They pass when the test says so, however long its steps take.
_TOUCH_LINGERS = """const later = window.setTimeout;
window.setTimeout = (run, delay, ...more) => delay === 6000 ? ((window.letGo = run), 0) : later(run, delay, ...more)"""


async def _rows_stay_after_a_touch(browser: Browser, system: System, channel: Channel) -> None:
    """Touch the first of the rows `stay.a` with 19 messages and `stay.b` with 9, and let the second overtake it."""
    page = await browser.new_page(viewport={"width": 1400, "height": 800}, has_touch=True)
    watched = Watched(page)
    await page.add_init_script(_TOUCH_LINGERS)
    await page.goto(f"{system.url}queues/?filter=stay.&sort=-ready")
    rows = page.locator(".rows .space .row")
    await expect(rows).to_contain_text(["stay.a", "stay.b"], timeout=_WITHIN)
    await rows.first.tap()
    await expect(page.get_by_role("complementary").get_by_role("heading", name="stay.a")).to_be_visible(timeout=_WITHIN)
    for _ in range(20):
        await channel.publish(b"x", routing_key="stay.b")
    await expect(rows.nth(1).get_by_role("cell", name="29", exact=True).first).to_be_visible(timeout=_WITHIN)
    await expect(rows).to_contain_text(["stay.a", "stay.b"])
    await expect(page.get_by_text("order held")).to_be_visible()
    await page.evaluate("letGo()")
    await expect(rows).to_contain_text(["stay.b", "stay.a"])
    await expect(page.get_by_text("order held")).to_be_hidden()
    assert watched.complaints == []


async def test_every_view_of_the_broker_shows_what_is_there(browser: Browser, system: System) -> None:
    async with rabbitry.connect(system.broker, name=f"named {_EVIL}") as connection:
        channel = await connection.channel()
        await channel.declare_queue("view.consumed", exclusive=True)
        await channel.publish(b"x", routing_key="view.consumed")  # confirms are on from here
        async with channel.consume("view.consumed"):
            page = await browser.new_page(viewport={"width": 1400, "height": 800})
            watched = Watched(page)
            for path, text, detail in (
                ("exchanges", "amq.topic", "It is the broker's own"),
                ("connections", f"named {_EVIL}", f"connection_namenamed {_EVIL}"),
                ("channels", "confirms", "Modeconfirms"),
                ("consumers", "view.consumed", "Acknowledgesmanual"),
            ):
                await page.mouse.move(0, 0)  # a pointer on rows holds their order, here from the page's first moment
                await page.goto(f"{system.url}{path}/")
                rows = page.locator(".rows")
                await expect(rows.get_by_role("row", name=text).first).to_be_visible(timeout=_WITHIN)
                await rows.hover()  # from here on no row moves
                await rows.locator(".space .row", has_text=text).first.click(timeout=_WITHIN)
                await expect(page.get_by_role("complementary")).to_contain_text(detail, timeout=_WITHIN)
                assert await serious(page) == []
                assert watched.complaints == []
    views = ["queues", "exchanges", "connections", "channels", "consumers", "dead", "raw", "audit"]
    assert [view.path for view in OWN["Broker"]] == views


async def test_an_address_that_makes_no_sense_shows_the_table(browser: Browser) -> None:
    port = free_port()
    with (
        BrokerProcess("--management-port", str(port)) as broker,
        _served(broker.url, f"http://127.0.0.1:{port}") as web,
    ):
        async with rabbitry.connect(broker.url) as connection:
            await (await connection.channel()).declare_queue("some", exclusive=True)
            url = web.wait_for(r"dashboard on (http://\S+/)")[1]
            sort = ",".join(["name", "nothing", "-name", "vhost", "-ready", "bytes", "type"])
            watched = await _open(browser, url)
            for chosen in ("x", "{}", "[]", "[1,2]", '["x"]', "null"):
                await watched.page.goto(f"{url}queues/?open={chosen}&sort={sort}&filter={'some ' * 50}")
                await expect(watched.page.locator(".rows .space .row", has_text="some")).to_be_visible(timeout=_WITHIN)
                assert watched.complaints == []


_HELD = """async () => {
  const { Hold } = await import("../static/held.js");
  const made = (first, count) => Array.from({ length: count }, (_, at) => `r${first + at}`);
  const hold = new Hold(() => {});
  hold.begin("pointer");
  const windowed = (first) => {
    const found = hold.order(made(first, 100), (row) => row, { first, count: 100 });
    return [found.length, found[0], found.at(-1)];
  };
  windowed(9000);
  const found = { far: windowed(0), beside: windowed(50), near: windowed(0) };
  hold.forget();
  hold.order(made(0, 300), (row) => row);
  return { ...found, gone: hold.order([], (row) => row).length };
}"""


async def test_thousands_of_rows_are_a_few_in_the_document(browser: Browser) -> None:
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            for number in range(2000):
                await channel.declare_queue(f"many.{number:04}")
            with _served(broker.url, f"http://127.0.0.1:{port}") as web:
                watched = await _open(
                    browser, web.wait_for(r"dashboard on (http://\S+/)")[1] + "queues/?filter=many&sort=name"
                )
                page = watched.page
                await expect(page.get_by_role("status").filter(has_text="2,000 of")).to_be_visible(timeout=_WITHIN)
                rows = page.locator(".rows .space .row")
                assert await rows.count() < 300
                await page.locator(".rows").focus()
                await page.keyboard.press("End")
                await expect(page.locator(".rows .space .row", has_text="many.1999")).to_be_visible(timeout=_WITHIN)
                assert await rows.count() < 300
                await expect(page.locator(".rows .row.at")).to_contain_text("many.1999")
                await page.keyboard.press("Home")
                await expect(page.locator(".rows .row.at")).to_contain_text("many.0000", timeout=_WITHIN)
                kept = await page.evaluate(_HELD)
                assert kept["far"] == kept["near"] == [100, "r0", "r99"]
                assert kept["beside"] == [100, "r50", "r149"]
                assert kept["gone"] == 200
    assert watched.complaints == []


async def test_a_dashboard_that_is_gone_is_told_and_comes_back(browser: Browser) -> None:
    port, web_port = free_port(), free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
        async with rabbitry.connect(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("before")
            with commands.service("web", "--port", str(web_port), more=more) as web:
                web.wait_for("dashboard on")
                watched = await _open(browser, f"http://127.0.0.1:{web_port}/queues/")
                page = watched.page
                await expect(page.locator(".rows .space .row", has_text="before")).to_be_visible(timeout=_WITHIN)
            await expect(page.locator(".states")).to_contain_text("disconnected", timeout=_WITHIN)
            await channel.declare_queue("between")
            with commands.service("web", "--port", str(web_port), more=more) as web:
                web.wait_for("dashboard on")
                await expect(page.locator(".rows .space .row", has_text="between")).to_be_visible(timeout=_WITHIN)
                await expect(page.locator(".states")).to_contain_text("WebSocket connected")
        assert watched.complaints == []


async def test_without_a_management_api_the_page_says_what_to_do(browser: Browser, embedded_url: str) -> None:
    with _served(embedded_url, f"http://127.0.0.1:{free_port()}") as web:
        watched = await _open(browser, web.wait_for(r"dashboard on (http://\S+/)")[1] + "queues/", width=320)
        trouble = watched.page.get_by_role("alert")
        await expect(trouble).to_contain_text("rabbitmq-plugins enable rabbitmq_management", timeout=_WITHIN)
        wide = await watched.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        assert not wide
