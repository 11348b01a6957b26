"""The Dead letters view in a real browser, with a worker on the embedded broker and on RabbitMQ behind it."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest
from playwright.async_api import Browser, Locator, Page, expect

import rabbitry
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.embedded import BrokerProcess
from tests.support.management import management_url
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)
_WITHIN = 90_000
_EVIL = "<img src=x onerror=alert(1)>"


class Order(msgspec.Struct):
    number: int
    price: float | None = None
    note: str = ""


@dataclass
class System:
    """A broker and the dashboard that shows it."""

    broker: str
    url: str
    is_rabbitmq: bool


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "rabbitmq":
        server: RabbitMQ = request.getfixturevalue("module_rabbitmq")
        more = {"RABBITRY_BROKER": server.url, "RABBITRY_MANAGEMENT": management_url(server)}
        with commands.service("web", "--port", "0", more=more) as web:
            yield System(server.url, web.wait_for(r"dashboard on (http://\S+/)")[1], is_rabbitmq=True)
        return
    port = free_port()
    with BrokerProcess("--management-port", str(port)) as broker:
        more = {"RABBITRY_BROKER": broker.url, "RABBITRY_MANAGEMENT": f"http://127.0.0.1:{port}"}
        with commands.service("web", "--port", "0", more=more) as web:
            yield System(broker.url, web.wait_for(r"dashboard on (http://\S+/)")[1], is_rabbitmq=False)


async def _fits(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


async def _look_again(page: Page, system: System) -> None:
    """A broker that marks what is looked at is asked again only by the button."""
    if system.is_rabbitmq:
        await page.get_by_role("button", name="Look again").click()


async def _open_by_keyboard(page: Page, summary: Locator) -> None:
    await summary.focus()
    await page.keyboard.press("Enter")


@on_embedded("system")
async def test_dead_letters_are_looked_at_edited_replayed_and_dropped(browser: Browser, system: System) -> None:
    app = rabbitry.App("shop")
    done: list[Order] = []

    @app.stage("order", attempts=1)
    async def check(order: Order) -> None:
        if order.price is None:
            raise ValueError(f"order {order.number} has no price {_EVIL}")
        done.append(order)

    page = await browser.new_page(viewport={"width": 320, "height": 800}, color_scheme="dark")
    watched = Watched(page)
    await page.goto(f"{system.url}dead/")
    await expect(page.get_by_text("There are no dead letters.")).to_be_visible(timeout=_WITHIN)
    assert await _fits(page)
    async with app.worker(system.broker, connect_attempts=1):
        for number in range(3):
            await app.publish(Order(number, note=_EVIL), key="order", url=system.broker)
        await app.publish(b"\xff\x00", key="order", url=system.broker)
        await expect(page.get_by_role("heading", name="Dead letters of shop")).to_be_visible(timeout=_WITHIN)
        await expect(page.get_by_text("4 messages in the queue")).to_be_visible(timeout=_WITHIN)
        await _look(page, system)
        groups = page.locator("details.group")
        await expect(groups).to_have_count(2)
        await expect(groups.nth(0).locator("summary").first).to_contain_text(
            f"order # has no price {_EVIL.replace('1', '#')}"
        )
        await expect(groups.nth(1).locator("summary").first).to_contain_text("undecodable")
        await _open_by_keyboard(page, groups.nth(0).locator("summary").first)
        letters = groups.nth(0).locator("details.letter")
        await expect(letters).to_have_count(3)
        await _open_by_keyboard(page, letters.nth(1).locator("summary"))
        letter = letters.nth(1)
        await expect(letter.get_by_label("Traceback")).to_contain_text(f"has no price {_EVIL}")
        await expect(letter.get_by_label("Body")).to_contain_text(f'"note": "{_EVIL}"')
        await expect(letter.locator(".origin")).to_contain_text("shop.check")
        await _edit(page, letter)
        await eventually(lambda: [order.number for order in done] == [1], "the edited order is handled")
        assert (done[0].price, done[0].note) == (12.5, _EVIL)
        await expect(page.get_by_label("Replay or drop")).to_contain_text("Replayed 1")
        await _look_again(page, system)
        await expect(groups.nth(0).locator(".count").first).to_have_text("2")
        await _drop(page, groups.nth(0), "2 messages")
        await expect(page.get_by_label("Replay or drop")).to_contain_text("Dropped 2")
        await expect(page.get_by_text("1 message in the queue")).to_be_visible(timeout=_WITHIN)
        await _look_again(page, system)
        await expect(groups).to_have_count(1)
        assert await _fits(page)
        await _open_by_keyboard(page, groups.nth(0).locator("summary").first)
        await _drop(page, groups.nth(0), "1 message")
        await expect(page.get_by_text("0 messages in the queue")).to_be_visible(timeout=_WITHIN)
        await expect(page.get_by_label("Replay or drop")).to_contain_text("Dropped 1")  # though nothing is left
    await page.goto(f"{system.url}audit/")
    rows = page.locator(".audit tbody tr")
    await expect(
        rows.filter(has_text="drop dead letters: of stage check, failed").filter(has_text="2 dropped")
    ).to_have_count(1)
    await expect(rows.filter(has_text="replay dead letters: one").filter(has_text="1 replayed")).to_have_count(1)
    assert watched.complaints == []


async def _look(page: Page, system: System) -> None:
    if system.is_rabbitmq:
        before = page.get_by_label("Before you look")
        await expect(before).to_contain_text("marked as redelivered")
        await before.get_by_role("button", name="Deliver and put back").click()
    else:
        await page.get_by_role("button", name=re.compile("^Look")).click()


async def _edit(page: Page, letter: Locator) -> None:
    """Edit the body of an order, wrong at first, and replay it."""
    await letter.get_by_role("button", name="Edit and replay").click()
    body = letter.get_by_role("textbox")
    text = await body.input_value()
    send = letter.get_by_role("button", name="Replay 1 message")
    await expect(send).to_be_disabled()
    told = letter.get_by_label("Check of the type")
    for _ in range(60):  # the worker announces its types each 10 s
        await body.fill(text.replace("null", '"much"'))
        await expect(told).to_be_visible()
        if "Not checked" not in await told.inner_text():
            break
        await asyncio.sleep(1)
        await body.fill(text)
    await expect(told).to_contain_text('$.price: "much"')
    await expect(send).to_be_disabled()
    await letter.get_by_label("Replay it all the same").check()
    await expect(send).to_be_enabled()
    await body.fill(text.replace("null", "12.5"))
    await expect(told).to_contain_text("It is of the type of stage check")
    changes = letter.get_by_label("What changes")
    await expect(changes.locator("del")).to_contain_text('-   "price": null')
    await expect(changes.locator("ins")).to_contain_text('+   "price": 12.5')
    await expect(letter.get_by_label("Dry run")).to_contain_text("1 to queue shop.check, which has 1 consumer")
    assert await serious(page) == []
    await send.click()


async def _drop(page: Page, group: Locator, some: str) -> None:
    await group.get_by_role("button", name="Drop this group").click()
    drop = group.get_by_role("button", name=f"Drop {some}")
    await expect(drop).to_be_disabled()
    name = group.get_by_label("Type the queue’s name")
    await name.fill("shop.dea")
    await page.keyboard.press("Enter")
    await expect(drop).to_be_disabled()
    assert await serious(page) == []
    await name.fill("shop.dead")
    await page.keyboard.press("Enter")
