"""Statistics of a module: marks of what counts, how long each role takes, who waits longest."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from sqlalchemy import Connection, insert, update

from rabbitry.apps.grading.blind import Blind
from rabbitry.apps.grading.deadlines import Deadlines, Judged
from rabbitry.apps.grading.message import Assignment, Decision, submission
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.personal import PersonalMark
from rabbitry.apps.grading.records import Database, course, keeping, requests
from rabbitry.apps.grading.records.course import Filter, Hop, Submission
from rabbitry.apps.grading.records.judging import judged
from rabbitry.apps.grading.records.schema import history, submissions
from rabbitry.apps.grading.records.statistics import LONGEST, statistics_of
from rabbitry.apps.grading.roles import ROLES, decide, role_named
from rabbitry.cli import _root
from tests.apps.grading._running import CC

_BEGUN: Final = datetime(2026, 11, 1, tzinfo=UTC)


def _recorded(database: Database, student: int, mark: float | None, seconds: tuple[float, ...]) -> str:
    """Record a submission whose hops came so many seconds after one another, and confirm it after the third."""
    begun = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=student)
    made = Assignment(submission(student, "cloud_computing", b"x", "x.py", f"id{student}"))
    way = [made]
    for role in list(ROLES.values())[: len(seconds)]:
        given = Decision("ann", mark, 10.0) if role.name == "demonstrator" and mark is not None else Decision("ann")
        way.append(decide(way[-1], role, role.actions[0], given, by_scheme=True))
    last = way[-1]
    for place, hop in enumerate(last.history):
        hop["when"] = (begun + timedelta(seconds=sum(seconds[:place]))).isoformat(timespec="microseconds")
    if len(seconds) == len(ROLES):
        database.write_now(partial(course.confirm, assignment=last, message=f"m{student}"))
    else:
        database.write_now(partial(course.record, assignment=last))
    return last.id


@pytest.fixture
def filled(database: Database) -> Database:
    """Records of four confirmed submissions, and two that wait."""
    for student, (mark, took) in enumerate([(0.0, 10.0), (4.9, 20.0), (5.0, 30.0), (11.0, 400.0)], 1):
        _recorded(database, student, mark, (took, 1.0, 2.0))
    _recorded(database, 5, None, (5.0,))
    _recorded(database, 6, None, ())
    return database


def test_marks_durations_and_waits_of_a_module(filled: Database) -> None:
    found = filled.read_now(partial(statistics_of, module="cloud_computing", course=Course()))
    assert (found["submissions"], found["students"]) == (6, 6)
    marks = found["marks"]
    assert marks["classes"] == [1, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert (marks["given"], marks["without"], marks["least"], marks["most"]) == (4, 2, 0.0, 1.1)
    assert (marks["median"], round(marks["mean"], 4)) == (0.495, 0.5225)
    stages = {one["stage"]: (one["number"], one["p50"], one["p95"]) for one in found["stages"]}
    assert stages["demonstrator"] == (5, 20.0, 400.0)
    assert stages["assistant"] == (4, 1.0, 1.0)
    assert stages["coordinator"] == (4, 2.0, 2.0)
    assert stages["all"] == (4, 23.0, 403.0)
    assert [(one["student"], one["status"], one["role"]) for one in found["waiting"]] == [
        ("5", "corrected", "assistant"),
        ("6", "submitted", "demonstrator"),
    ]
    assert all(0 <= one["seconds"] < 600 for one in found["waiting"])


def test_open_work_is_told_for_each_person(filled: Database) -> None:
    """A submission that was sent back waits for who corrected it, and a request for who gave the mark."""
    back = Assignment(submission(7, "cloud_computing", b"x", "x.py", "id7"))
    for role, action, decision in (
        ("demonstrator", "correct", Decision("ben", 3.0, 10.0)),
        ("assistant", "send-back", Decision("cleo", remark="why?")),
    ):
        back = decide(back, role_named(role), action, decision)
        filled.write_now(partial(course.record, assignment=back))
    automatic = submission(8, "cloud_computing", b"x", "x.py", "id8")
    filled.write_now(
        partial(course.record, assignment=decide(automatic, ROLES["demonstrator"], "correct", Decision("automatic")))
    )
    filled.write_now(partial(requests.ask, given="id1", student="1", reason="why?", message="m", least=1))
    found = filled.read_now(partial(statistics_of, module="cloud_computing", course=Course()))
    work = {(one["role"], one["who"]): one for one in found["work"]}
    told = {who: (one["waiting"], one["requests"], one["decided"]) for who, one in work.items()}
    assert told == {
        ("demonstrator", None): (1, 0, 0),
        ("demonstrator", "ann"): (0, 1, 5),
        ("demonstrator", "ben"): (1, 0, 1),
        ("assistant", None): (2, 0, 0),
        ("assistant", "ann"): (0, 0, 4),
        ("assistant", "cleo"): (0, 0, 1),
        ("coordinator", "ann"): (0, 0, 4),
    }
    waits = [one["seconds"] for one in found["work"]]
    assert waits[4:] == [None] * 3, "who has nothing to do comes last"
    assert sorted(waits[:4], reverse=True) == waits[:4]
    assert work["demonstrator", "ben"]["last_at"] == back.history[1]["when"]


def test_work_of_several_demonstrators_is_told_for_each_of_them(filled: Database) -> None:
    made = submission(7, "cloud_computing", b"x", "x.py", "id7")
    for role, action, decision in (
        (
            "demonstrator",
            "correct",
            Blind(2).joint([PersonalMark("Roe, Ben", 3.0, 10.0), PersonalMark("dan", 5.0, 10.0)]),
        ),
        ("assistant", "send-back", Decision("cleo", remark="why?")),
    ):
        made = decide(made, role_named(role), action, decision)
        filled.write_now(partial(course.record, assignment=made))
    read = partial(statistics_of, module="cloud_computing", course=Course())
    told = {(one["role"], one["who"]): (one["waiting"], one["decided"]) for one in filled.read_now(read)["work"]}
    assert [told["demonstrator", who] for who in ("Roe, Ben", "dan", "ann")] == [(1, 1), (1, 1), (0, 5)]
    assert ("demonstrator", "Roe") not in told


@pytest.mark.parametrize("rules", [None, Deadlines(attempts=2, due=_BEGUN + timedelta(minutes=20), fixed=10.0)])
def test_the_database_finds_what_reading_every_row_does(database: Database, rules: Deadlines | None) -> None:
    """Of random histories: sent back, marked again, asked about, declined, and with clocks that go back."""
    known = Course({CC.name: replace(CC, deadlines=rules)})
    database.write_now(partial(_fill, chance=Random(16)))
    found = database.read_now(partial(statistics_of, module=CC.name, course=known))

    def read(connection: Connection) -> tuple[list[Submission], dict[str, Judged], dict[str, list[Hop]]]:
        rows = course.submissions_of(connection, Filter(module=CC.name))
        return rows, judged(connection, rows, known), course.histories(connection)

    rows, judgements, hops = database.read_now(read)
    counting = [row for row in rows if judgements[row.id].counts]
    marks = [judgements[row.id].final_mark for row in counting]
    given = [mark / 10 for mark in marks if mark is not None]
    assert given
    assert (found["submissions"], found["students"]) == (len(rows), len({row.student for row in rows}))
    assert found["declined"] == sum(row.status == "declined" for row in rows) > 0
    assert (found["marks"]["given"], found["marks"]["without"]) == (len(given), len(marks) - len(given))
    assert found["marks"]["mean"] == pytest.approx(sum(given) / len(given))
    took = _took([hops[row.id] for row in rows])
    assert took["all"]
    for stage in found["stages"]:
        ordered = sorted(took[stage["stage"]])
        ranks = {f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95)}
        assert stage == {"stage": stage["stage"], "number": len(ordered), **ranks}
    waiting = sorted((row.updated_at, row.id) for row in rows if row.status not in ("confirmed", "declined"))
    assert [one["id"] for one in found["waiting"]] == [identity for _, identity in waiting[:LONGEST]]
    decided = Counter((hop.role, hop.who) for row in rows for hop in hops[row.id] if _is_decision(hop))
    assert {(one["role"], one["who"]): one["decided"] for one in found["work"] if one["decided"]} == decided
    waits = Counter((role, who) for row in rows for role, who in [_waits_for(row, hops[row.id])] if role)
    assert {(one["role"], one["who"]): one["waiting"] for one in found["work"] if one["waiting"]} == waits


def _fill(connection: Connection, chance: Random) -> None:
    """Record 60 submissions of 20 students with random hops."""
    ways = [("demonstrator", "corrected"), ("assistant", "validated"), ("assistant", "submitted"),
            ("coordinator", "confirmed"), ("coordinator", "submitted"), ("student", "asked"),
            ("demonstrator", "declined")]  # fmt: skip
    for number in range(60):
        at, step, status = _BEGUN + timedelta(minutes=number), 1, "submitted"
        hops = [{"role": "student", "status": status, "who": "x", "at": at}]
        while status != "declined" and chance.random() < 0.9 and len(hops) < 12:
            follows = {"submitted": ways[0], "corrected": ways[1], "validated": ways[3], "confirmed": ways[5]}
            role, status = follows.get(status, ways[4]) if chance.random() < 0.8 else chance.choice(ways)
            at += timedelta(milliseconds=chance.randint(-50, 100_000))
            hops.append({"role": role, "status": status, "who": chance.choice(["ann", "ben", "automatic"]), "at": at})
        rows = []
        for hop in hops:
            rows.append(hop | {"submission": f"id{number}", "step": step, "place": "", "at": _written(hop["at"])})
            step += 1
        connection.execute(insert(history), rows)
        values = {"id": f"id{number}", "student": str(number % 20), "module": CC.name, "name": "", "step": step}
        values |= {"status": status, "mark": chance.choice([None, 3.0, 8.0]), "out_of": 10.0}
        values |= {"submitted_at": _written(hops[0]["at"]), "updated_at": rows[-1]["at"]}
        connection.execute(insert(submissions), values)


def _written(at: Any) -> str:
    return str(at.isoformat(timespec="microseconds"))


def _took(histories: list[list[Hop]]) -> dict[str, list[float]]:
    """Read how long each role took, hop by hop."""
    took: dict[str, list[float]] = defaultdict(list)
    for hops in histories:
        begun = hops[0].at
        for before, hop in pairwise(hops):
            for role in ROLES.values():
                if (before.status, hop.status) == (role.takes, role.gives):
                    took[role.name].append(_between(before.at, hop.at))
                    if hop.status == "confirmed":
                        took["all"].append(_between(begun, hop.at))
            if hop.status == "submitted":
                begun = hop.at
    return took


def _between(earlier: str, later: str) -> float:
    seconds = (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
    return max(round(seconds, 3), 0.0)


def _is_decision(hop: Hop) -> bool:
    given = {"demonstrator": ["corrected"], "assistant": ["validated", "submitted"], "coordinator": ["confirmed"]}
    return hop.status in given.get(hop.role, []) and hop.who != "automatic"


def _waits_for(row: Submission, hops: list[Hop]) -> tuple[str | None, str | None]:
    role = next((role.name for role in ROLES.values() if role.takes == row.status), None)
    return role, next((hop.who for hop in reversed(hops) if hop.role == role and _is_decision(hop)), None)


def test_a_module_without_submissions_has_none(database: Database) -> None:
    found = database.read_now(partial(statistics_of, module="data_mining", course=Course()))
    assert (found["submissions"], found["waiting"], found["work"], found["marks"]["mean"]) == (0, [], [], None)
    assert {one["p50"] for one in found["stages"]} == {None}


@pytest.mark.parametrize(("mark", "out_of"), [(1e308, 1e-300), (-1e308, 1.0), (1e308, 1.0)])
def test_forged_marks_are_in_no_mean(filled: Database, mark: float, out_of: float) -> None:
    forged = [_recorded(filled, student, 1.0, (1.0, 1.0, 1.0)) for student in range(10, 13)]
    values = update(submissions).where(submissions.c.id.in_(forged)).values(mark=mark, out_of=out_of)
    filled.write_now(lambda connection: connection.execute(values))
    marks = filled.read_now(partial(statistics_of, module="cloud_computing", course=Course()))["marks"]
    assert (marks["given"], sum(marks["classes"]), round(marks["mean"], 4)) == (7, 4, 0.5225)


def test_the_command_prints_them(
    filled: Database,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RABBITRY_DATABASE", database_url)
    monkeypatch.delenv("RABBITRY_FILES", raising=False)
    filled.write_now(partial(keeping.agree, found={"ab" * 32: 1234}, gone=()))
    filled.write_now(partial(course.note_place, place=str(tmp_path / "kept")))
    assert _root.run(("grading", "stats")) == 0
    said = capsys.readouterr().out
    assert "cloud_computing: 6 submissions of 6 students" in said
    assert "demonstrator       5 times, median 20.0 s, 95 % within 6.7 min" in said
    assert "any assistant: 1 submission to do since" in said
    assert "demonstrator ann: 0 submissions to do; 5 decided, the last 2026-11-01T00:10:40 UTC" in said
    assert "data_mining: 0 submissions" in said
    assert "kept files: 0.0% of largest_total (1234 of 100000000000 bytes)" in said
    assert _root.run(("grading", "stats", "--module", "cloud_computing", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["marks"]["given"] == 4
