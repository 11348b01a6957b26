"""A course's people on its page, from their invitations to a confirmed mark."""

import json
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.records import Database
from tests.apps.grading._running import PEOPLE, role_set
from tests.browser.axe import serious
from tests.browser.watched import Watched
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.oidc_provider import RunningProvider
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(600)
_PASSWORD = "correct horse battery"
_COURSE: Final = """
undo = 1
[modules.cloud_computing]
short = "cc"
[[modules.cloud_computing.rubric]]
name = "Style"
points = 2.5
comments = ["Names say what things are."]
[[modules.cloud_computing.rubric]]
name = "Analysis"
points = 7.5
"""


def _invite(users: Path, url: str, *arguments: str) -> str:
    done = commands.run("grading", "invite", "--users", str(users), "--url", url, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    invited: dict[str, str] = json.loads(done.stdout)
    return invited.get("link") or invited.get("password", "")


async def _accept(browser: Browser, link: str, width: int = 1200) -> Watched:
    """Set the password behind a link, in a browser of the person's own; the page of the course follows.

    Whoever has no link signs in through the provider, by keyboard.
    """
    page = await browser.new_page(viewport={"width": width, "height": 800})
    watched = Watched(page, expected=["403 (Forbidden)"])
    if link.endswith("/login/?to=grading/"):
        await page.goto(link)
        # Somebody used this browser before, and did not sign out.
        await page.evaluate("localStorage.setItem('rabbitry.typed / anna grading.draft.assistant.x', '{}')")
        await page.get_by_role("link", name="Sign in with the university").press("Enter")
        await page.wait_for_url("**/grading/")
        await expect(page.locator(".pipeline")).to_be_visible()
        assert "rabbitry.typed" not in await page.evaluate("JSON.stringify(localStorage)")
        return watched
    if " " in link:
        await _give_first(page, link)
    else:
        await page.goto(link)
    await expect(page.get_by_role("button", name="Set the password")).to_be_visible()
    await page.get_by_label("Password").fill(_PASSWORD)
    await page.get_by_label("Once more").fill(_PASSWORD)
    await page.get_by_role("button", name="Set the password").click()
    await page.wait_for_url("**/grading/")
    return watched


async def _give_first(page: Page, words: str) -> None:
    """Sign in with a first password: WHERE NAME PASSWORD."""
    url, name, password = words.split()
    await page.goto(url)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("This is your first password")


async def _tabs(page: Page) -> list[str]:
    await expect(page.locator(".pipeline")).to_be_visible()
    return [text.split("\n")[0].strip() for text in await page.locator(".tabs a").all_inner_texts()]


async def _decide(browser: Browser, link: str, role: str, action: str) -> list[str]:
    """Accept an invitation, and decide on what waits. Return the complaints of the page."""
    watched = await _accept(browser, link)
    page = watched.page
    inboxes = {"Demonstrator", "Assistant", "Coordinator"} & {text.split()[0] for text in await _tabs(page)}
    assert inboxes == {role.capitalize()}
    panel = await watched.go(f"inbox/{role}")
    await expect(panel.get_by_role("button", name="Open")).to_be_visible()
    for key in ("j", "Enter"):
        await page.keyboard.press(key)
    await expect(panel.locator(".solution")).to_contain_text("print")
    await expect(panel.get_by_label("Your name")).to_have_count(0)
    if role == "demonstrator":
        await _judge(panel)
    else:
        await expect(panel.locator("[data-line='2'] p.said")).to_have_text("demonstrator dora: Why?")
    await panel.get_by_role("button", name=action, exact=True).press("Enter")
    await expect(page.locator(".notice.good")).to_be_visible()
    await page.get_by_role("button", name="Sign out").press("Enter")
    await page.wait_for_url("**/login/" if role != "coordinator" else "**/leave?*")
    if role != "coordinator":
        assert "rabbitry.typed" not in await page.evaluate("JSON.stringify(localStorage)")
    return watched.complaints


async def _judge(form: Locator) -> None:
    """Comment on a line, and give points and a comment by the rubric, without the mouse."""
    keyboard = form.page.keyboard
    await form.get_by_role("button", name="Comment on line 1", exact=True).focus()
    for key in ("j", "Enter"):
        await keyboard.press(key)
    await expect(form.get_by_label("Your comment on line 2")).to_be_focused()
    await keyboard.type("Why?")
    await keyboard.press("Escape")
    for name, points in (("Style", "1,5"), ("Analysis", "6.5")):
        await form.get_by_role("group", name=name).get_by_label("Points").focus()
        await keyboard.type(points)
    await form.get_by_label("Names say what things are.").press("Space")
    assert "Why?" in await form.page.evaluate("JSON.stringify(localStorage)")


@ON_EMBEDDED
async def test_people_are_invited_and_bring_a_submission_to_its_confirmed_mark(
    browser: Browser, broker_url: str, tmp_path: Path, provider: RunningProvider
) -> None:
    users, file, database_url = tmp_path / "users.json", tmp_path / "x.py", f"sqlite:///{tmp_path / 'course.sqlite3'}"
    file.write_text("print('hello')\nprint(2)\n")
    (tmp_path / "grading.toml").write_text(_COURSE)
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    provider.redirect_uri, provider.person = f"{url}oidc-callback", {"sub": "5", "preferred_username": "cora"}
    links = {
        "student": _invite(users, url, "7"),
        "other": _invite(users, url, "77"),
        "demonstrator": _invite(users, url, "dora", "--role", "demonstrator", "--module", "cloud_computing"),
        # A first password is typed on the page; the others have links.
        "assistant": f"{url}login/ anna {_invite(users, url, 'anna', '--role', 'assistant', '--sign-in', 'password')}",
        "coordinator": f"{url}login/?to=grading/",
    }
    _invite(users, url, "cora", "--role", "coordinator", "--sign-in", "oidc")
    more = {
        "RABBITRY_BROKER": broker_url,
        "RABBITRY_DATABASE": database_url,
        "RABBITRY_WEB_USERS": str(users),
        "RABBITRY_GRADING": str(tmp_path / "grading.toml"),
        "RABBITRY_OIDC_TITLE": "the university",
        **provider.settings(),
    }
    with Database(database_url) as database, commands.service("web", "--port", str(port), more=more) as web:
        web.wait_for("broker connected")
        async with role_set(broker_url, database, PEOPLE, files=Files(default_place(database_url))):
            student = await _accept(browser, links["student"], width=320)
            await _hands_in(student, file)
            for role, action in (("demonstrator", "Correct"), ("assistant", "Validate"), ("coordinator", "Confirm")):
                assert await _decide(browser, links[role], role, action) == []
            await _sees_the_confirmed_mark(student.page)
            other = await _accept(browser, links["other"])
            await _sees_nothing_of(other.page, student.page.url)
            assert (student.complaints, other.complaints) == ([], [])
            await _refused_again(browser, links["student"])


async def _hands_in(student: Watched, file: Path) -> None:
    """Submit a file on a phone, and look at the submission."""
    page = student.page
    assert await _tabs(page) == ["Submissions", "Submit"]
    panel = await student.go("submit")
    await panel.get_by_label("Module").select_option("cloud_computing")
    await panel.get_by_label("File").set_input_files(file)
    await panel.get_by_role("button", name="Submit").click()
    await page.locator(".notice.good a").click()
    await expect(page.locator(".history > li")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await serious(page) == []


async def _sees_the_confirmed_mark(page: Page) -> None:
    """Look at one's own submission, which is open, once it is confirmed."""
    await expect(page.locator(".history > li")).to_have_count(4)
    await expect(page.locator(".history > li").nth(3)).to_contain_text("confirmed by coordinator cora")
    await expect(page.locator(".submission")).to_contain_text("mark 8 / 10")
    await expect(page.locator(".history")).to_contain_text("Style: 1.5 of 2.5")
    await page.get_by_role("button", name="Show it, with the comments (1)").click()
    await expect(page.locator("[data-line='2'] p.said")).to_have_text("demonstrator dora: Why?")


async def _sees_nothing_of(page: Page, url: str) -> None:
    """Look for somebody else's submission, which is at a URL."""
    await expect(page.get_by_text("No submissions are recorded yet.")).to_be_visible()
    await page.goto(url)
    await expect(page.locator(".submission .nothing")).to_contain_text("is recorded yet")


async def _refused_again(browser: Browser, link: str) -> None:
    """Use a link for a second time."""
    again = await browser.new_page()
    await again.goto(link)
    await again.get_by_label("Password").fill(_PASSWORD)
    await again.get_by_label("Once more").fill(_PASSWORD)
    await again.get_by_role("button", name="Set the password").click()
    await expect(again.get_by_role("alert")).to_contain_text("This link was used already")
