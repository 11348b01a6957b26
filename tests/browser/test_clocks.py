"""A browser whose clock is wrong and stands still: the server tells what is left until deadlines, and to take back."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, inbox
from tests.browser.axe import serious
from tests.browser.test_deciding import _put
from tests.browser.test_grading import _web
from tests.browser.watched import Watched

pytestmark = pytest.mark.timeout(300)


async def test_a_wrong_clock_changes_no_countdown(browser: Browser, embedded_url: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    due, closes, past = (
        (now + timedelta(**by)).isoformat() for by in ({"days": 3}, {"days": 9, "hours": 1}, {"days": -1})
    )
    config = tmp_path / "grading.toml"
    config.write_text(
        f'undo = 3600\n[modules.data_mining]\nshort = "dm"\ndue = {due}\ncloses = {closes}\n'
        f'[modules.later]\nshort = "later"\nopens = {due}\n[modules.late]\nshort = "late"\ndue = {past}\n'
        f'[modules.over]\nshort = "over"\ncloses = {past}\n'
        f'[modules.grace]\nshort = "grace"\ncloses = {past}\ngrace = 172800\n[modules.always]\nshort = "always"\n'
    )
    url = f"sqlite:///{tmp_path / 'course.sqlite3'}"
    with Database(url) as database:
        _put(database, 1)
        found = database.read_now(partial(inbox.item, identity="id0001"))
        decided = partial(inbox.settle, found=found, action="correct", decision=Decision("ann", 5.0, 10.0))
        database.write_now(partial(decided, course=Course(undo=3600)))
        async with _web(embedded_url, url, {"RABBITRY_GRADING": str(config)}) as web:
            page = await browser.new_page(viewport={"width": 320, "height": 800})
            await page.clock.set_fixed_time(datetime(2099, 1, 1, tzinfo=UTC))
            watched = Watched(page)
            await page.goto(f"{web}#/submit")
            left = page.get_by_role("timer")
            for module, told in {
                "data_mining": r"Due in 2 d 23 h \(.+\). Closes in 9 d (1 h|\d+ min) \(.+\).",
                "later": r"Opens in 2 d 23 h \(.+\).",
                "late": r"Was due .+: what comes now is late.",
                "over": r"Closed since .+.",
                "grace": r"Closed .+: what is on its way is still taken.",
            }.items():
                await page.get_by_label("Module").select_option(module)
                await expect(left).to_have_text(re.compile(f"^{told}$"))
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320
            assert await serious(page) == []
            await page.get_by_label("Module").select_option("always")
            await expect(left).to_have_count(0)
            await page.goto(f"{web}#/inbox/demonstrator")
            unsent = page.get_by_role("list", name="Decisions that are not sent yet").locator("li b")
            first = await unsent.inner_text()
            assert re.fullmatch(r"3[0-9]{3} s", first)
            await expect(unsent).not_to_have_text(first)  # it goes on, although the browser's clock stands still
            assert watched.complaints == []
