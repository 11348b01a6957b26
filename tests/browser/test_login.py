"""Signing in and out by keyboard, behind a proxy's prefix, and what the page offers to a viewer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

import rabbitry
from tests.browser.axe import serious
from tests.browser.proxied import behind_a_prefix
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.management import broker_and_management
from tests.web.login.dashboards import PASSWORD, users_file

pytestmark = pytest.mark.timeout(300)
_NAME = '<img src=x onerror="alert(1)">'
# What a page's timer would do between the end of the session and the end of the page.
_ASKED_WHILE_LEAVING = """async () => {
  const { ask } = await import(new URL("../static/ask.js", location));
  const { signOut } = await import(new URL("../static/access.js", location));
  signOut();
  return await ask("overview").then(() => "asked", (error) => error.message);
}"""


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


@on_embedded("system")
async def test_a_viewer_signs_in_sees_and_signs_out_by_keyboard(
    browser: Browser, system: tuple[str, str], tmp_path: Path
) -> None:
    broker, management = system
    users = users_file(tmp_path, {_NAME: "viewer"})
    more = {"RABBITRY_BROKER": broker, "RABBITRY_MANAGEMENT": management, "RABBITRY_WEB_USERS": str(users)}
    async with rabbitry.connect(broker) as connection:
        channel = await connection.channel()
        await channel.declare_queue("seen", durable=True)
        with commands.service("web", "--port", "0", more=more) as web:
            inner = web.wait_for(r"dashboard on (http://\S+/)")[1]
            async with behind_a_prefix(inner) as url:
                await _walk(browser, url)
        await channel.delete_queue("seen")


async def _walk(browser: Browser, url: str) -> None:
    page = await browser.new_page(viewport={"width": 320, "height": 700}, color_scheme="dark")
    watched = Watched(page, expected=["401 (Unauthorized)"])
    await page.goto(f"{url}queues/?open=%5B%22%2F%22%2C%22seen%22%5D")
    await expect(page.get_by_label("Name")).to_be_focused()
    assert page.url.startswith(f"{url}login/?to=queues")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await serious(page) == []
    await page.keyboard.type(_NAME)
    await page.keyboard.press("Tab")
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("Wrong name or password.")
    await expect(page.get_by_label("Password")).to_be_focused()
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{url}queues/?open=%5B%22%2F%22%2C%22seen%22%5D")

    await page.set_viewport_size({"width": 1300, "height": 900})
    await expect(page.locator(".who")).to_contain_text(f"{_NAME}, viewer")
    await expect(page.locator(".states")).to_contain_text("WebSocket connected")
    for name in ("Declare…", "Look at messages", "Bind…", "Purge…", "Delete…"):
        await expect(page.get_by_role("button", name=name)).to_be_disabled()
    await expect(page.get_by_text("This needs the role admin, and you have the role viewer.")).to_have_count(3)
    assert await serious(page) == []
    for place, name in (("grading/#/submit", "Submit"), ("crawl/#/add", "Add")):
        await page.goto(f"{url}{place}")
        await expect(page.locator("#page").get_by_role("button", name=name, exact=True)).to_be_disabled()
        await expect(page.get_by_text("This needs the role operator, and you have the role viewer.")).to_be_visible()
        assert await serious(page) == []

    await page.get_by_role("button", name="Sign out").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{url}login/")
    assert [cookie for cookie in await page.context.cookies() if cookie.get("value")] == []
    await page.goto(f"{url}queues/")
    await page.get_by_label("Name").fill(_NAME)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{url}queues/")
    await page.goto(f"{url}grading/")
    assert await page.evaluate(_ASKED_WHILE_LEAVING) == "the server does not answer"
    await page.wait_for_url(f"{url}login/")
    assert watched.complaints == []
