"""What people type on the page of a course is never lost, decides nothing by accident, and once only."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect
from sqlalchemy import Connection

from rabbitry.apps.grading.message import Assignment, submission
from rabbitry.apps.grading.records import Database, course, inbox
from rabbitry.apps.grading.roles import ROLES, RoleName
from tests.browser.test_grading import _opened, _web
from tests.browser.watched import Watched
from tests.support.waiting import eventually_awaited

pytestmark = pytest.mark.timeout(300)
_WITHIN = 90_000
_KEPT = "JSON.stringify(localStorage)"
"""What the browser keeps."""


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'course.sqlite3'}"


def _put(database: Database, number: int, role: RoleName = "demonstrator", **more: Any) -> str:
    """Put an assignment into a role's inbox, and into the records; gives its id."""
    return database.write_now(partial(_write, number=number, role=role, more=more))


def _write(connection: Connection, number: int, role: RoleName, more: Mapping[str, Any]) -> str:
    identity = f"id{number:04}"
    assignment = Assignment({**submission(1000 + number, "data_mining", b"x = 1\n", "hw.py", identity), **more})
    assert inbox.put(connection, role=ROLES[role], assignment=assignment, exchange="x", message="m")
    course.record(connection, assignment=assignment)
    return identity


def _decided(database: Database) -> list[tuple[str, float | None]]:
    """Return who decided, and the marks."""
    found = database.read_now(lambda connection: connection.exec_driver_sql("SELECT who, mark FROM decisions").all())
    return [(row[0], row[1]) for row in found]


@asynccontextmanager
async def _page(browser: Browser, broker: str, database_url: str) -> AsyncIterator[tuple[Watched, str]]:
    async with _web(broker, database_url) as web:
        watched = await _opened(browser, web)
        yield watched, web
        assert watched.complaints == []
        await watched.page.close()


async def _open(page: Page, role: str = "demonstrator", identity: str = "") -> Locator:
    await page.locator(f".places a[href='#/inbox/{role}']").click()
    row = page.locator(f"tbody tr[data-id='{identity}']" if identity else "tbody tr:has(button)").first
    await row.get_by_role("button", name="Open").click(timeout=_WITHIN)
    form = page.locator("form.decide")
    await expect(form).to_be_visible()
    return form


async def test_enter_decides_nothing_and_a_missing_mark_is_asked_about(
    browser: Browser, embedded_url: str, database_url: str
) -> None:
    with Database(database_url) as database:
        _put(database, 1)
        async with _page(browser, embedded_url, database_url) as (watched, _):
            await watched.page.locator(".places a[href='#/inbox/demonstrator']").click()
            await expect(watched.page.get_by_role("button", name="Open", exact=True)).to_be_visible()
            for key in ("j", "Enter"):
                await watched.page.keyboard.press(key)
            await expect(watched.page.locator("form.decide")).to_be_visible()
            await watched.page.keyboard.press("Escape")
            await expect(watched.page.locator("form.decide")).to_have_count(0)
            form = await _open(watched.page)
            for label in ("Mark", "out of", "Your name"):
                await form.get_by_label(label, exact=True).press("Enter")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await expect(form.locator(".question")).to_contain_text("There is no mark")
            assert _decided(database) == []
            for wrong in ("eight", "-1", "1e3", "8,5,5"):
                await form.get_by_label("Mark", exact=True).fill(wrong)
                await form.get_by_role("button", name="Correct", exact=True).click()
                await expect(form.locator(".notice.bad")).to_contain_text(f"“{wrong}” is not a number")
            await form.get_by_label("Mark", exact=True).fill("")
            await form.get_by_label("Your name").fill("Ann")
            await form.get_by_role("button", name="Comment on line 1", exact=True).click()
            await form.get_by_label("Your comment on line 1").fill("Why?")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await form.get_by_role("button", name="Correct without a mark").click()
            await expect(watched.page.locator(".notice.good")).to_contain_text("corrected")
            assert _decided(database) == [("Ann", None)]
            # Until it is sent, which no role does here, the decision can be taken back.
            unsent = watched.page.get_by_role("list", name="Decisions that are not sent yet").locator("li")
            await expect(unsent).to_contain_text("Student 1001: corrected, not sent yet", timeout=_WITHIN)
            await unsent.get_by_role("button", name="Take back").click()
            await expect(watched.page.locator(".notice.good")).to_contain_text("taken back, and waits here again")
            await expect(watched.page.get_by_role("button", name="Open", exact=True)).to_be_visible()
            await expect(unsent).to_have_count(0)
            assert _decided(database) == []
            form = await _open(watched.page)
            await expect(form.get_by_label("Your comment on line 1")).to_have_value("Why?")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await form.get_by_role("button", name="Correct without a mark").click()
            await expect(unsent).to_have_count(1)
            assert "Why?" in await watched.page.evaluate(_KEPT)
            database.write_now(lambda connection: connection.exec_driver_sql("DELETE FROM outbox"))  # it is sent
            gone = partial(watched.page.evaluate, f"!({_KEPT}).includes('Why?')")
            await eventually_awaited(gone, "the draft goes")


async def test_typed_text_survives_reloads_refusals_and_a_lost_server(
    browser: Browser, embedded_url: str, database_url: str
) -> None:
    with Database(database_url) as database:
        _put(database, 1)
        async with _page(browser, embedded_url, database_url) as (watched, _):
            page = watched.page
            form = await _open(page)
            await form.get_by_label("Mark", exact=True).fill("11,5")
            await form.get_by_label("out of").fill("10")
            await form.get_by_label("Feedback").fill("long\nand careful")
            await form.get_by_label("Your name").fill("Ann")
            await page.reload()
            form = await _open(page)
            await expect(form.get_by_label("Feedback")).to_have_value("long\nand careful")
            await expect(form.get_by_label("Your name")).to_have_value("Ann")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await expect(form.locator(".notice.bad")).to_contain_text("is not possible")
            await expect(form.get_by_label("Mark", exact=True)).to_have_value("11,5")
            await page.route("**/api/**", lambda route: route.abort("connectionrefused"))
            await form.get_by_label("Mark", exact=True).fill("8,5")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await expect(form.locator(".notice.bad")).to_contain_text("does not answer. Your input is kept")
            await expect(form.get_by_label("Feedback")).to_have_value("long\nand careful")
            await page.unroute("**/api/**")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await expect(page.locator(".notice.good")).to_contain_text("corrected")
            assert _decided(database) == [("Ann", 8.5)]


async def test_the_second_of_two_decisions_is_refused_and_its_text_kept(
    browser: Browser, embedded_url: str, database_url: str
) -> None:
    with Database(database_url) as database:
        identity = _put(database, 1)
        async with _page(browser, embedded_url, database_url) as (watched, web):
            other = await _opened(browser, web)
            forms = [await _open(each.page) for each in (watched, other)]
            for form, who, mark in zip(forms, ("Ann", "Bob"), ("3", "9"), strict=True):
                await form.get_by_label("Your name").fill(who)
                await form.get_by_label("Mark", exact=True).fill(mark)
                await form.get_by_label("Feedback").fill(f"of {who}")
            await forms[0].get_by_role("button", name="Correct", exact=True).click()
            await expect(watched.page.locator(".notice.good")).to_contain_text("corrected")
            await expect(forms[1].locator(".changed")).to_contain_text(
                "Ann decided as the demonstrator", timeout=_WITHIN
            )
            await forms[1].get_by_role("button", name="Correct", exact=True).click()
            await expect(forms[1].locator(".notice.bad")).to_contain_text("Ann decided as the demonstrator")
            await expect(forms[1].get_by_label("Feedback")).to_have_value("of Bob")
            assert _decided(database) == [("Ann", 3.0)]
            # It is sent back: what Bob typed is there again, and said to be of another round.
            back = {"role": "assistant", "status": "submitted", "remark": "again", "who": "Cy"}
            _put(
                database,
                1,
                History=[{"role": "student"}, {"role": "demonstrator"}, back],
                Remarks=["again"],
                Mark=3,
                OutOf=10,
                Feedback="of Ann",
            )
            await expect(forms[1].locator(".changed")).to_contain_text("sent again", timeout=_WITHIN)
            await forms[1].get_by_role("button", name="Correct", exact=True).click()
            await expect(forms[1].locator(".notice.bad")).to_contain_text("was sent again after you opened it")
            form = await _open(other.page, identity=identity)
            await expect(form).to_contain_text("You typed the text below before this assignment was sent again")
            await expect(form.get_by_label("Feedback")).to_have_value("of Bob")
            form = await _open(watched.page, identity=identity)  # Ann typed nothing since
            await expect(form.get_by_label("Mark", exact=True)).to_have_value("3")
            await expect(form.get_by_label("Feedback")).to_have_value("of Ann")
            assert other.complaints == []
            await other.page.close()


async def test_a_late_answer_closes_no_other_assignment(browser: Browser, embedded_url: str, database_url: str) -> None:
    with Database(database_url) as database:
        first, second = _put(database, 1), _put(database, 2)
        async with _page(browser, embedded_url, database_url) as (watched, _):
            page, sent, go_on = watched.page, asyncio.Event(), asyncio.Event()

            async def hold(route: Route) -> None:
                if route.request.method == "POST":
                    sent.set()
                    await go_on.wait()
                await route.continue_()

            await page.route("**/api/inbox/**", hold)
            form = await _open(page, identity=first)
            await form.get_by_label("Mark", exact=True).fill("3")
            await form.get_by_role("button", name="Correct", exact=True).click()
            await sent.wait()
            form = await _open(page, identity=second)
            await expect(form).to_contain_text("Student 1002")
            await form.get_by_label("Feedback").fill("of the second")
            async with page.expect_response(lambda response: response.request.method == "POST"):
                go_on.set()
            await expect(page.locator(f"tbody tr[data-id='{first}'] button")).to_have_count(0)
            await expect(form.get_by_label("Feedback")).to_have_value("of the second")
            assert [mark for _, mark in _decided(database)] == [3.0]


async def test_a_file_is_downloaded_as_submitted(
    browser: Browser, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 5
    with Database(database_url) as database:
        said = {"role": "demonstrator", "who": "ben", "comments": [{"line": 3, "text": "of another program"}]}
        made = Assignment({
            **submission("007", "data_mining", data, 'ré"p\u202eort.zip', "id0001"),
            "History": [{"role": "student"}, said, {"role": "assistant", "status": "submitted"}],
        })  # fmt: skip
        put = partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="x", message="m")
        assert database.write_now(put)
        database.write_now(partial(course.record, assignment=made))
        async with _page(browser, embedded_url, database_url) as (watched, web):
            page = watched.page
            form = await _open(page)
            await expect(form).to_contain_text(
                "The archive is not unpacked: the archive can't be read: File is not a zip file"
            )
            await expect(form.locator(".elsewhere p")).to_have_text("demonstrator ben, line 3: of another program")
            await expect(form.locator(".download .hidden-letter")).to_have_text("U+202E")
            async with page.expect_download() as downloading:
                await form.locator("a.download").click()
            download = await downloading.value
            await download.save_as(tmp_path / "saved")
            assert (tmp_path / "saved").read_bytes() == data
            answer = await page.request.get(f"{web}api/files/id0001")
            assert answer.headers["content-disposition"].startswith("attachment; filename=")
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("sandbox")
            assert (await page.request.get(f"{web}api/files/nothing")).status == 404
            await page.goto(f"{web}#/submission/id0001")
            await expect(page.locator(".submission a.download")).to_be_visible()


async def test_lists_go_beyond_their_first_page_and_are_filtered(
    browser: Browser, embedded_url: str, database_url: str
) -> None:
    with Database(database_url) as database:
        module = {7: "cloud_computing"}
        database.write_now(
            lambda connection: [
                _write(connection, number, "demonstrator", {"Module": module.get(number, "data_mining")})
                for number in range(250)
            ]
        )
        async with _page(browser, embedded_url, database_url) as (watched, _):
            page = watched.page
            for place in ("", "inbox/demonstrator"):
                await watched.go(place)
                rows, pager = page.locator("tbody tr"), page.locator(".pager")
                await expect(pager).to_contain_text("1–100 of 250")
                await pager.get_by_role("button", name="Next").click()
                await expect(pager).to_contain_text("101–200 of 250")
                await pager.get_by_role("button", name="Next").click()
                await expect(rows).to_have_count(50)
                await expect(pager.get_by_role("button", name="Next")).to_be_disabled()
                await page.get_by_label("Find").fill("id000")
                await expect(rows).to_have_count(10)
                await page.get_by_label("Module").select_option("cloud_computing")
                await expect(rows).to_have_count(1)
                await expect(rows).to_contain_text("1007")
                await page.get_by_label("Find").fill("nobody")
                await expect(page.locator(".nothing")).to_contain_text("No matches")


async def test_hidden_characters_are_shown_and_no_address_breaks_the_page(
    browser: Browser, embedded_url: str, database_url: str
) -> None:
    evil = "if admin\u202e \u2066# begin\u2069 \u2066: \u200bx\u001b\u0085\t"
    with Database(database_url) as database:
        _put(database, 1, Solution=evil, SolutionName="a\u202eyp.b", StudentID="7\u2067")
        async with _page(browser, embedded_url, database_url) as (watched, web):
            page = watched.page
            form = await _open(page)
            shown = await form.locator(".solution .hidden-letter").all_inner_texts()
            assert shown == ["U+202E", "U+2066", "U+2069", "U+2066", "U+200B", "U+001B", "U+0085"]
            assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b]", await page.locator("main").inner_text())
            for bad in ("submission/%E0%A4%A", "submission/%", "inbox/%FF", "%E0%A4%A", "submission/"):
                await page.goto(f"{web}#/{bad}")
                await expect(page.locator(".panel")).to_be_visible()
                await watched.go("submit")
                await expect(page.get_by_label("Student number")).to_be_visible()
            await page.get_by_label("Student number").fill("s1234567")
            await watched.go("")
            await watched.go("submit")
            await expect(page.get_by_label("Student number")).to_have_value("s1234567")


async def test_the_page_creates_no_database(
    browser: Browser, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    async with _page(browser, embedded_url, database_url) as (watched, _):
        await expect(watched.page.locator(".nothing")).to_contain_text("No submissions are recorded yet")
        await watched.go("inbox/assistant")
        await expect(watched.page.locator(".nothing")).to_contain_text("No submission waits here")
        assert not (tmp_path / "course.sqlite3").exists()
        with Database(database_url) as database:
            _put(database, 1, "assistant")
            await expect(watched.page.locator("tbody tr")).to_have_count(1, timeout=_WITHIN)
