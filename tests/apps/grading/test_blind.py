"""Several demonstrators mark a submission without seeing each other's marks, and a rule makes one mark of theirs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rabbitry.apps.grading.blind import Blind
from rabbitry.apps.grading.commands import students
from rabbitry.apps.grading.comments import LONGEST, LineComment
from rabbitry.apps.grading.message import Assignment, Decision, submission
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.personal import PersonalMark, Points, last_marks, marks_of
from rabbitry.apps.grading.records import Database, inbox, judgements, judging, outbox, undoing
from rabbitry.apps.grading.records import course as records
from rabbitry.apps.grading.records.regrading import _hop
from rabbitry.apps.grading.roles import ROLES
from rabbitry.apps.grading.showing import comments_in
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from tests.apps.grading._running import CC, ON_BOTH_DATABASES
from tests.apps.grading.test_web import Served

pytestmark = pytest.mark.timeout(120)
_TOML = '[modules.cloud_computing]\nshort = "cc"\n'


def _course(blind: Blind) -> Course:
    return Course(modules={CC.name: replace(CC, blind=blind)})


def _put(database: Database, identity: str = "a1") -> inbox.Item:
    made = submission(7, CC.name, b"x = 1\n", "x.py", identity)
    put = partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="e", message=f"m {identity}")
    assert database.write_now(put)
    return database.read_now(partial(inbox.item, identity=identity))


def _given(who: str, mark: float | None, out_of: float | None = 10.0, **more: Any) -> Decision:
    return Decision(who, mark, out_of, **more)


def _error_of(database: Database, item: inbox.Item, course: Course, decision: Decision) -> str:
    with pytest.raises(UsageError) as caught:
        _settle(database, item, course, decision)
    return str(caught.value)


def _settle(database: Database, item: inbox.Item, course: Course, decision: Decision) -> Assignment:
    return database.write_now(partial(inbox.settle, found=item, action="correct", decision=decision, course=course))


@pytest.mark.parametrize(
    ("blind", "marks", "missing", "mark", "how"),
    [
        (Blind(2), [8], 1, None, ""),
        (Blind(2), [8, 9], 0, 8.5, "mean"),
        (Blind(2, "highest"), [8, 9], 0, 9, "highest"),
        (Blind(2, "lowest"), [8, 9], 0, 8, "lowest"),
        (Blind(3), [1, 1, 2], 0, 1.333333, "mean"),
        (Blind(2, within=1.0), [8, 9], 0, 8.5, "mean"),
        (Blind(2, "highest", within=1.0), [8, 9.5], 1, None, ""),
        (Blind(2, "highest", within=1.0), [8, 9.5, 2], 0, 8, "median"),
        (Blind(3, within=0.0), [1, 1, 2], 1, None, ""),
        (Blind(3, within=0.0), [1, 1, 2, 4], 0, 1.5, "median"),
    ],
)
def test_a_rule_makes_one_mark_of_several(
    blind: Blind, marks: list[float], missing: int, mark: float | None, how: str
) -> None:
    assert blind.missing(marks) == missing
    if mark is not None:
        found = blind.joint([PersonalMark(f"p{place}", one, 10.0) for place, one in enumerate(marks)])
        assert (found.mark, found.out_of) == (mark, 10.0)
        assert f"The mark is the {how} of {', '.join(f'{one:g}' for one in marks)}." == found.feedback


def test_the_hop_has_each_mark_as_it_was_given() -> None:
    one = PersonalMark(
        "ann", 8.0, 10.0, "good", (Points("Style", 1.0, 2.5),), (LineComment(2, "a"), LineComment(1, "b"))
    )
    joint = Blind(2).joint([one, PersonalMark("Roe, Ben", 9.0, 10.0)])
    assert (joint.who, joint.feedback) == ("ann, Roe, Ben", "The mark is the mean of 8, 9.")
    moved = submission(7, CC.name, b"x\ny\n", "x.py", "a1").moved("corrected", "demonstrator", joint)
    hop = moved.history[-1]
    assert (moved["Feedback"], hop["feedback"]) == ("The mark is the mean of 8, 9.\n\ngood", joint.feedback)
    assert [*map(sorted, hop["marks"])] == [
        ["comments", "criteria", "feedback", "mark", "outOf", "who"], ["mark", "outOf", "who"]
    ]  # fmt: skip
    found = marks_of(hop)
    assert found == (replace(one, comments=one.comments[::-1]), joint.marks[1]), "comments are by line"
    assert [(said["who"], said["text"]) for said in comments_in(moved.history)] == [("ann", "b"), ("ann", "a")]


@pytest.mark.parametrize(
    ("marks", "found"),
    [
        (3, []),
        ([3, {}, {"who": "ann"}, {"who": "ann", "mark": True}, {"who": "ann", "mark": 10**400}], []),
        ([{"mark": float("nan")}, {"who": 5, "mark": 1, "feedback": 3}], [PersonalMark("5", 1.0)]),
        ([{"who": "x" * 300, "mark": 1}] * 20, [PersonalMark("x" * 200, 1.0)] * 11),
        ([{"who": "\ud800", "mark": 1, "feedback": "\ud800"}], [PersonalMark("?", 1.0, feedback="?")]),
        ([{"who": "a", "mark": 1, "criteria": [3, {"name": "b"}, {"name": "c", "points": 1, "of": 2}]}],
         [PersonalMark("a", 1.0, criteria=(Points("c", 1.0, 2.0),))]),
    ],
)  # fmt: skip
def test_marks_of_other_programs_are_taken_as_far_as_they_make_sense(marks: Any, found: list[PersonalMark]) -> None:
    assert [*marks_of({"marks": marks})] == found


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"feedback": "x" * 25_001}, "each feedback has at most 25000"),
        ({"comments": (LineComment(1, "x"),) * 51}, "each makes at most 50 comments"),
        ({"comments": (LineComment(1, "x" * LONGEST),) * 13}, "with 25000 characters in all"),
    ],
)
def test_text_that_would_not_fit_beside_the_others_is_refused(
    database: Database, more: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        _settle(database, _put(database), _course(Blind(2)), _given("ann", 5.0, **more))


@pytest.mark.parametrize(("mark", "out_of"), [(1e308, None), (1e15, None), (1.0, 1e15)])
def test_marks_that_the_hop_would_not_keep_are_refused(database: Database, mark: float, out_of: float | None) -> None:
    item, course = _put(database), _course(Blind(2))
    assert "are below 1e+15" in _error_of(database, item, course, _given("ann", mark, out_of))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("blind = 2", "must be a table"),
        ("blind = { people = 1 }", "not a number from 2 to 10"),
        ("blind = { people = true }", "not a number from 2 to 10"),
        ('blind = { people = 2, rule = "best" }', "use mean, highest, lowest"),
        ("blind = { people = 2, within = -1 }", "not a number of points"),
        ("blind = { people = 2, more = 1 }", "must be a table"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.toml").write_text(_TOML + text)
    with pytest.raises(UsageError, match=why):
        load_course(tmp_path / "x.toml")


def test_the_last_of_several_marks_sends_the_message(database: Database) -> None:
    course, item = _course(Blind(2, within=1.0)), _put(database)
    assert _settle(database, item, course, _given("ann", 5.0)).status == "submitted"
    assert database.read_now(outbox.count) == 0
    for who, marked in (("ann", {item.id}), ("ben", set()), (None, set())):
        assert database.read_now(partial(judgements.marked, items=[item.id, 99], who=who)) == marked
    wrong = (_given("ben", None, None), "no mark"), (_given("ben", 3.0, 5.0), "the maximum 10: give the same")
    for decision, why in wrong:
        with pytest.raises(UsageError, match=why):
            _settle(database, item, course, decision)
    alone = _error_of(database, item, course, _given("ann", 6.0))
    assert "final" in alone
    assert _settle(database, item, course, _given("ben", 8.0)).status == "submitted", "they differ by too much"
    assert _error_of(database, item, course, _given("ann", 7.0)) == alone, "it tells nothing of ben's mark"
    done = _settle(database, item, course, _given("cleo", 7.0, feedback="fine", comments=(LineComment(1, "why?"),)))
    assert (done.status, done["Mark"], done["OutOf"], done["Feedback"]) == (
        "corrected", 7.0, 10.0, "The mark is the median of 5, 8, 7.\n\nfine"
    )  # fmt: skip
    assert (done.history[-1]["who"], done.history[-1]["marks"][2]) == ("ann, ben, cleo", {
        "who": "cleo", "mark": 7.0, "outOf": 10.0, "feedback": "fine", "comments": [{"line": 1, "text": "why?"}]
    })  # fmt: skip
    with pytest.raises(UsageError, match=r"another person decided first.*cleo decided as the demonstrator"):
        _settle(database, item, course, _given("dan", 1.0))


def test_a_joint_mark_may_exceed_the_maximum_as_a_kept_one_does(database: Database) -> None:
    made = Assignment({**submission(7, CC.name, b"x", "x.py", "a1"), "Mark": 12.0, "OutOf": 10.0})
    put = partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="e", message="m")
    assert database.write_now(put)
    item, course = database.read_now(partial(inbox.item, identity="a1")), _course(Blind(2))
    _settle(database, item, course, _given("ann", 12.0))
    assert _settle(database, item, course, _given("ben", 10.0))["Mark"] == 11.0


def test_a_joint_decision_is_taken_back_by_who_completed_it(database: Database) -> None:
    course, item = _course(Blind(2)), _put(database)
    _settle(database, item, course, _given("ann", 5.0))
    _settle(database, item, course, _given("ben", 7.0))
    assert "The mark is" not in str(database.read_now(partial(undoing.unsent, role="demonstrator", who=None)))
    with pytest.raises(UsageError, match="ben decided on a1"):
        database.write_now(partial(undoing.take_back, identity="a1", who="ann"))
    database.write_now(partial(undoing.take_back, identity="a1", who="ben"))
    assert database.read_now(partial(judgements.marked, items=[item.id], who="ben")) == set()
    assert _settle(database, item, course, _given("ann", 6.0)).status == "submitted", "one person's mark counts once"
    assert _settle(database, item, course, _given("ben", 9.0))["Mark"] == 7.5


def test_no_decision_that_tells_how_near_the_marks_are_is_taken_back(database: Database) -> None:
    course, item = replace(_course(Blind(2, within=1.0)), undo=3600.0), _put(database)
    _settle(database, item, course, _given("ann", 5.0))
    assert _settle(database, item, course, _given("ben", 6.0)).status == "corrected"
    assert database.read_now(partial(undoing.unsent, role="demonstrator", who="ben")) == []
    for who in ("ben", None):
        with pytest.raises(UsageError, match="can't be taken back: it has been sent, or is final"):
            database.write_now(partial(undoing.take_back, identity="a1", who=who))
    assert database.write_now(partial(outbox.claim, roles=["demonstrator"])), "it is not held"


async def test_the_marks_are_kept_over_the_roles_and_another_round(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    course, item = _course(Blind(2)), _put(database)
    style = (Points("Style", 1.0, 2.5),)
    _settle(database, item, course, _given("ann", 5.0, feedback="slow", criteria=style))
    moved = _settle(database, item, course, _given("Roe, Ben", 7.0, comments=(LineComment(1, "why?"),)))
    database.write_now(partial(records.record, assignment=moved))
    found = await database.read(partial(records.submission, identity="a1"))
    assert found is not None
    assert found[1][-1].marks == (
        PersonalMark("ann", 5.0, 10.0, "slow", style),
        PersonalMark("Roe, Ben", 7.0, 10.0, comments=(LineComment(1, "why?"),)),
    )
    assert last_marks([_hop(hop) for hop in found[1]]) == found[1][-1].marks, "as it is submitted again"
    told = await database.read(partial(judging.described, given="a1", course=course))
    assert told["history"][-1]["marks"][1]["comments"][0]["text"] == "why?"
    students._show_status(msgspec.to_builtins(told), None, as_json=False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[-3:] == ["ann  5 of 10  slow", "Roe, Ben  7 of 10", "line 1: why?"]


def test_of_two_who_mark_at_once_one_completes_the_decision(database: Database) -> None:
    course = _course(Blind(2))
    items = [_put(database, f"a{number}") for number in range(8)]
    work = [(item, who) for item in items for who in ("ann", "ben")]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda one: _settle(database, one[0], course, _given(one[1], 5.0)).status, work))
    assert done.count("corrected") == len(items)
    assert all({*done[place : place + 2]} == {"submitted", "corrected"} for place in range(0, len(done), 2))


@ON_BOTH_DATABASES
async def test_marks_are_given_beside_each_other_on_the_page_and_by_command(
    found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "course.toml").write_text(f'undo = 0\n{_TOML}blind = {{ people = 2, rule = "lowest" }}\n')
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "course.toml"))
    with Database(found_url) as database:
        item = _put(database)
        typed = ("--mark", "8", "--out-of", "10", "--feedback", "hidden")
        assert _root.run(("grading", "inbox", "decide", "a1", *typed)) == 0
        assert "further demonstrators have to mark this submission" in capsys.readouterr().err
        served = Served("amqp://127.0.0.1:1/", found_url)
        async with served.pages.open(), served.http as http:
            (listed,) = (await http.get("/api/inbox/demonstrator")).json()["items"]
            opened = (await http.get("/api/inbox/demonstrator/a1")).json()
            for one in (listed, opened):
                assert (one["is_marked"], one["mark"], one["feedback"]) == (False, None, None)
            assert "hidden" not in str(opened)
            assert (opened["is_final"], opened["marks"]) == (False, [])
            verdict = {"action": "correct", "item": item.id, "who": "Ben", "mark": 6, "out_of": 10}
            answer = await http.post("/api/inbox/demonstrator/a1", json=verdict)
            assert answer.json() == {"id": "a1", "status": "corrected"}
        letters = database.write_now(partial(outbox.claim, roles=["demonstrator"]))
        corrected = Assignment(msgspec.json.decode(letters[0].body))
        put = partial(inbox.put, role=ROLES["assistant"], assignment=corrected, exchange="e", message="m")
        assert database.write_now(put)
        capsys.readouterr()
        assert _root.run(("grading", "inbox", "show", "a1")) == 0
        assert "marked by Ben: 6 of 10" in capsys.readouterr().out
        assert _root.run(("grading", "inbox", "show", "a1", "--json")) == 0
    shown = msgspec.json.decode(capsys.readouterr().out)
    assert shown["mark"] == 6.0
    assert [one["mark"] for one in shown["history"][-1]["marks"]] == [8.0, 6.0]
