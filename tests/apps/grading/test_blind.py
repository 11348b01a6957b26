"""Several demonstrators mark a submission without seeing each other's marks, and a rule makes one mark of theirs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rabbitry.apps.grading.blind import BETWEEN, Blind
from rabbitry.apps.grading.comments import LONGEST, MOST, LineComment
from rabbitry.apps.grading.message import Assignment, Decision, submission
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.records import Database, inbox, judgements, outbox, undoing
from rabbitry.apps.grading.roles import ROLES
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
        found = blind.joint([_given(f"p{place}", one) for place, one in enumerate(marks)])
        assert (found.mark, found.out_of) == (mark, 10.0)
        assert f"The mark is the {how} of {', '.join(f'{one:g}' for one in marks)}." == found.feedback


def test_all_feedback_and_comments_are_joined_within_bounds() -> None:
    one = _given("ann", 8.0, feedback="good", comments=(LineComment(1, "a"),))
    other = _given("ben", 9.0, comments=(LineComment(1, "b"), LineComment(2, "c")))
    found = Blind(2).joint([one, other])
    assert (found.who, found.feedback) == ("ann, ben", "The mark is the mean of 8, 9.\n\ngood")
    assert [comment.text for comment in found.comments] == ["a", "b", "c"]
    assert Blind(2).joint([_given("Doe, Jane", 8.0), other]).who.split(BETWEEN) == ["Doe Jane", "ben"]
    many = _given("ann", 1.0, comments=(LineComment(1, "x"),) * MOST)
    assert len(Blind(2).joint([many, many]).comments) == MOST
    long = _given("ann", 1.0, comments=(LineComment(1, "x" * LONGEST),) * 40)
    assert len(Blind(2).joint([long, long]).comments) == 50


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
    seen = database.read_now(partial(judgements.given, items=[item.id, 99], who="ben"))
    assert seen == {item.id: judgements.Given(1, is_mine=False)}
    wrong = (_given("ben", None, None), "no mark"), (_given("ben", 3.0, 5.0), "the maximum 10: give the same")
    for decision, why in wrong:
        with pytest.raises(UsageError, match=why):
            _settle(database, item, course, decision)
    assert _settle(database, item, course, _given("ann", 6.0)).status == "submitted", "one person's mark counts once"
    assert database.read_now(partial(judgements.given, items=[item.id], who="ann")) == {item.id: (1, True)}
    assert _settle(database, item, course, _given("ben", 8.0)).status == "submitted", "they differ by too much"
    with pytest.raises(UsageError, match="yours is one of them: one further person has to mark"):
        _settle(database, item, course, _given("ann", 7.0))
    done = _settle(database, item, course, _given("cleo", 7.0, feedback="fine", comments=(LineComment(1, "why?"),)))
    assert (done.status, done["Mark"], done["OutOf"], done["Feedback"]) == (
        "corrected", 7.0, 10.0, "The mark is the median of 6, 8, 7.\n\nfine"
    )  # fmt: skip
    assert (done.history[-1]["who"], done.history[-1]["comments"]) == ("ann, ben, cleo", [{"line": 1, "text": "why?"}])
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
    with pytest.raises(UsageError, match="ben decided on a1"):
        database.write_now(partial(undoing.take_back, identity="a1", who="ann"))
    database.write_now(partial(undoing.take_back, identity="a1", who="ben"))
    assert database.read_now(partial(judgements.given, items=[item.id], who="ben")) == {item.id: (1, False)}
    assert _settle(database, item, course, _given("ben", 9.0))["Mark"] == 7.0


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
                assert (one["marks_given"], one["is_marked"], one["mark"], one["feedback"]) == (1, False, None, None)
            assert "hidden" not in str(opened)
            verdict = {"action": "correct", "item": item.id, "who": "Ben", "mark": 6, "out_of": 10}
            answer = await http.post("/api/inbox/demonstrator/a1", json=verdict)
            assert answer.json() == {"id": "a1", "status": "corrected"}
        letters = database.write_now(partial(outbox.claim, roles=["demonstrator"]))
    assert any(b'"Mark":6.0' in letter.body for letter in letters)
