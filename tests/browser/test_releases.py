"""The release of results in a browser: a coordinator holds and releases them, and a student sees them then."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, Page, expect

from rabbitry.apps import AppRole
from rabbitry.apps.passwords import hash_password
from rabbitry.apps.users_file import Account, changed_users
from tests.apps.grading._running import course_database
from tests.apps.grading.test_releasing import judged
from tests.browser.axe import fits_a_phone
from tests.browser.watched import SERVER_AWAY, Watched
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)
_PASSWORD = "correct horse battery"


def _recorded(database_url: str) -> str:
    with course_database(database_url) as database:
        return judged(database, "7")


async def _signed_in(browser: Browser, url: str, name: str) -> Watched:
    """Sign in on a page of the person's own, on a phone."""
    page = await browser.new_page(viewport={"width": 320, "height": 800})
    watched = Watched(page, expected=[*SERVER_AWAY, "status of 400"])
    await page.goto(f"{url}login/?to=grading/")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(_PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/grading/")
    return watched


@ON_EMBEDDED
async def test_a_student_sees_results_once_a_coordinator_has_released_them(
    browser: Browser, broker_url: str, tmp_path: Path
) -> None:
    database_url, users, port = f"sqlite:///{tmp_path / 'course.sqlite3'}", tmp_path / "users.json", free_port()
    identity = await asyncio.to_thread(_recorded, database_url)
    hashed = hash_password(_PASSWORD, log_cost=1)
    with changed_users(users) as accounts:
        for name, role in (("cleo", AppRole("coordinator")), ("sam", AppRole("student", ("7",)))):
            account = {"role": "member", "password": hashed, "apps": {"grading": role}}
            accounts[name] = msgspec.convert(account, Account)
    more = {"RABBITRY_BROKER": broker_url, "RABBITRY_DATABASE": database_url}
    with commands.service("web", "--port", str(port), "--users", str(users), more=more) as service:
        service.wait_for("broker connected")
        url = f"http://127.0.0.1:{port}/"
        cleo, sam = [await _signed_in(browser, url, name) for name in ("cleo", "sam")]
        place = f"{url}grading/#/submission/{identity}"
        await sam.page.goto(place)
        shown = sam.page.locator(".submission")
        await expect(shown).to_contain_text("well done")
        await _set(cleo.page, url, "Hold the results", "The results are held until")
        await fits_a_phone(cleo.page)
        await expect(shown).to_contain_text("The results are held until")
        await expect(shown).to_contain_text("mark –")
        await expect(shown).not_to_contain_text("well done")
        await fits_a_phone(sam.page)
        await cleo.page.goto(place)
        await expect(cleo.page.locator(".submission")).to_contain_text("well done")
        await _set(cleo.page, url, "Release them now", "The results were released")
        await expect(shown).to_contain_text("The results were released")
        await expect(shown).to_contain_text("well done")
        assert (cleo.complaints, sam.complaints) == ([], [])


async def _set(page: Page, url: str, button: str, wanted: str) -> None:
    """Press a button of the panel, with a date if it needs one, and wait for what the panel tells."""
    await page.goto(f"{url}grading/#/stats")
    panel = page.locator(".releases")
    if button.startswith("Hold"):
        await expect(panel.get_by_role("button", name=button)).to_be_disabled()
        await panel.get_by_label("Hold until").fill("2126-12-01T09:00")
    await panel.get_by_label("Reason").fill("after the exam")
    await panel.get_by_role("button", name=button).click()
    await expect(panel.get_by_role("status")).to_contain_text(wanted)
    await expect(panel.locator("li").first).to_contain_text(re.compile("set by cleo, .*: after the exam"))
