"""Marking again on the page: the dry run, a run that a coordinator does and goes on with, and its result."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, func, insert, select, update

from rabbitry.apps.grading import regrading as doing
from rabbitry.apps.grading import web_regrades
from rabbitry.apps.grading.exceptions import SandboxUnavailable
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.marking import sandbox
from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, outbox, regrading, schema
from rabbitry.apps.grading.records.regraded import MOST_RUNS
from rabbitry.apps.grading.records.regrading import Selection
from tests.apps.grading._running import CC, ON_BOTH_DATABASES, course_database, recorded, role_set
from tests.apps.grading.test_regrading import _SCHEME, _confirmed, _hops, course_of
from tests.apps.grading.test_web import Served
from tests.support.waiting import eventually, eventually_awaited

pytestmark = pytest.mark.timeout(180)
_REASON = {"module": CC.name, "remark": "test 3 was wrong"}


@pytest.fixture
async def served(embedded_url: str, found_url: str) -> AsyncIterator[Served]:
    made = Served(embedded_url, found_url)
    async with made.pages.open(), made.http:
        yield made


def _lose(database: Database, files: Files, identity: str) -> None:
    """Remove the kept file of a submission."""
    (path,) = Path(files.place).glob(f"*/{course_of(database, identity).sha256}.z")
    path.unlink()


async def _runs(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await http.get("/api/regrades", params={"module": CC.name})).json()["runs"]
    return found


async def test_a_coordinator_does_what_was_begun_on_the_page(
    no_leaks: None, broker_url: str, found_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stopped within the run, and another one goes on: each submission is submitted again once."""
    audited: list[tuple[str, ...]] = []

    @contextlib.asynccontextmanager
    async def audit(*what: str) -> AsyncIterator[None]:
        audited.append(what)
        yield

    files = Files(default_place(found_url))
    made = Served(broker_url, found_url, audit=audit)
    with Database(found_url) as database:
        ids = [_confirmed(database, files, student, b"%d" % student, mark=4.0) for student in range(1, 6)]
        same = _confirmed(database, files, 6, b"6", mark=8.0)
        lost = _confirmed(database, files, 7, b"7", mark=4.0)
        _lose(database, files, lost)
        async with made.pages.open(), made.http as http:
            begun = (await http.post("/api/regrades", json=_REASON)).json()
            again = (await http.post("/api/regrades", json=_REASON | {"remark": "other"})).json()
            assert again == begun, "the same selection is the same run until it has ended"
            assert (begun["submissions"], begun["reopened"], begun["is_coordinators"]) == (7, 0, True)
            assert [what[1:] for what in audited] == [("mark again", CC.name)] * 2

            monkeypatch.setattr(doing, "MOST_WAITING", 2)
            monkeypatch.setattr(doing, "_PATIENCE", 0.1)
            stop = asyncio.Event()
            first = asyncio.create_task(
                doing.reopen_begun(database, files, Course(), "assignment_exchange", stop)
            )  # nothing is published, so that it soon waits for room
            await eventually(lambda: database.read_now(outbox.count) == 2, "two are submitted again")
            await eventually(
                lambda: "2 messages of all roles not published" in caplog.text, "it says what it waits for"
            )
            stop.set()
            await first
            assert (await _runs(http))[0]["reopened"] == 2

            def mark(solution: bytes, name: str) -> Decision:
                return Decision("automatic", 8.0, 10.0)

            async with role_set(broker_url, database, files=files, markers={CC.name: mark}):

                async def ended() -> dict[str, Any] | None:
                    (run,) = await _runs(http)
                    return None if run["ended_at"] is None else run

                done = await eventually_awaited(ended, "the run has ended")
                assert done is not None
                assert (done["reopened"], done["lost"], done["unconfirmed"]) == (6, 1, 0)
                await recorded(database, "confirmed", 7)
            assert _hops(database, [*ids, same, lost]) == [2] * 6 + [1]
            result = (await http.get(f"/api/regrades/{done['id']}")).json()
            assert (result["confirmed"], result["changed"]) == (6, 5)
            assert {one["id"] for one in result["changes"]} == {*ids}
            assert result["changes"][0]["old"] == {"mark": 4.0, "out_of": 10.0}
            assert result["changes"][0]["new"] == {"mark": 8.0, "out_of": 10.0}


@ON_BOTH_DATABASES
async def test_a_result_is_that_of_its_run_alone(served: Served, found_url: str) -> None:
    with Database(found_url) as database:
        files = Files(default_place(found_url))
        identity = await asyncio.to_thread(_confirmed, database, files, 7, b"x", mark=4.0)

        def begin() -> None:
            work = partial(regrading.begin, selection=Selection(CC.name), course=Course(), who="ann", remark="first")
            run = database.write_now(work)
            list(doing.reopened(database, files, run, Course(), "assignment_exchange", has_room=lambda _: True))

        await asyncio.to_thread(begin)
        (run,) = await _runs(served.http)
        assert (run["is_coordinators"], run["ended_at"] is None, run["reopened"]) == (False, False, 1)
        result = (await served.http.get(f"/api/regrades/{run['id']}")).json()
        assert (result["confirmed"], result["changed"]) == (0, 0), "it is not confirmed again yet"
        assert database.read_now(partial(course.submission_of, given=identity)).status == "submitted"
        for number in (99, 1 << 70):
            assert (await served.http.get(f"/api/regrades/{number}")).status_code == 404


@ON_BOTH_DATABASES
async def test_a_result_does_not_depend_on_clocks_and_counts_equal_runs(served: Served, found_url: str) -> None:
    """The page's machine is ahead of the coordinator's, and the same person marks twice for the same reason."""
    with Database(found_url) as database:
        files = Files(default_place(found_url))
        identity = await asyncio.to_thread(_confirmed, database, files, 7, b"x", mark=4.0)

        def mark_again(mark: float) -> int:
            work = partial(regrading.begin, selection=Selection(CC.name), course=Course(), who="ann", remark="same")
            run = database.write_now(work)

            def ahead(connection: Connection) -> None:
                connection.execute(update(schema.regrades).values(begun_at="2999-01-01T00:00:00.000000+00:00"))

            def confirm(connection: Connection) -> None:
                step = connection.execute(select(func.max(schema.history.c.step))).scalar_one()
                hop: dict[str, Any] = {
                    "submission": identity,
                    "who": "x",
                    "place": "y",
                    "at": "2026-11-01T00:00:00.000000+00:00",
                }
                corrected: dict[str, Any] = {"role": "demonstrator", "status": "corrected", "mark": mark}
                confirmed: dict[str, Any] = {"role": "coordinator", "status": "confirmed"}
                for later, told in enumerate((corrected, confirmed), 1):
                    connection.execute(insert(schema.history), hop | told | {"step": step + later})
                connection.execute(update(schema.submissions).values(status="confirmed", confirmed_by="m", mark=mark))

            database.write_now(ahead)
            list(doing.reopened(database, files, run, Course(), "assignment_exchange", has_room=lambda _: True))
            database.write_now(confirm)
            return run.id

        numbers = [await asyncio.to_thread(mark_again, mark) for mark in (6.0, 9.0)]
        found = [(await served.http.get(f"/api/regrades/{number}")).json() for number in numbers]
        marks = [(one["confirmed"], *(one["changes"][0][side]["mark"] for side in ("old", "new"))) for one in found]
        assert marks == [(1, 4.0, 6.0), (1, 6.0, 9.0)]


@ON_BOTH_DATABASES
async def test_a_run_goes_on_that_is_too_old_to_be_listed(served: Served, found_url: str) -> None:
    with course_database(found_url) as database:

        def begin(student: str | None) -> None:
            selection = Selection(CC.name, student=student)
            database.write_now(partial(regrading.begin, selection=selection, course=Course(), who="ann", remark="x"))

        for student in (None, *map(str, range(MOST_RUNS))):
            await asyncio.to_thread(begin, student)
        answer = await served.http.post("/api/regrades", json=_REASON)
        assert (answer.status_code, answer.json()["id"], answer.json()["is_coordinators"]) == (200, 1, True)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"module": "basket_weaving", "remark": "x"}, "unknown module"),
        ({"module": CC.name, "remark": " "}, "the reason must have"),
        (_REASON | {"since": "yesterday"}, "is not a time"),
        (_REASON | {"since": "2026-11-01T08:00"}, "no offset from UTC"),
        (_REASON | {"since": "0001-01-01T00:00+14:00"}, "is not a time"),
        (_REASON | {"more": 1}, "invalid request"),
    ],
)
async def test_what_makes_no_sense_is_refused(served: Served, found_url: str, body: dict[str, Any], why: str) -> None:
    with course_database(found_url):
        answer = await served.http.post("/api/regrades", json=body)
    assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text


@pytest.fixture
def scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A course whose module has a scheme: 4 of 4 points to what prints hello."""
    (tmp_path / "scheme.toml").write_text(_SCHEME.replace("solution", "x.py"))
    (tmp_path / "grading.toml").write_text(
        'weak_sandbox = true\n[modules.cloud_computing]\nshort = "cc"\nscheme = "scheme.toml"\n'
        '[modules.none]\nshort = "no"\n'
    )
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "grading.toml"))


@ON_BOTH_DATABASES
async def test_a_dry_run_shows_what_would_change(
    scheme: None, served: Served, found_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_regrades, "_check_sandbox", lambda _: None)  # this machine's may be the weak one
    files = Files(default_place(found_url))
    with Database(found_url) as database:
        good = await asyncio.to_thread(_confirmed, database, files, 7, b"print('hello')", mark=0.0)
        missing = await asyncio.to_thread(_confirmed, database, files, 8, b"print('gone')", mark=0.0)
        _lose(database, files, missing)
        begun = (await served.http.post("/api/regrades/trial", json={"module": CC.name})).json()
        assert (begun["able"], begun["is_running"], begun["marked"]) == (2, True, 0)
        second = await served.http.post("/api/regrades/trial", json={"module": CC.name})
        assert (second.status_code, "wait for its end" in second.json()["error"]) == (400, True)

        async def ended() -> dict[str, Any] | None:
            trial: dict[str, Any] = (await served.http.get("/api/regrades", params={"module": CC.name})).json()["trial"]
            return None if trial["is_running"] else trial

        trial = await eventually_awaited(ended, "the dry run has ended")
        assert trial is not None
        assert (trial["marked"], trial["changed"], trial["failed"], trial["error"]) == (1, 1, 1, None)
        (change,), (failure,) = trial["changes"], trial["failures"]
        assert (change["id"], change["old"]["mark"], change["new"]) == (good, 0.0, {"mark": 4.0, "out_of": 4.0})
        assert (failure["id"], "the file" in failure["error"]) == (missing, True)
        assert database.read_now(course.counts) == {"confirmed": 2}, "a dry run changed something"


async def test_a_dry_run_ends_with_the_dashboard(
    scheme: None, no_leaks: None, embedded_url: str, found_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_regrades, "_check_sandbox", lambda _: None)
    made = Served(embedded_url, found_url)
    with course_database(found_url):
        async with made.http:
            async with made.pages.open():
                assert (await made.http.post("/api/regrades/trial", json={"module": CC.name})).json()["is_running"]


async def test_submissions_are_tried_only_where_they_can_not_read_the_dashboard_s_secrets(
    scheme: None, served: Served, found_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise SandboxUnavailable("install bubblewrap")

    monkeypatch.setattr(sandbox, "bubblewrap", missing)
    with course_database(found_url):
        for module, why in ((CC.name, "only in the strong sandbox: install bubblewrap"), ("none", "no marking scheme")):
            answer = await served.http.post("/api/regrades/trial", json={"module": module})
            assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text


async def test_a_dry_run_may_say_anything() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"x" * 3_000_000 + b"\n\xff the records are gone\n\n")
    reader.feed_eof()
    assert await web_regrades._last_line(reader) == "\ufffd the records are gone"
