"""Requests for another look in a browser: asked and answered by keyboard, on a phone, with a hostile reason."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.records import Database
from tests.apps.grading._running import role_set
from tests.apps.grading.test_regrading import _confirmed
from tests.browser.axe import fits_a_phone
from tests.browser.test_grading import EVIL, _opened, _web
from tests.support.brokers import ON_EMBEDDED

pytestmark = pytest.mark.timeout(300)
_REASON = f"{EVIL} {'x' * 400}"


@ON_EMBEDDED
async def test_another_look_is_asked_for_and_refused_with_a_remark(
    browser: Browser, broker_url: str, tmp_path: Path
) -> None:
    database_url = f"sqlite:///{tmp_path / 'course.sqlite3'}"
    with Database(database_url) as database:
        files = Files(default_place(database_url))
        identity = await asyncio.to_thread(_confirmed, database, files, 7, b"print(1)\n")
        async with _web(broker_url, database_url) as web, role_set(broker_url, database, files=files):
            watched = await _opened(browser, f"{web}#/requests")
            page = watched.page
            await page.set_viewport_size({"width": 320, "height": 800})
            await expect(page.get_by_text("No request waits for an answer.")).to_be_visible()
            await _ask(page, f"{web}#/submission/{identity}")
            await _find(page)
            await _refuse(page)
            assert watched.complaints == []


async def _ask(page: Page, address: str) -> None:
    await page.goto(address)
    await expect(page.locator(".submission")).to_contain_text("attempt 1 · confirmed", use_inner_text=True)
    await page.get_by_text("Ask for another look").press("Enter")
    await fits_a_phone(page)
    await page.get_by_label("What should be looked at, and why").fill(_REASON)
    await page.reload()
    reason = page.get_by_label("What should be looked at, and why")
    await expect(reason).to_have_value(_REASON)  # and the form is open
    await page.get_by_role("button", name="Ask", exact=True).press("Enter")
    await expect(page.locator("form.answer")).to_contain_text(EVIL)
    await expect(reason).to_have_count(0)
    await fits_a_phone(page)


async def _find(page: Page) -> None:
    await page.locator(".places a[href='#/requests']").press("Enter")
    rows = page.locator(".panel tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(EVIL)
    await fits_a_phone(page)
    found = page.get_by_role("searchbox")
    await found.fill("nobody")
    await expect(page.get_by_text("No matches.")).to_be_visible()
    await found.fill("")
    await rows.get_by_role("link", name="7").press("Enter")


async def _refuse(page: Page) -> None:
    form = page.locator("form.answer")
    await form.get_by_label("Your name").fill("ann")
    refuse = form.get_by_role("button", name="Refuse")
    await refuse.press("Enter")
    await expect(form.get_by_role("alert")).to_contain_text("Your input is kept.")
    await form.get_by_label("Remark (needed to refuse)").fill(f"No: {EVIL}")
    await refuse.press("Enter")
    await expect(form).to_have_count(0)
    history = page.locator(".history")
    await expect(history).to_contain_text("refused by demonstrator ann")
    await expect(history).to_contain_text(f"No: {EVIL}")
    await expect(page.get_by_text("Ask for another look")).to_be_visible()
