"""Results that are held until a date: hidden from students' questions, and published then."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import literal

from rabbitry.apps.grading.changing import Change, change
from rabbitry.apps.grading.comments import LineComment
from rabbitry.apps.grading.deadlines import Counts, Deadlines
from rabbitry.apps.grading.files import Files
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.message import Assignment, Decision, now, submission
from rabbitry.apps.grading.modules import Course, Module
from rabbitry.apps.grading.questions import Answers, Question
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course, inbox, outbox, releases, requests, results
from rabbitry.apps.grading.records.regrading import submit_again
from rabbitry.apps.grading.roles import decide, role_named
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.apps.grading.students import Submitter
from rabbitry.exceptions import UsageError
from tests.apps.grading._running import ALL, CC, DM, Plain, arrived, recorded, role_set
from tests.apps.grading._running import decide as decide_by_hand
from tests.apps.grading.test_pipeline import read_results
from tests.apps.grading.test_regrading import _confirmed

pytestmark = pytest.mark.timeout(180)
SECRETS = ("well done", "line too long", "look again", "6.25")


def after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def _hold(database: Database, until: str) -> None:
    work = partial(releases.set_until, module=CC.name, until=until, decision=Decision("cleo", remark="the exam first"))
    database.write_now(work)


def judged(database: Database, student: str, text: str = "x = 1\n") -> str:
    """Record a confirmed submission, of which a person told all that a person may tell; return its id."""
    made = submission(student, CC.name, text.encode(), "x.py", "")
    made["SubmissionID"] = identity = new_id(made)
    given = Decision("ann", 6.25, 10.0, feedback="well done", comments=(LineComment(1, "line too long"),))
    for role, action, decision in (
        ("demonstrator", "correct", given),
        ("assistant", "send-back", Decision("ben", remark="look again")),
        ("demonstrator", "correct", given),
        ("assistant", "validate", Decision("ben")),
        ("coordinator", "confirm", Decision("cleo")),
    ):
        made = decide(made, role_named(role), action, decision)
    assert database.write_now(partial(course.confirm, assignment=made, message=identity))
    return identity


def told(found: object) -> list[str]:
    """Return the secrets that an answer tells."""
    text = msgspec.json.encode(found).decode()
    return [secret for secret in SECRETS if secret in text]


def test_a_student_s_question_tells_no_results_before_their_release(database: Database, tmp_path: Path) -> None:
    best = replace(CC, deadlines=Deadlines(counts=Counts.BEST))
    better = [judged(database, "7", text) for text in ("x = 1\n", "x = 2\n")][1]

    def asked(logins: tuple[str, ...] | None, asker: str | None, question: Question) -> dict[str, Any]:
        known = Course(modules={CC.name: best}, status_logins=logins)
        body = Answers(database, known, Files(str(tmp_path / "kept")), "x").answer(question, asker)
        answered = json.loads(body)
        found: dict[str, Any] = answered.get("found", answered)
        return found

    status, look = Question(better), Question(Look=Look("submission", submission=better))
    ways = (None, None, status), (None, "guest", status), (("office",), "7", status), (("office",), "7", look)
    for way in ways:
        assert told(asked(*way)) == list(SECRETS), "they were never held"
    _hold(database, after(3600))
    for way in ways:
        found = asked(*way)
        assert (told(found), found["status"], found["counts"], found["penalty"]) == ([], "confirmed", False, 0.0)
        assert [(hop["role"], hop["status"]) for hop in found["history"]][-1] == ("coordinator", "confirmed")
        assert found["held_until"] == found["releases"][0]["until"] > now()
    for question in (status, look):
        assert told(asked(("office",), "office", question)) == list(SECRETS), "staff see all"
    own = Look("submission", submission=better, student="7"), Look("submissions", student="7")
    for one in own:  # as a page asks that is older than the release of results, and hides none
        assert told(asked(("office",), "office", Question(Look=one))) == []
    with pytest.raises(UsageError, match=r"are held until .*: another look can be asked for then"):
        database.write_now(partial(requests.ask, given=better, student="7", reason="why?", message="m", least=4))
    _hold(database, "")
    found = asked(*ways[2])
    assert (told(found), found["held_until"]) == (list(SECRETS), None)
    assert [one["is_ahead"] for one in found["releases"]] == [False, True]
    assert found["releases"][0]["who"] == "cleo"


def test_a_remark_on_a_declined_submission_is_no_result(database: Database, tmp_path: Path) -> None:
    made = Assignment(submission(7, CC.name, b"x", "x.py", ""))
    made["SubmissionID"] = new_id(made)
    made = made.moved("declined", "demonstrator", Decision("automatic", remark="one too many"))
    database.write_now(partial(course.record, assignment=made))
    _hold(database, after(3600))
    found = json.loads(Answers(database, Course(), None, "x").answer(Question(made.id), None))
    assert found["history"][-1]["remark"] == "one too many"


def test_of_a_submission_that_is_marked_again_only_the_last_result_is_published(
    database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    identity, reopened = _confirmed(database, files, 7, b"x"), _confirmed(database, files, 8, b"y")
    _hold(database, after(3600))

    def hold(of: str, mark: float) -> None:
        result = {"SubmissionID": of, "StudentID": 7, "Module": CC.name, "Mark": mark, "status": "confirmed"}
        assert database.write_now(partial(releases.hold, result=Assignment(result), exchange="x"))

    for mark in (1.0, 2.0):
        hold(identity, mark)
    hold(reopened, 3.0)
    again = partial(submit_again, identity=reopened, data=b"y", decision=Decision("cleo", remark="mended"))
    assert database.write_now(partial(again, course=Course(), exchange="x")) is not None
    assert not database.read_now(releases.are_due)
    _hold(database, "")
    assert database.read_now(releases.are_due)
    database.write_now(releases.let_go)
    assert not database.read_now(releases.are_due)
    letters = database.write_now(partial(outbox.claim, roles=["coordinator"]))
    assert [json.loads(letter.body).get("Mark") for letter in letters if letter.key == "results"] == [2.0]


def test_an_acceptance_publishes_no_result_that_is_held(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    closed = replace(CC, deadlines=Deadlines(closes=datetime(2001, 1, 1, tzinfo=UTC)))
    identity = _confirmed(database, files, 7, b"x", mark=8.0)
    _hold(database, after(3600))
    wanted = Change("accept", "cleo", "she was ill", submission=identity)
    change(database, files, wanted, Course(modules={CC.name: closed}), "x")
    assert database.read_now(outbox.count) == 0
    _hold(database, "")
    database.write_now(releases.let_go)
    (letter,) = database.write_now(partial(outbox.claim, roles=["coordinator"]))
    result = json.loads(letter.body)
    assert (letter.key, result["Timing"], result["FinalMark"]) == ("results", "late", 8.0)


def test_a_result_that_waits_in_the_outbox_is_held_with_the_others(database: Database, tmp_path: Path) -> None:
    """The broker was away, or no coordinator ran, when it was put there."""
    files, known = Files(str(tmp_path / "kept")), Course()
    identity, later = _confirmed(database, files, 7, b"x"), _confirmed(database, files, 8, b"y")
    for each, data in ((identity, b"x"), (later, b"y")):
        assert database.write_now(partial(results.publish_again, identity=each, data=data, course=known, exchange="x"))
    claimed = partial(inbox.claimed, roles=["coordinator"], course=known)
    _hold(database, after(3600))
    newer = Assignment({"SubmissionID": later, "Module": CC.name, "Mark": 2.0})
    assert database.write_now(partial(releases.hold, result=newer, exchange="x"))
    assert database.write_now(claimed) == []
    assert database.read_now(outbox.count) == 0
    _hold(database, "")
    assert database.write_now(releases.let_go)
    marks = {letter.submission: json.loads(letter.body)["Mark"] for letter in database.write_now(claimed)}
    assert marks == {identity: 1.0, later: 2.0}


def test_released_results_come_into_the_outbox_as_it_empties(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_MOST_WAITING", 3)
    files = Files(str(tmp_path / "kept"))
    _hold(database, after(3600))
    for student in range(1, 6):
        identity = _confirmed(database, files, student, b"x")
        result = Assignment({"SubmissionID": identity, "Module": CC.name})
        assert database.write_now(partial(releases.hold, result=result, exchange="x"))
    _hold(database, "")
    published = set[str]()
    for number in (3, 2):
        while database.write_now(releases.let_go):
            pass
        letters = database.write_now(partial(outbox.claim, roles=["coordinator"]))
        assert len(letters) == number
        published |= {letter.submission for letter in letters}
        database.write_now(partial(outbox.published, letters=[letter.id for letter in letters]))
    assert len(published) == 5
    assert not database.read_now(releases.are_due)


def test_the_clock_of_the_records_says_what_is_released(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a page on another machine may be ahead, and its students are not to see their marks before others."""
    _hold(database, after(3600))
    assert [*database.read_now(releases.held_modules)] == [CC.name]
    there = datetime.now(UTC) + timedelta(hours=2)
    monkeypatch.setattr(releases, "clock", lambda _: literal(there.timestamp()))
    assert database.read_now(releases.held_modules) == {}
    (found,) = database.read_now(partial(releases.releases_of, module=CC.name))
    assert not found.is_ahead


@pytest.mark.parametrize("is_person", [False, True])
async def test_results_are_published_at_their_date(broker_url: str, one_database: Database, is_person: bool) -> None:
    specs = [*ALL[:-1], RoleSpec("coordinator", person=is_person)]
    _hold(one_database, after(3600))

    async def confirmed(submitter: Submitter, module: Module, number: int) -> str:
        identity = await submitter.submit(7, module, b"x = 1\n", "x.py")
        if is_person:
            (item,) = await arrived(one_database, "coordinator")
            await decide_by_hand(one_database, item, "confirm", Decision("cleo"))
        await recorded(one_database, "confirmed", number)
        return identity

    async with role_set(broker_url, one_database, specs), Submitter(Wiring(), broker_url) as submitter:
        with Plain(broker_url) as plain:
            read_results(plain)
            held = await confirmed(submitter, CC, 1)
            other = await confirmed(submitter, DM, 2)
            (first,) = await asyncio.to_thread(plain.take, "results_queue", 1)
            until = after(1)
            _hold(one_database, until)
            (second,) = await asyncio.to_thread(plain.take, "results_queue", 1)
    assert (first["SubmissionID"], second["SubmissionID"]) == (other, held)
    assert now() > until
    assert (second["status"], second["Solution"]) == ("confirmed", "x = 1\n")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("tomorrow", "is not a time"),
        ("2026-12-01T09:00", "has no offset from UTC"),
        ("0001-01-01T00:00+14:00", "is not a time"),
        ("2026-13-01T00:00Z", "is not a time"),
        ("2025-12-01T09:00+01:00", "has passed: give a later time"),
    ],
)
def test_a_time_that_is_none_or_has_passed_is_refused(database: Database, tmp_path: Path, wrong: str, why: str) -> None:
    wanted = Change("release", "cleo", "x", module=CC.name, until=wrong)
    with pytest.raises(UsageError, match=why):
        change(database, Files(str(tmp_path / "kept")), wanted, Course(), "x")
    assert database.read_now(partial(releases.releases_of, module=CC.name)) == []
