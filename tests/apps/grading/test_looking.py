"""Pages and commands that run away from the records, and ask a coordinator for them over the broker."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, insert, text

from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Channel
from rabbitry.apps.grading import asking, looking, staff, students
from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.looking import MOST, Look, filled, read
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.questions import Answers, Question
from rabbitry.apps.grading.records import Database, judging, requests
from rabbitry.apps.grading.records.course import Filter, fitting, submissions_of
from rabbitry.apps.grading.records.schema import acceptances
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.apps.grading.web import Pages
from rabbitry.apps.grading.web_regrades import Audited
from rabbitry.exceptions import ConnectionClosed, RequestTimeout, UsageError
from rabbitry.web.api import described
from tests.apps.grading._running import Plain, role_set
from tests.apps.grading.test_regrading import _confirmed
from tests.apps.grading.test_status_logins import _asked_plainly
from tests.support import commands
from tests.support.waiting import WITHIN
from tests.web.described import Described

pytestmark = pytest.mark.timeout(180)
OPEN = replace(Course(), status_logins=("guest",))
"""A course whose coordinator answers the tests' login."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages and commands run as on another machine, without a database."""
    monkeypatch.delenv("RABBITRY_DATABASE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for module in (students, staff):
        monkeypatch.setattr(module, "REPLY_WITHIN", WITHIN)


@asynccontextmanager
async def page(
    broker: str, database: str | None = None, audit: Audited | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the page's API away from the records."""
    pages, app = Pages(broker, database, audit=audit), FastAPI()
    app.include_router(pages.router)
    hooks = {"response": [Described(described(app)).check]}
    async with (
        pages.open(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", event_hooks=hooks) as http,
    ):
        yield http


async def command(broker: str, *arguments: str) -> dict[str, Any]:
    """Run a command away from the records; return the first line of its JSON."""
    more = {"RABBITRY_BROKER": broker, "XDG_DATA_HOME": os.environ["XDG_DATA_HOME"]}
    done = await asyncio.to_thread(commands.run, "grading", *arguments, "--json", more=more)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[0]))


async def test_people_elsewhere_see_the_records_and_answer_requests(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "files"))
    first, second = [await asyncio.to_thread(_confirmed, one_database, files, number, b"x") for number in (7, 23200858)]
    coordinator = role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=Wiring(OPEN), files=files)
    inbox = f"sqlite:///{tmp_path / 'inbox.sqlite3'}"
    with Database(inbox):  # of a demonstrator on the page's machine: no course's records are in it
        async with coordinator, page(broker_url, inbox) as http:

            async def answer(path: str) -> Any:
                found = await http.get(f"/api/{path}")
                assert found.status_code == 200, found.text
                return found.json()

            overview = await answer("overview?find=232008")  # no id begins so by chance
            assert [one["id"] for one in overview["submissions"]] == [second]
            assert (overview["statuses"], overview["away"]) == ({"confirmed": 2}, None)
            asked = {"student": "7", "reason": "why?"}
            number = (await http.post(f"/api/submissions/{first}/requests", json=asked)).json()["request"]
            assert (await answer("overview"))["requests"] == 1
            listed = await answer("requests")
            assert [(one["id"], one["reason"]) for one in listed["requests"]] == [(number, "why?")]
            assert (await answer("requests?module=data_mining"))["total"] == 0
            assert await command(broker_url, "requests", "list") == listed["requests"][0]
            given = {"answer": "refused", "role": "assistant", "who": "Ben", "remark": "as on the sheet"}
            answered = await http.post(f"/api/requests/{number}", json=given)
            assert (answered.status_code, answered.json()["answer"]) == (200, "refused"), answered.text
            shown = await answer(f"submissions/{first}")
            assert [hop["status"] for hop in shown["history"]][-2:] == ["asked", "refused"]
            assert shown["has_file"]
            assert await answer("submissions/ffff0000") is None
            assert (await http.post("/api/requests/99", json=given)).status_code == 404
            assert (await answer("stats?module=cloud_computing"))["students"] == 2
            assert (await command(broker_url, "stats"))["students"] == 2


async def test_a_page_beside_a_coordinator_takes_its_empty_course_for_the_records(
    broker_url: str, found_url: str, tmp_path: Path
) -> None:
    with Database(found_url) as database:
        files = Files(str(tmp_path / "files"))
        async with role_set(broker_url, database, [RoleSpec("coordinator")], wiring=Wiring(Course()), files=files):
            async with page(broker_url, found_url) as http:
                answered = await http.get("/api/overview")
                assert (answered.status_code, answered.json()["away"]) == (200, None)
                assert (await http.get("/api/requests")).json()["total"] == 0


async def test_only_logins_that_the_course_names_read_everybodys_records(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    identity = await asyncio.to_thread(_confirmed, one_database, Files(str(tmp_path / "files")), 7, b"x")
    question = msgspec.json.encode({"Look": {"What": "submissions"}})
    for logins in (None, ("office",)):
        wiring = Wiring(replace(OPEN, status_logins=logins))
        async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring):
            async with page(broker_url) as http:
                overview = (await http.get("/api/overview")).json()
                assert overview["submissions"] == []
                assert "the login 'guest' no questions about all submissions" in overview["away"]
                refused = await http.get("/api/requests")
                assert (refused.status_code, "status_logins" in refused.json()["error"]) == (400, True)
            with Plain(broker_url) as plain:
                answered = await asyncio.to_thread(_asked_plainly, plain, question)
            assert ("no login" in answered, identity in answered) == (True, False)


async def test_inboxes_work_while_no_coordinator_answers(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.1)  # the queue may be there of another test
    inbox = f"sqlite:///{tmp_path / 'inbox.sqlite3'}"
    with Database(inbox):
        async with page(broker_url, inbox) as http:
            overview = await http.get("/api/overview")
            assert (overview.status_code, overview.json()["inboxes"]) == (200, {})
            assert "no coordinator answers on this broker" in overview.json()["away"]
            assert (await http.get("/api/inbox/assistant")).json()["items"] == []
            assert (await http.get("/api/requests")).status_code == 503


async def test_questions_at_once_get_their_own_answers(broker_url: str, one_database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "files"))
    ids = [await asyncio.to_thread(_confirmed, one_database, files, number, b"x") for number in range(1, 6)]
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=Wiring(OPEN)):
        async with Asking(broker_url) as coordinators:
            found = await asyncio.gather(*(coordinators.look(Look("submission", submission=one)) for one in ids))
            assert [one["id"] for one in found] == ids
            with pytest.raises(NoSuchID, match="no submission"):
                await coordinators.look(Look("submission", submission=ids[0], modules=("data_mining",)))
            with pytest.raises(UsageError, match="unknown module"):
                await coordinators.look(Look("statistics", module="basket_weaving"))
        with pytest.raises(ConnectionClosed):
            await coordinators.look(Look("requests"))


async def test_all_that_can_be_marked_again_comes_in_parts(
    broker_url: str, one_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(str(tmp_path / "files"))
    ids = [await asyncio.to_thread(_confirmed, one_database, files, number, b"x") for number in range(1, 6)]
    monkeypatch.setattr(looking, "LOOKED_AT", 2)
    answered = looking.read
    parts: list[Look] = []

    def read(connection: Connection, asked: Look, course: Course) -> Any:
        parts.append(asked)
        return answered(connection, asked, course)

    monkeypatch.setattr(looking, "read", read)
    asked = Look("regradable", module="cloud_computing")
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=Wiring(OPEN)):
        async with Asking(broker_url) as coordinators:
            assert [one["id"] for one in await coordinators.rows(asked)] == ids
    assert [one.from_student for one in parts] == ["", "3", "5"]


def test_a_page_of_rows_reads_the_acceptances_of_its_submissions_alone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(str(tmp_path / "files"))
    ids = sorted(_confirmed(database, files, student, b"x") for student in range(3))
    row = {"who": "ann", "at": "2026-11-01", "remark": "ill"}
    accepted = [row | {"submission": one} for one in ids]
    database.write_now(lambda connection: connection.execute(insert(acceptances), accepted))
    found = judging.acceptances_of
    read: list[dict[str, Any]] = []

    def acceptances_of(connection: Connection, ids: Collection[str] | None = None) -> Any:
        read.append(found(connection, ids))
        return read[-1]

    monkeypatch.setattr(judging, "acceptances_of", acceptances_of)
    asked = Look("rows", with_history=True, after=ids[0])
    for most, expected in ((1, ids[1:2]), (None, ids)):
        page = database.read_now(partial(looking.rows, asked=asked, course=Course(), most=most))
        assert sorted(read[-1]) == expected
        assert [one["accepted"] for one in page] == [row] * (most or 2)


async def test_a_question_that_can_not_be_sent_is_given_up(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waits(channel: Channel, body: bytes, **options: Any) -> None:
        """Wait as `publish` does while the broker is away."""
        await asyncio.Event().wait()

    async with Asking(embedded_url) as coordinators:
        monkeypatch.setattr(Channel, "publish", waits)
        monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.1)
        with pytest.raises(RequestTimeout, match="no coordinator answers"):
            await coordinators.look(Look("requests"))


def test_an_answer_that_a_broker_would_not_take_is_refused_with_the_reason(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _confirmed(database, Files(str(tmp_path / "files")), 7, b"x")
    answers, question = Answers(database, OPEN, None, ""), Question(Look=Look("submissions"))
    whole = answers.answer(question, "guest")
    assert msgspec.json.decode(whole)["found"]["total"] == 1
    monkeypatch.setattr(looking, "LARGEST", len(whole) - 1)
    refused = msgspec.json.decode(answers.answer(question, "guest"))
    assert "found" not in refused
    assert f"would have {len(whole)} bytes, and at most {len(whole) - 1} are sent" in refused["error"]
    identity = msgspec.json.decode(whole)["found"]["submissions"][0]["id"]
    monkeypatch.setattr(looking, "LARGEST", 100)
    told = msgspec.json.decode(answers.answer(Question(identity), "guest"))
    assert "at most 100 are sent" in told, "one who knows an id would else end the coordinator with a large record"
    for asked in (Question(identity, Parts=True), Question(Look=Look("submissions"), Parts=True)):
        assert identity in answers.answer(asked, "guest").decode(), "who takes parts gets it whole"


def test_as_much_of_a_list_is_read_as_an_answer_holds(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(_confirmed(database, Files(str(tmp_path / "files")), number, b"x") for number in range(5))
    database.write_now(
        lambda connection: connection.execute(text("UPDATE submissions SET feedback = :long"), {"long": "y" * 1000})
    )
    long = {"long": "z" * 5000, "id": ids[1]}
    of_one = text("UPDATE history SET remark = :long WHERE submission = :id AND step = 2")
    database.write_now(lambda connection: connection.execute(of_one, long))

    def fits(most: int, wanted: Filter = Filter(limit=5), **more: Any) -> int:  # noqa: B008 - it is frozen
        found = database.read_now(partial(fitting, wanted=wanted, most=most, **more))
        after = more.get("after")
        listed = database.read_now(partial(submissions_of, wanted=wanted, after=after))
        assert found == [one.id for one in listed[: len(found)]]
        return len(found)

    assert [fits(most) for most in (1, 1500, 2500, 9000)] == [1, 1, 2, 5]
    assert fits(9000, Filter(limit=3)) == 3
    assert fits(9000, Filter(student="nobody")) == 0
    monkeypatch.setattr("rabbitry.apps.grading.records.course.FEW", 2)
    assert (fits(9000), fits(9000, Filter())) == (2, 2)
    monkeypatch.undo()
    for after, most, number in (
        ("", 3000, 1),
        ("", 30_000, 5),
        (ids[0], 3000, 1),
        (ids[1], 30_000, 3),
        (ids[1], 3000, 2),
    ):
        assert fits(most, after=after, with_history=True) == number, (after, most)


async def test_a_page_is_filled_with_several_answers_and_has_each_entry_once() -> None:
    asked: list[tuple[int, int]] = []
    kept = [{"id": str(number)} for number in range(10)]

    async def ask(look: Look) -> dict[str, Any]:
        asked.append((look.offset, look.limit))
        if look.offset > 2:
            kept.insert(0, {"id": "moved"})  # changed in between, and moved all others
        page = kept[look.offset : look.offset + min(look.limit, 3)]
        return {"submissions": page, "total": len(kept)}

    found = await filled(Look("submissions", offset=1, limit=7), ask)
    assert [one["id"] for one in found["submissions"]] == ["1", "2", "3", "4", "5"]
    assert asked == [(1, 7), (4, 4), (7, 1)]
    kept.clear()
    assert (await filled(Look("submissions", offset=1), ask))["submissions"] == []


def test_an_answer_in_parts_is_whole_once_all_have_come() -> None:
    async def arrives() -> None:
        arriving = asking._Arriving()
        for number, body in ((2, b"b"), (1, b"a"), (2, b"b")):
            arriving.add(body, {"part": number, "parts": 3})
        assert not arriving.whole.done()
        arriving.add(b"c", {"part": 3, "parts": 3})
        arriving.add(b"d", None)
        assert await arriving.wait() == b"abc"

    asyncio.run(arrives())


def test_a_person_reads_only_what_is_theirs(database: Database, tmp_path: Path) -> None:
    identity = _confirmed(database, Files(str(tmp_path / "files")), 7, b"x")
    asked = database.write_now(partial(requests.ask, given=identity, student="7", reason="why?", message="m", least=4))

    def looked(asked: Look) -> Any:
        return database.read_now(partial(read, asked=asked, course=Course()))

    assert looked(Look("submissions", student="8"))["submissions"] == []
    assert looked(Look("submissions", student="8"))["statuses"] == {}
    assert looked(Look("requests", modules=("data_mining",)))["requests"] == []
    assert looked(Look("request", number=asked.id))["submission"] == identity
    for other in (Look("submission", submission=identity, student="8"), Look("request", number=asked.id, modules=())):
        with pytest.raises(NoSuchID):
            looked(other)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"What": "requests", "Limit": MOST + 1}, Look)
