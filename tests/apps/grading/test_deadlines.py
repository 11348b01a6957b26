"""Deadlines: each rule, wrong clocks, and what students, staff and results are told."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.deadlines import Attempt, Counts, Deadlines, Judged, Timing, duration, said
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import HISTORY, Assignment, Decision, Progress, submission
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, course, judging
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from tests.apps.grading._running import CC, WITHIN, Plain, role_set
from tests.apps.grading.test_pipeline import FOUR, read_results
from tests.apps.grading.test_web import Served, form
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)
_DUE = datetime(2026, 11, 15, 12, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_RULES = Deadlines(
    opens=_DUE - 48 * _HOUR, due=_DUE, closes=_DUE + 72 * _HOUR, grace=60.0, per_day=10.0, cap=25.0,
    extensions={"8": _DUE + 24 * _HOUR},
)  # fmt: skip


def _at(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _attempt(hours: float, mark: float | None = 8.0, *, seconds: float = 0.0, name: str = "a") -> Attempt:
    """Return a confirmed attempt so long after it was due."""
    return Attempt(name, _at(_DUE + hours * _HOUR + timedelta(seconds=seconds)), mark, 10.0, is_confirmed=True)


def _one(rules: Deadlines, attempt: Attempt, student: str = "7") -> Judged:
    return rules.judge(student, [attempt])[attempt.id]


@pytest.mark.parametrize(
    ("attempt", "student", "timing", "late", "penalty"),
    [
        (_attempt(-48), "7", Timing.ON_TIME, 0, 0),
        (_attempt(-48, seconds=-1), "7", Timing.EARLY, 0, 0),
        (_attempt(0, seconds=60), "7", Timing.ON_TIME, 0, 0),  # grace
        (_attempt(0, seconds=61), "7", Timing.LATE, 61, 1),
        (_attempt(24), "7", Timing.LATE, 86_400, 1),
        (_attempt(24, seconds=1), "7", Timing.LATE, 86_401, 2),
        (_attempt(71), "7", Timing.LATE, 71 * 3600, 2.5),  # the cap
        (_attempt(71, 2.0), "7", Timing.LATE, 71 * 3600, 2.0),  # never below 0
        (_attempt(72, seconds=60), "7", Timing.LATE, 72 * 3600 + 60, 2.5),
        (_attempt(72, seconds=61), "7", Timing.CLOSED, 72 * 3600 + 61, 0),
        (_attempt(24, seconds=60), "8", Timing.ON_TIME, 0, 0),  # the extension
        (_attempt(25), "8", Timing.LATE, 3600, 1),
        (_attempt(96), "8", Timing.LATE, 72 * 3600, 2.5),  # it closes as much later
        (_attempt(97), "8", Timing.CLOSED, 73 * 3600, 0),
    ],
)
def test_an_attempt_is_judged_by_the_time_it_was_taken(
    attempt: Attempt, student: str, timing: Timing, late: float, penalty: float
) -> None:
    found = _one(_RULES, attempt, student)
    can_count = timing in (Timing.ON_TIME, Timing.LATE)
    assert attempt.mark is not None
    final = attempt.mark - penalty if can_count else 0.0
    assert found == Judged(timing, late, penalty, final, can_count)


def test_a_penalty_may_be_fixed_or_none_and_is_of_the_mark_without_a_maximum() -> None:
    late = _attempt(1)
    assert _one(replace(_RULES, fixed=20.0, per_day=0.0, cap=100.0), late).penalty == 2.0
    assert _one(replace(_RULES, per_day=0.0), late).penalty == 0.0
    assert _one(_RULES, replace(late, out_of=None)).penalty == 0.8
    assert _one(_RULES, replace(late, mark=None)) == Judged(Timing.LATE, 3600, 0.0, None, True)
    assert _one(replace(_RULES, due=None), _attempt(73)).timing is Timing.CLOSED  # due when it closes
    assert _one(Deadlines(), _attempt(1e4)) == Judged(Timing.ON_TIME, 0, 0, 8.0, True)


def test_attempts_and_the_pause_between_them_are_limited() -> None:
    rules = replace(_RULES, attempts=2, pause=600.0)
    times = {"a": -49.0, "b": -10.0, "c": -9.9, "d": -9.8, "e": -1.0}  # in hours
    found = rules.judge("7", [_attempt(hours, name=name) for name, hours in times.items()])
    assert [found[name].timing for name in times] == [
        Timing.EARLY, Timing.ON_TIME, Timing.SOON, Timing.ON_TIME, Timing.MANY
    ]  # fmt: skip
    assert [name for name in times if found[name].counts] == ["d"]
    before = [_attempt(hours, name=name) for name, hours in times.items()]
    for hours, why in ((-50, Timing.EARLY), (-9.95, Timing.SOON), (-9.82, None), (1, Timing.MANY), (99, Timing.CLOSED)):
        assert rules.refusal("7", before, _DUE + hours * _HOUR) is why, hours


def test_an_accepted_attempt_can_count_and_takes_nothing_from_others() -> None:
    rules = replace(_RULES, attempts=2, pause=600.0, accepted=frozenset({"early", "soon", "many", "closed", "on"}))
    times = {"early": -49.0, "on": -10.0, "soon": -9.9, "late": 1.0, "many": 2.0, "more": 3.0, "closed": 99.0}
    found = rules.judge("7", [_attempt(hours, name=name) for name, hours in times.items()])
    assert {name: found[name].timing for name in times} == {
        "early": Timing.ON_TIME, "on": Timing.ON_TIME, "soon": Timing.ON_TIME, "late": Timing.LATE,
        "many": Timing.LATE, "more": Timing.MANY, "closed": Timing.LATE,
    }  # fmt: skip
    assert [name for name in times if found[name].counts] == ["closed"]
    assert (found["closed"].penalty, found["closed"].final_mark) == (2.5, 5.5)
    assert rules.refusal("7", [_attempt(-10, name="on")], _DUE + 99 * _HOUR) is Timing.CLOSED


@pytest.mark.parametrize(
    ("counts", "attempts", "wanted"),
    [
        (Counts.LATEST, [(-3, 9), (-2, 5), (1, 7)], 2),
        (Counts.LATEST, [(-3, 9), (99, 5)], 0),
        (Counts.BEST, [(-3, 5), (-2, 8), (1, 8.5)], 1),  # late, 1 is taken off
        (Counts.BEST, [(-3, 5), (-2, 5)], 0),
        (Counts.BEST, [(-3, None), (-2, None)], 1),
        (Counts.BEFORE_DUE, [(-3, 9), (-2, 5), (1, 10)], 1),
        (Counts.BEFORE_DUE, [(1, 5), (2, 10)], 0),
        (Counts.BEFORE_DUE, [(99, 5)], None),
    ],
)
def test_the_policy_says_which_attempt_counts(
    counts: Counts, attempts: list[tuple[float, float | None]], wanted: int | None
) -> None:
    made = [_attempt(hours, mark, name=str(place)) for place, (hours, mark) in enumerate(attempts)]
    found = replace(_RULES, counts=counts).judge("7", list(reversed(made)))
    assert [place for place in range(len(made)) if found[str(place)].counts] == ([] if wanted is None else [wanted])


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.none() | st.floats(0, 12)), max_size=8),
    st.sampled_from(Counts), st.none() | st.integers(1, 3), st.floats(0, 4000), st.sampled_from(["7", "8"]),
)  # fmt: skip
def test_at_most_one_attempt_counts_and_no_penalty_makes_a_mark_better(
    attempts: list[tuple[float, float | None]], counts: Counts, most: int | None, pause: float, student: str
) -> None:
    rules = replace(_RULES, counts=counts, attempts=most, pause=pause)
    made = [_attempt(hours, mark, name=str(place)) for place, (hours, mark) in enumerate(attempts)]
    found = rules.judge(student, made)
    can = [one for one in found.values() if one.timing in (Timing.ON_TIME, Timing.LATE)]
    assert sum(one.counts for one in found.values()) == min(len(can), 1)
    assert all(one in can for one in found.values() if one.counts)
    assert most is None or len(can) <= most
    for one in made:
        judged = found[one.id]
        assert (judged.final_mark is None) == (one.mark is None)
        assert judged.final_mark is None or 0 <= judged.final_mark <= (one.mark or 0) + 1e-6


def _configured(folder: Path, text: str) -> Course:
    path = folder / "grading.toml"
    path.write_text(f'[modules.cloud_computing]\nshort = "cc"\n{text}\n')
    return load_course(path)


def test_a_configuration_with_everything(tmp_path: Path) -> None:
    known = _configured(
        tmp_path,
        "opens = 2026-11-01T08:00:00+01:00\ndue = 2026-11-15T12:00:00Z\ncloses = 2026-11-18T12:00:00Z\ngrace = 60\n"
        'late = { per_day = 10, cap = 25 }\nattempts = 3\npause = 600\ncounts = "best"\n'
        'accepted = ["a1"]\n'
        "[modules.cloud_computing.extensions]\n8 = 2026-11-16T12:00:00Z\n",
    ).module("cloud_computing")
    opens = datetime(2026, 11, 1, 7, tzinfo=UTC)
    assert known.deadlines == replace(
        _RULES, opens=opens, attempts=3, pause=600.0, counts=Counts.BEST, accepted=frozenset({"a1"})
    )
    assert CC.deadlines is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("due = 2026-11-15T12:00:00", "not a time with an offset from UTC"),
        ('due = "2026-11-15T12:00:00Z"', "without quotes"),
        ("due = 2026-11-15", "not a time"),
        ("due = 0001-01-01T00:00:00Z", "use a year from 1971 to 2999"),
        ("opens = 2026-11-15T12:00:00Z\ndue = 2026-11-14T12:00:00Z", "due is before opens"),
        ("due = 2026-11-15T12:00:00Z\ncloses = 2026-11-14T12:00:00Z", "closes is before due"),
        ('late = "always"', "late must be"),
        ("late = { per_week = 3 }", "late must be"),
        ("late = { per_day = 101 }", "late.per_day is 101"),
        ("late = { fixed = true }", "late.fixed is True"),
        ("grace = -1", "grace is -1"),
        ("pause = nan", "pause is nan"),
        ("attempts = 0", "attempts is 0"),
        ("attempts = true", "attempts is True"),
        ('counts = "worst"', "use latest, best, last-before-due"),
        ("counts = [1]", "counts is"),
        ("accepted = [7]", "accepted is [7], which is no list"),
        ("extensions = { 8 = 2026-11-16T12:00:00Z }", "nothing to extend"),
        ("due = 2026-11-15T12:00:00Z\nextensions = 3", "extensions must be a table"),
        ("due = 2026-11-15T12:00:00Z\nextensions = { 8 = 3 }", "extensions.8 is not a time"),
        ("deadline = 3", "unknown key 'deadline'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=r"grading.toml: \[modules.cloud_computing\]") as error:
        _configured(tmp_path, text)
    assert why in str(error.value)


def test_judgements_are_told_in_words() -> None:
    assert said(Judged(Timing.LATE, 93_600, 2.0, 6.0, True).as_dict()) == "1 d 2 h late, 2 off"
    assert said(Judged(Timing.LATE, 61, 0.0, None, True).as_dict()) == "1 min 1 s late"
    assert said(Judged(Timing.MANY, 0, 0.0, 0.0, False).as_dict()) == "does not count: more attempts than allowed"
    assert said(Judged(Timing.ON_TIME, 0, 0.0, 8.0, True).as_dict()) == said({}) == ""
    assert [duration(seconds) for seconds in (0.2, 3_600, 86_400 * 3 + 5)] == ["1 s", "1 h", "3 d 5 s"]


# -- clocks ----------------------------------------------------------------------------------------------


def _handed_in(taken: datetime, student: int = 7) -> tuple[Assignment, Assignment]:
    """Return a submission as announced by a student's clock of 2001, and as corrected by a role that took it then."""
    made = submission(student, CC.name, b"x", "x.py", "")
    made["SubmissionID"] = new_id(made)
    made.history[0]["when"] = "2001-01-01T00:00:00+00:00"
    own = Assignment(made | {HISTORY: [made.history[0] | {"when": _at(taken)}]})
    return made, decide(own, ROLES["demonstrator"], "correct", Decision("automatic", 8.0, 10.0))


@pytest.mark.parametrize(
    ("due_in", "taken_in", "is_announced", "timing"),
    [
        (_HOUR, timedelta(), False, Timing.ON_TIME),
        (-_HOUR, timedelta(), False, Timing.LATE),  # whatever the student's clock says
        (_HOUR, 9 * _HOUR, False, Timing.ON_TIME),  # a role's clock that is ahead, but the records are told at once
        (_HOUR, 9 * _HOUR, True, Timing.ON_TIME),
        (-_HOUR, -2 * _HOUR, False, Timing.ON_TIME),  # the first taker's clock counts
    ],
)
def test_the_clock_of_the_first_taker_counts(
    database: Database, due_in: timedelta, taken_in: timedelta, is_announced: bool, timing: Timing
) -> None:
    began = datetime.now(UTC)
    announced, corrected = _handed_in(began + taken_in)
    reports = [Progress.of(announced)] if is_announced else []
    for report in (*reports, Progress.of(corrected)):
        database.write_now(partial(course.record, assignment=Assignment(report)))
    module = replace(CC, deadlines=Deadlines(due=began + due_in))
    known = Course({CC.name: module})
    found = database.read_now(partial(judging.described, given=announced.id, course=known))
    assert (found["timing"], found["counts"]) == (timing, True)


# -- in the whole system ---------------------------------------------------------------------------------


async def test_results_and_students_are_told(broker_url: str, one_database: Database) -> None:
    due = datetime.now(UTC) - timedelta(hours=30)
    module = replace(CC, deadlines=Deadlines(due=due, per_day=10.0, attempts=1))
    wiring = Wiring(Course({CC.name: module}))

    def mark(solution: bytes, name: str) -> Decision:
        return Decision("automatic", 7.5, 10.0)

    forged = {"FinalMark": 10, "Timing": "on time", "SubmittedAt": "2001-01-01T00:00:00+00:00", "Penalty": -5}
    async with role_set(broker_url, one_database, wiring=wiring, markers={CC.name: mark}):
        with Plain(broker_url) as plain:
            read_results(plain)
            plain.send("demonstrator_cc", FOUR | forged)
            (first,) = await asyncio.to_thread(plain.take, "results_queue")
            plain.send("demonstrator_cc", FOUR | {"Solution": "again"})
            (second,) = await asyncio.to_thread(plain.take, "results_queue")
        async with Asking(broker_url) as asking:
            told = await asking.ask(first["SubmissionID"])
    assert told is not None
    assert (told["timing"], told["penalty"], told["final_mark"], told["counts"]) == ("late", 2.0, 5.5, True)
    assert (first["Mark"], first["Penalty"], first["FinalMark"], first["Timing"]) == (7.5, 2.0, 5.5, "late")
    assert first["SubmittedAt"] == told["submitted_at"]
    assert 30 * 3600 <= first["LateSeconds"] < 31 * 3600
    assert (second["Timing"], second["FinalMark"]) == (Timing.MANY, 0.0)


async def test_without_deadlines_a_result_has_no_more_fields(broker_url: str, one_database: Database) -> None:
    async with role_set(broker_url, one_database):
        with Plain(broker_url) as plain:
            read_results(plain)
            plain.send("demonstrator_cc", FOUR)
            (result,) = await asyncio.to_thread(plain.take, "results_queue")
    assert {*result} == {*FOUR, "SubmissionID", "History"}


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Records with a late submission of 7 and one of 9 in time, in a course that the commands find."""
    due, soon = datetime.now(UTC) - 2 * _HOUR, datetime.now(UTC) + _HOUR
    _configured(
        tmp_path,
        f"due = {due.isoformat()}\ncloses = {soon.isoformat()}\nlate = {{ fixed = 20 }}\nattempts = 1\n"
        f"[modules.cloud_computing.extensions]\n9 = {soon.isoformat()}\n"
        f'[modules.shut]\nshort = "shut"\ncloses = {due.isoformat()}\n',
    )
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "grading.toml"))
    url = database_url
    monkeypatch.setenv("RABBITRY_DATABASE", url)
    with Database(url) as database:
        for student in (7, 9):
            _, corrected = _handed_in(datetime.now(UTC), student)
            database.write_now(partial(course.record, assignment=corrected))
    return url


def test_the_export_has_the_judgements(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _root.run(("grading", "export", "--format", "json")) == 0
    rows: dict[str, Any] = {row["student"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (rows["7"]["timing"], rows["7"]["penalty"], rows["7"]["final_mark"]) == ("late", 2.0, 6.0)
    assert (rows["9"]["timing"], rows["9"]["final_mark"], rows["9"]["counts"]) == ("on time", 8.0, True)
    assert _root.run(("grading", "status", rows["7"]["id"], "--database", url)) == 0
    assert re.search(r"\n2 h.* late, 2 off\n", capsys.readouterr().out)
    assert _root.run(("grading", "export")) == 0
    assert '"timing","late_seconds","penalty","final_mark","counts"' in capsys.readouterr().out


def test_the_seconds_that_are_left_are_those_of_the_student() -> None:
    rules = Deadlines(due=_DUE, closes=_DUE + _HOUR, extensions={"9": _DUE + 3 * _HOUR})
    at = _DUE + _HOUR / 2
    assert rules.left("7", at) == {
        "opens": None,
        "due": {"at": "2026-11-15T12:00:00.000000+00:00", "seconds": -1800, "is_over": True},
        "closes": {"at": "2026-11-15T13:00:00.000000+00:00", "seconds": 1800, "is_over": False},
    }
    assert [rules.left("9", at)[name]["seconds"] for name in ("due", "closes")] == [9000, 12600]


def test_nothing_is_over_within_the_grace() -> None:
    rules = Deadlines(due=_DUE, closes=_DUE, grace=600.0)
    for seconds, is_over in ((600, False), (601, True)):
        at = _DUE + timedelta(seconds=seconds)
        assert [rules.left("7", at)[name]["is_over"] for name in ("due", "closes")] == [is_over] * 2
        assert (rules.refusal("7", [], at) is not None) == is_over


async def test_the_page_refuses_what_could_not_count(url: str, broker_url: str) -> None:
    served = Served(broker_url, url)
    async with served.pages.open(), served.http as http:
        overview = (await http.get("/api/overview")).json()
        found, deadlines = overview["submissions"], overview["deadlines"]
        assert {*deadlines} == {"cloud_computing", "shut"}
        assert [-7300 < deadlines[name]["due"]["seconds"] < -7000 for name in sorted(deadlines)] == [True, True]
        assert 3000 < deadlines["cloud_computing"]["closes"]["seconds"] < 3600
        assert deadlines["shut"]["opens"] is None
        assert {one["student"]: (one["timing"], one["final_mark"]) for one in found} == {
            "7": ("late", 6.0),
            "9": ("on time", 8.0),
        }
        for student, module, why in (
            ("7", "cloud_computing", "it is more attempts than allowed"),
            ("11", "shut", "it is after it closed"),
            ("11", "cloud_computing", None),
        ):
            answer = await http.post("/api/submissions", **form(student, module))
            assert answer.status_code == (200 if why is None else 400), answer.text
            assert why is None or why in answer.json()["error"]
        late = form("11", "shut", b"late")
        late["data"]["anyway"] = "true"
        answer = await http.post("/api/submissions", **late)
        assert answer.status_code == 200, answer.text
        identity, wiring, files = answer.json()["id"], Wiring(load_course()), Files(default_place(url))
        specs = [RoleSpec("demonstrator", wiring.course.module("shut")), RoleSpec("coordinator")]
        with Database(url) as database:

            def kept() -> bool:
                rows = database.read_now(course.submissions_of)
                return any(row.id == identity and row.kept is not None for row in rows)

            async with role_set(broker_url, database, specs, files=files, wiring=wiring):
                await eventually(kept, "the file to be kept", within=WITHIN)
        shown = (await http.get(f"/api/submissions/{identity}")).json()
        assert (shown["timing"], shown["counts"], shown["size"]) == ("after it closed", False, 4)


def test_a_student_s_program_warns_but_does_not_refuse(
    url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RABBITRY_BROKER", broker_url)
    (tmp_path / "x.py").write_text("x")
    assert _root.run(("grading", "submit", str(tmp_path / "x.py"), "--student", "7", "--module", "shut")) == 0
    printed, told = capsys.readouterr()
    assert "by this machine's clock, the submission of student 7 comes after it closed; the records decide" in told
    assert len(printed.strip()) == 32
