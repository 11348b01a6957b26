"""The page of a course in a real browser: handing in, deciding in every role, and nothing that came in is markup."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import Assignment, Decision, submission
from rabbitry.apps.grading.records import Database, course, inbox, outbox
from rabbitry.apps.grading.roles import ROLES
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Submitter
from tests.apps.grading._running import PEOPLE, role_set
from tests.apps.grading.similar.programs import DISGUISED, ORIGINAL
from tests.apps.grading.test_contents import zipped
from tests.apps.grading.test_notebooks import code, markdown, notebook, shows
from tests.apps.grading.test_regrading import _confirmed
from tests.browser.watched import SERVER_AWAY, Watched
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)
_WITHIN = 90_000
_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A PNG of one pixel."""
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'course.sqlite3'}"


@asynccontextmanager
async def _web(broker: str, database_url: str, course: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Serve a course's page; gives its URL."""
    port = free_port()
    more = {"RABBITRY_BROKER": broker, "RABBITRY_DATABASE": database_url, **(course or {})}
    with commands.service("web", "--port", str(port), more=more) as service:
        service.wait_for("broker connected")
        yield f"http://127.0.0.1:{port}/grading/"


async def _opened(browser: Browser, url: str) -> Watched:
    page = await browser.new_page(viewport={"width": 1200, "height": 900})
    watched = Watched(page, (*SERVER_AWAY, "status of 400", "status of 404"))  # the page says why in its own words
    watched.page.set_default_timeout(_WITHIN)
    await watched.page.goto(url)
    return watched


async def _hand_in(watched: Watched, student: str, file: Path) -> None:
    panel = await watched.go("submit")
    await panel.get_by_label("Student number").fill(student)
    await panel.get_by_label("Module").select_option("cloud_computing")
    await panel.get_by_label("File").set_input_files(file)
    await panel.get_by_role("button", name="Submit").click()


async def _open_item(watched: Watched, role: str) -> Locator:
    panel = await watched.go(f"inbox/{role}")
    await panel.locator("tbody tr:has(button)").first.get_by_role("button", name="Open").click(timeout=_WITHIN)
    form = panel.locator("form.decide")
    await expect(form).to_be_visible()
    return form


async def _comment(form: Locator) -> None:
    """Comment on the first line by keyboard, and on the third by pointer; a comment that is left empty is none."""
    page = form.page
    await form.get_by_role("button", name="Comment on line 1", exact=True).focus()
    for key in ("j", "ArrowDown", "k", "Enter"):
        await page.keyboard.press(key)
    await expect(form.get_by_label("Your comment on line 2")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(form.get_by_label("Your comment on line 2")).to_have_count(0)
    for key in ("Home", "Enter"):
        await page.keyboard.press(key)
    await page.keyboard.type(f"Why {EVIL}?")
    await form.get_by_role("button", name="Comment on line 3", exact=True).click()
    await page.keyboard.type("By pointer")
    for key in ("Escape", "p"):
        await page.keyboard.press(key)
    await expect(form.get_by_role("button", name="Comment on line 1", exact=True)).to_be_focused()


@ON_EMBEDDED
async def test_people_decide_in_every_role_on_the_page(
    browser: Browser, broker_url: str, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "solution.py"
    file.write_text(f"print('{EVIL}')\n\nprint(2)\n")
    files = Files(default_place(database_url))
    with Database(database_url) as database:
        async with _web(broker_url, database_url) as web, role_set(broker_url, database, PEOPLE, files=files):
            watched = await _opened(browser, web)
            page = watched.page
            await _hand_in(watched, "23200858", file)
            said = page.locator(".notice.good a")
            await expect(said).to_be_visible()
            identity = await said.inner_text()

            form = await _open_item(watched, "demonstrator")
            await expect(form.locator(".solution")).to_contain_text(EVIL)
            await form.get_by_label("Mark", exact=True).fill("11")
            await form.get_by_label("out of").fill("10")
            await form.get_by_role("button", name="Correct").click()
            await expect(form.locator(".notice.bad")).to_contain_text("is not possible")
            await form.get_by_label("Mark", exact=True).fill("3")
            await form.get_by_label("Feedback").fill(f"poor {EVIL}")
            await _comment(form)
            await form.get_by_label("Your name").fill("Ann")
            await form.get_by_role("button", name="Correct").click()
            await expect(page.locator(".notice.good")).to_contain_text("corrected")

            form = await _open_item(watched, "assistant")
            await expect(form).to_contain_text("3 / 10")
            await expect(form.locator("[data-line='1'] p.said")).to_have_text(f"demonstrator Ann: Why {EVIL}?")
            await expect(form.locator("[data-line='3'] p.said")).to_have_text("demonstrator Ann: By pointer")
            await form.get_by_role("button", name="Send back").click()
            await expect(form.locator(".notice.bad")).to_contain_text("write why")
            await form.get_by_label("Remark").fill(f"again {EVIL}")
            await form.get_by_role("button", name="Send back").click()
            await expect(page.locator(".notice.good")).to_contain_text("sent back")

            form = await _open_item(watched, "demonstrator")
            await expect(form).to_contain_text(f"Sent back: again {EVIL}")
            await form.get_by_label("Mark", exact=True).fill("8")
            await form.get_by_label("out of").fill("10")
            await form.get_by_role("button", name="Correct").click()
            form = await _open_item(watched, "assistant")
            await form.get_by_role("button", name="Validate").click()
            form = await _open_item(watched, "coordinator")
            await expect(form.locator("input[name=who]")).to_have_value("Ann")  # it is remembered
            await form.get_by_role("button", name="Confirm").click()

            await _is_shown_confirmed(watched, identity)
            assert watched.complaints == []
            await page.close()


async def _is_shown_confirmed(watched: Watched, identity: str) -> None:
    """Look at a submission, with its history and comments, once it is confirmed."""
    page = watched.page
    await watched.go("")
    await expect(page.locator(".pipeline [data-status=confirmed] b")).to_have_text("1", timeout=_WITHIN)
    await page.locator(f"tr[data-id='{identity}'] a").click()
    hops = page.locator(".history > li")
    await expect(hops).to_have_count(6, timeout=_WITHIN)
    await expect(hops.nth(5)).to_contain_text("confirmed by coordinator Ann")
    await expect(page.locator(".history")).to_contain_text(f"poor {EVIL}")
    await page.get_by_role("button", name="Show it, with the comments (2)").click()
    await expect(page.locator("[data-line='1'] code")).to_have_text(f"print('{EVIL}')")
    await expect(page.locator("[data-line='1'] p.said")).to_have_text(f"demonstrator Ann: Why {EVIL}?")
    assert await page.locator("script:not([src], head > [type=importmap])").count() == 0
    assert await page.locator("main img, main script").count() == 0


@ON_EMBEDDED
async def test_a_module_is_marked_again_on_the_page(browser: Browser, broker_url: str, database_url: str) -> None:
    files = Files(default_place(database_url))
    with Database(database_url) as database:
        await asyncio.to_thread(_confirmed, database, files, 7, b"x", mark=4.0)

        def mark(solution: bytes, name: str) -> Decision:
            return Decision("automatic", 8.0, 10.0)

        roles = role_set(broker_url, database, files=files, markers={"cloud_computing": mark})
        async with _web(broker_url, database_url) as web, roles:
            watched = await _opened(browser, f"{web}#/regrades")
            panel = watched.page.locator(".regrades")
            await expect(panel.get_by_role("button", name="Mark again…")).to_be_disabled()
            await panel.get_by_label("Reason").fill("test 3 was wrong")
            await panel.get_by_role("button", name="Show what would change").click()
            await expect(panel.get_by_role("alert")).to_contain_text("has no marking scheme on this machine")
            await panel.get_by_role("button", name="Mark again…").click()
            await panel.get_by_role("button", name="Yes, mark cloud_computing again").click()
            run = panel.locator("[data-run]")
            await expect(run).to_contain_text("1 of 1 submission submitted again", timeout=_WITHIN)
            await expect(run).to_contain_text("test 3 was wrong")
            await run.get_by_text("The result").click()
            await expect(run).to_contain_text("1 of 1 submission confirmed again; 1 mark changed", timeout=_WITHIN)
            await expect(run.locator("tbody tr")).to_contain_text("4 / 10")
            await expect(run.locator("tbody tr")).to_contain_text("8 / 10")
            assert watched.complaints == []


async def test_a_demonstrator_judges_by_the_rubric_and_typed_points_outlive_a_reload(
    browser: Browser, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "grading.toml").write_text(
        'undo = 0\n[modules.cloud_computing]\nshort = "cc"\n[[modules.cloud_computing.rubric]]\n'
        f'name = "{EVIL}"\npoints = 2.5\ncomments = ["Too long {EVIL}"]\n'
    )
    settings = {"RABBITRY_GRADING": str(tmp_path / "grading.toml")}
    files = Files(default_place(database_url))
    earlier, made, said = _notebooks()
    put = partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="e", message="m")
    with Database(database_url) as database:
        for one in (earlier, made):
            database.write_now(partial(course.record, assignment=one, kept=files.keep(one.solution())))
        database.write_now(put)
        async with _web(embedded_url, database_url, settings) as web:
            watched = await _opened(browser, f"{web}#/inbox/demonstrator")
            form = await _open_item(watched, "demonstrator")
            await expect(form.get_by_role("button", name="Changes since the attempt")).to_be_visible()
            await watched.page.keyboard.press("d")
            await expect(form.locator(".changes .removed")).to_contain_text("x\\ny")
            await expect(form.locator(".changes .added")).to_contain_text("x\\nz")
            await watched.page.keyboard.press("n")
            await expect(form.locator(".changes tr.changed")).to_be_focused()
            await watched.page.keyboard.press("d")
            await expect(form.locator(".changes")).to_have_count(0)
            await form.get_by_label("Points").fill("2,x")
            await form.get_by_role("button", name="Correct").click()
            await expect(form.locator(".notice.bad")).to_contain_text("“2,x” is not a number of points for")
            await form.get_by_label("Points").fill("2,25")
            await form.get_by_label(f"Too long {EVIL}").check()
            await expect(form.locator(".markdown [data-line='3'] p.said")).to_contain_text(f"ben: {EVIL} {said[0]}")
            elsewhere = form.get_by_role("region", name="Comments on lines that are not shown").locator("p")
            assert [text.partition(":")[0] for text in await elsewhere.all_inner_texts()] == [
                "demonstrator ben, line 1", "demonstrator ben, cell 1, line 9", "demonstrator ben, cell 7, line 1",
                "demonstrator ben, x.py, cell 2, line 3",
            ]  # fmt: skip
            await form.get_by_role("button", name="Comment on line 1 of cell 2").click()
            await form.get_by_label("Your comment on line 1 of cell 2").fill("A title")
            await form.get_by_role("button", name="Comment on line 2 of cell 1").click()
            await form.get_by_label("Your comment on line 2 of cell 1").fill("Why?")
            await watched.page.reload()
            form = await _open_item(watched, "demonstrator")
            await expect(form.get_by_label("Your comment on line 2 of cell 1")).to_have_value("Why?")
            await expect(form.get_by_label("Points")).to_have_value("2,25")
            await form.get_by_role("button", name="Correct").click()
            await expect(watched.page.locator(".notice.good")).to_contain_text("corrected")
            assert watched.complaints == []
            await watched.page.close()
        (sent,) = [
            json.loads(one.body)
            for one in database.write_now(partial(outbox.claim, roles=["demonstrator"]))
            if one.type == "Assignment"
        ]
    assert (sent["Mark"], sent["OutOf"]) == (2.25, 2.5)
    assert sent["History"][-1]["comments"] == [
        {"line": 1, "text": "A title", "cell": 2}, {"line": 2, "text": "Why?", "cell": 1}
    ]  # fmt: skip
    assert sent["Feedback"] == f"{EVIL}: 2.25 of 2.5\n    Too long {EVIL}"


def _notebooks() -> tuple[Assignment, Assignment, list[dict[str, int | str]]]:
    """Return two attempts, the second sent back with comments, and where these are."""
    earlier, made = (
        submission(7, "cloud_computing", notebook(code(source), markdown("# Why\n\n*so*")), "x.ipynb", identity)
        for identity, source in (("a0", "x\ny"), ("a1", "x\nz"))
    )
    # On the text of Markdown; and where the page has no line: of the raw text, beyond a cell, on a cell too far, and of
    # a file in an archive, which this is not.
    said: list[dict[str, int | str]] = [
        {"line": 3, "cell": 2}, {"line": 1}, {"line": 9, "cell": 1}, {"line": 1, "cell": 7},
        {"line": 3, "cell": 2, "file": "x.py"},
    ]  # fmt: skip
    before = {"role": "demonstrator", "who": "ben", "comments": [{**at, "text": f"{EVIL} {at}"} for at in said]}
    history = [{"role": "student"}, before, {"role": "assistant", "status": "submitted"}]
    return earlier, Assignment({**made, "History": history}), said


async def test_the_files_of_an_archive_are_read_compared_and_commented_on(
    browser: Browser, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "grading.toml").write_text('undo = 0\n[modules.cloud_computing]\nshort = "cc"\n')
    files = Files(default_place(database_url))
    hostile = f"{EVIL.replace('/', '')}.py"
    earlier, made = _archives(hostile)
    with Database(database_url) as database:
        for one in (earlier, made):
            database.write_now(partial(course.record, assignment=one, kept=files.keep(one.solution())))
        put = partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="e", message="m")
        database.write_now(put)
        async with _web(embedded_url, database_url, {"RABBITRY_GRADING": str(tmp_path / "grading.toml")}) as web:
            watched = await _opened(browser, f"{web}#/inbox/demonstrator")
            form = await _open_item(watched, "demonstrator")
            chosen = form.get_by_label("Files in the archive")
            await expect(chosen).to_have_value("src/a.py")  # the first with a comment
            await expect(form.locator("[data-line='1'] p.said")).to_have_text(f"assistant ben: inside {EVIL}")
            await expect(form.locator(".elsewhere p")).to_have_text("assistant ben, gone.py, line 2: elsewhere")
            await form.get_by_role("button", name="Comment on line 1", exact=True).click()
            await watched.page.keyboard.type("Why?")
            await chosen.select_option("b.ipynb")
            await expect(form.locator(".notebook img")).to_have_js_property("naturalWidth", 1, timeout=_WITHIN)
            await form.get_by_role("button", name="Comment on line 1 of cell 1").click()
            await watched.page.keyboard.type("A cell")
            await watched.page.keyboard.press("Escape")
            await expect(form.get_by_role("button", name="Changes since the attempt")).to_be_visible()
            await watched.page.keyboard.press("d")
            differing = form.get_by_label("Files that differ")
            await expect(differing).to_have_value(hostile)  # the shown one is equal
            await expect(form.locator(".changes .added")).to_contain_text(EVIL)
            await watched.page.reload()
            form = await _open_item(watched, "demonstrator")
            await expect(form.get_by_label("Your comment on line 1", exact=True)).to_have_value("Why?")
            await form.get_by_label("Files in the archive").select_option(hostile)
            await expect(form.locator("[data-line='2'] code")).to_have_text(EVIL)
            await form.get_by_label("Mark", exact=True).fill("8")
            await form.get_by_role("button", name="Correct").click()
            await expect(watched.page.locator(".notice.good")).to_contain_text("corrected")
            letters = database.write_now(partial(outbox.claim, roles=["demonstrator"]))
            (sent,) = [json.loads(one.body) for one in letters if one.type == "Assignment"]
            assert sent["History"][-1]["comments"] == [
                {"line": 1, "text": "Why?", "file": "src/a.py"},
                {"line": 1, "text": "A cell", "cell": 1, "file": "b.ipynb"},
            ]  # fmt: skip
            database.write_now(partial(course.record, assignment=Assignment(sent)))
            await watched.page.goto(f"{web}#/submission/a1")
            await watched.page.get_by_role("button", name="Show it, with the comments (4)").click()
            said = watched.page.locator(".solution [data-line='1'] p.said")
            await expect(said).to_have_text([f"assistant ben: inside {EVIL}", re.compile("demonstrator .*: Why")])
            await watched.page.get_by_label("Files in the archive").select_option("b.ipynb")
            await expect(said).to_have_text(re.compile("demonstrator .*: A cell"))
            await watched.page.set_viewport_size({"width": 320, "height": 800})
            assert await watched.page.evaluate("document.documentElement.scrollWidth") <= 320
            assert await watched.page.locator("main script, main img[src=x]").count() == 0
            assert watched.complaints == []
            await watched.page.close()


def _archives(hostile: str) -> tuple[Assignment, Assignment]:
    """Return two attempts, the second sent back with comments. hostile: the name of a file that differs."""
    pictured = notebook(code("y", shows(image_png=_PICTURE)))
    old, new = (
        zipped(("src/a.py", b"x = 1\n"), (hostile, source.encode()), ("b.ipynb", pictured))
        for source in ("one\ntwo\n", f"one\n{EVIL}\n")
    )
    earlier, made = (
        submission(7, "cloud_computing", data, "work.zip", identity) for data, identity in ((old, "a0"), (new, "a1"))
    )
    before = {
        "role": "assistant", "who": "ben", "status": "submitted", "remark": "again", "comments": [
            {"file": "src/a.py", "line": 1, "text": f"inside {EVIL}"},
            {"file": "gone.py", "line": 2, "text": "elsewhere"},
        ],
    }  # fmt: skip
    return earlier, Assignment({**made, "History": [{"role": "student"}, before], "Remarks": ["again"]})


async def test_a_refused_submission_shows_the_reason(
    browser: Browser, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    async with _web(embedded_url, database_url) as web:
        watched = await _opened(browser, web)
        file = tmp_path / "empty.py"
        file.touch()
        await _hand_in(watched, "7", file)
        complaint = watched.page.locator(".panel .notice.bad")
        await expect(complaint).to_have_text("the file is empty")
        file.write_text("x")
        await _hand_in(watched, "seven", file)
        await expect(complaint).to_contain_text("not a student number")
        assert watched.complaints == []
        await watched.page.close()


async def test_the_page_updates_and_shows_solutions_as_text(
    browser: Browser, embedded_url: str, database_url: str
) -> None:
    async with _web(embedded_url, database_url) as web:
        watched = await _opened(browser, web)
        page = watched.page
        await expect(page.locator(".nothing")).to_contain_text("No submissions")
        with Database(database_url) as database:
            async with role_set(embedded_url, database), Submitter(Wiring(), embedded_url) as submitter:
                module = Wiring().course.module("data_mining")
                students = ("s1", "s2", "s3")
                await asyncio.gather(*(submitter.submit(student, module, b"x", EVIL, who=EVIL) for student in students))
                await expect(page.locator(".pipeline [data-status=confirmed] b")).to_have_text("3", timeout=_WITHIN)
                await expect(page.locator("tbody tr")).to_have_count(3)
                await page.get_by_label("Find").fill("s2")  # no id begins with an s
                await expect(page.locator("tbody tr")).to_have_count(1)
                await page.locator("tbody tr a").click()
                await expect(page.locator(".submission")).to_contain_text(EVIL)
                await expect(page.locator(".history > li").first).to_contain_text(f"submitted by student {EVIL}")
        assert await page.locator("main img, main script").count() == 0
        assert watched.complaints == []
        await page.close()


async def test_a_phone_needs_no_scrolling_sideways(browser: Browser, embedded_url: str, database_url: str) -> None:
    async with _web(embedded_url, database_url) as web:
        with Database(database_url) as database:
            files = Files(default_place(database_url))
            async with role_set(embedded_url, database, files=files), Submitter(Wiring(), embedded_url) as submitter:
                module = Wiring().course.module("cloud_computing")
                cells = (markdown(f"# {EVIL}"), code("x" * 300, shows(text_html=EVIL), shows(image_png=_PICTURE)))
                await submitter.submit(10**17, module, notebook(*cells), f"{'a-very-long-file-name' * 8}.ipynb")
                page = await browser.new_page(viewport={"width": 360, "height": 800})
                await page.goto(web)
                await expect(page.locator(".pipeline [data-status=confirmed] b")).to_have_text("1", timeout=_WITHIN)
                assert await page.evaluate("document.documentElement.scrollWidth") <= 360
                await page.locator("tbody tr a").click()
                await expect(page.locator(".history > li")).to_have_count(4, timeout=_WITHIN)
                refused: list[str] = []

                async def refuse(route: Route) -> None:
                    refused.append(route.request.url)
                    await route.fulfill(status=503, body='{"error": "others are being read"}')

                await page.route("**/api/pictures/**", refuse, times=1)
                await page.get_by_role("button", name="Show it").click()
                await expect(page.locator(".notebook h1")).to_have_text(EVIL, timeout=_WITHIN)
                await expect(page.locator(".notebook img")).to_have_js_property("naturalWidth", 1, timeout=_WITHIN)
                assert len(refused) == 1, "the picture was asked for once more"
                await expect(page.locator(".notebook .nothing")).to_have_text("An output that is not shown: text/html")
                assert await page.locator(".notebook img, .notebook script").count() == 1
                assert await page.evaluate("document.documentElement.scrollWidth") <= 360
                await page.close()


@ON_EMBEDDED
async def test_a_comparison_is_followed_over_a_failed_request(
    browser: Browser, broker_url: str, database_url: str
) -> None:
    nothing = {"pairs": [], "compared": 0, "left_out": {}, "at": None, "error": None, "is_running": True}
    ended = nothing | {"compared": 3, "at": "2026-11-01T12:00:00+00:00", "is_running": False}
    answers = [(200, nothing), (400, {"error": "not this time"}), (200, ended)]

    async def answer(route: Route) -> None:
        status, data = answers.pop(0)
        await route.fulfill(status=status, content_type="application/json", body=json.dumps(data))

    async with _web(broker_url, database_url) as web:
        watched = await _opened(browser, web)
        await watched.page.route("**/api/similar?*", answer)
        panel = await watched.go("similar")
        await expect(panel.get_by_role("status")).to_contain_text("3 submissions compared", timeout=_WITHIN)
        await expect(panel.get_by_role("alert")).to_have_count(0)
        assert (answers, watched.complaints) == ([], [])


async def test_a_lecturer_looks_at_marks_and_copies_accepts_and_has_two_people_mark(
    browser: Browser, embedded_url: str, database_url: str, tmp_path: Path
) -> None:
    toml = 'undo = 0\n[modules.cloud_computing]\nshort = "cc"\nblind = { people = 2, rule = "lowest" }\n'
    toml += '[modules.data_mining]\nshort = "dm"\ncloses = 2001-01-01T00:00:00Z\n'
    (tmp_path / "grading.toml").write_text(toml)
    with Database(database_url) as database:
        await _record_submissions(database, Files(default_place(database_url)))
        async with _web(embedded_url, database_url, {"RABBITRY_GRADING": str(tmp_path / "grading.toml")}) as web:
            watched = await _opened(browser, f"{web}#/stats")
            page = watched.page
            await expect(page.locator(".stats .classes tr").nth(6)).to_contain_text("2")
            await expect(page.locator(".stats")).to_contain_text("3 submissions of 3 students, 1 of them declined")
            await _compare_two_students(await watched.go("similar"))
            await _accept_what_was_declined(page, f"{web}#/submission/d1")
            await _accept_what_was_late(page, f"{web}#/submission/l1")
            corrected = await _mark_by_two_people(watched, database)
            marked = re.compile("Ann.*Ben.*8 / 10.*6 / 10", re.DOTALL)
            await expect((await _open_item(watched, "assistant")).locator("table.marks")).to_contain_text(marked)
            await page.goto(f"{web}#/submission/w1")
            await expect(page.locator(".history table.marks")).to_contain_text(marked)
            assert watched.complaints == []
            await page.close()
    assert (corrected["Mark"], corrected.history[-1]["who"]) == (6.0, "Ann, Ben")


async def _record_submissions(database: Database, files: Files) -> None:
    """Record two confirmed ones that are alike, a declined one (d1), a late one (l1), and one to be marked (w1)."""
    declined = submission(9, "cloud_computing", b"x", "x.py", "d1")
    declined = declined.moved("declined", "demonstrator", Decision("automatic", remark=f"one too many {EVIL}"))
    waits = submission(10, "cloud_computing", b"x", "x.py", "w1")
    packed = zipped((f"{EVIL.replace('/', '')}.py", DISGUISED.encode()))
    for student, data, name in ((7, ORIGINAL.encode(), "x.py"), (8, packed, "x.zip")):
        await asyncio.to_thread(_confirmed, database, files, student, data, mark=6.0, name=name)
    database.write_now(partial(course.record, assignment=declined, kept=files.keep(b"x")))
    late = submission(11, "data_mining", b"x", "x.py", "l1")
    database.write_now(partial(course.record, assignment=late))
    put = partial(inbox.put, role=ROLES["demonstrator"], assignment=waits, exchange="e", message="m")
    database.write_now(put)


async def _compare_two_students(panel: Locator) -> None:
    """Compare the submissions of a module, and look at what two of them share."""
    await panel.get_by_role("button", name="Compare", exact=True).click()
    await panel.get_by_role("link", name="Compare students").click(timeout=_WITHIN)
    await expect(panel.locator(".solution-side mark[data-block='1']")).to_have_count(2)
    await panel.get_by_role("button", name="1", exact=True).click()
    await expect(panel.locator(".solution-side mark.chosen")).to_have_count(2)


async def _accept_what_was_declined(page: Page, url: str) -> None:
    """Accept a submission that was one too many."""
    await page.goto(url)
    await expect(page.locator(".history")).to_contain_text(f"one too many {EVIL}")
    await page.get_by_label("The reason to accept it").fill("the network was down")
    await page.get_by_role("button", name="Accept it").click()
    await expect(page.locator(".history > li").nth(2)).to_contain_text("the network was down")
    await expect(page.get_by_role("button", name="Accept it")).to_have_count(0)


async def _accept_what_was_late(page: Page, url: str) -> None:
    """Accept a submission that came after the deadline, and withdraw the acceptance."""
    await page.goto(url)
    await page.get_by_label("The reason to accept it").fill(f"she was ill {EVIL}")
    await page.get_by_role("button", name="Accept it").click()
    await expect(page.locator(".accepted")).to_contain_text(f"she was ill {EVIL}")
    await expect(page.locator(".submission")).to_contain_text("It counts.")
    await expect(page.get_by_role("button", name="Accept it")).to_have_count(0)
    await page.get_by_text("Withdraw the acceptance").click()
    await page.get_by_label("The reason to withdraw it").fill(f"she was well {EVIL}")
    await page.get_by_role("button", name="Withdraw it").click()
    await expect(page.locator(".withdrawn")).to_contain_text(f"she was ill {EVIL}; withdrawn by")
    await expect(page.locator(".withdrawn")).to_contain_text(f"she was well {EVIL}")
    await expect(page.locator(".submission")).to_contain_text("It does not count.")
    await expect(page.get_by_text("Withdraw the acceptance")).to_have_count(0)
    await expect(page.get_by_role("button", name="Accept it")).to_have_count(1)


async def _mark_by_two_people(watched: Watched, database: Database) -> Assignment:
    """Mark a submission twice, hand it on to the assistant, and return it as the demonstrators sent it."""
    await watched.go("inbox/demonstrator")
    for who, mark, said in (("Ann", "8", "marked, waits for others"), ("Ben", "6", "corrected")):
        form = await _open_item(watched, "demonstrator")
        await form.get_by_label("Mark", exact=True).fill(mark)
        await form.get_by_label("out of").fill("10")
        await form.get_by_label("Your name").fill(who)
        await form.get_by_role("button", name="Correct").click()
        await expect(watched.page.locator(".notice.good")).to_contain_text(said)
    letters = database.write_now(partial(outbox.claim, roles=["demonstrator"]))
    corrected = Assignment(json.loads(letters[0].body))
    database.write_now(partial(course.record, assignment=corrected))
    put = partial(inbox.put, role=ROLES["assistant"], assignment=corrected, exchange="e", message="m")
    database.write_now(put)
    return corrected
