"""`rabbitry grading` on records that are there: ids, lists, saved files, marks, and control characters in them."""

import base64
import csv
import io
import json
from functools import partial
from pathlib import Path

import pytest

import rabbitry
from rabbitry.apps.grading.message import Assignment, submission
from rabbitry.apps.grading.records import Database, course, inbox, outbox
from rabbitry.apps.grading.roles import ROLES, RoleName
from tests.apps.grading._commands import Done, Run


def _put(database: Database, assignment: Assignment, role: RoleName = "demonstrator") -> None:
    """Put an assignment into a role's inbox."""
    put = partial(inbox.put, role=ROLES[role], assignment=assignment, exchange="x", message="m")
    assert database.write_now(put)


@pytest.fixture
def three(database_url: str) -> str:
    """The URL of a database with three recorded assignments in the demonstrator's inbox."""
    with Database(database_url) as database:
        for number, identity in enumerate(("3f2a11", "3f2a22", "9c0000")):
            fields = {"StudentID": f"s{number}", "Solution": "x", "Module": "data_mining", "status": "submitted"}
            one = Assignment(fields | {"SubmissionID": identity, "SolutionName": f"{identity}.py"})
            _put(database, one)
            database.write_now(partial(course.record, assignment=one))
    return database_url


COMMANDS = [("inbox", "show"), ("inbox", "save"), ("inbox", "decide", "--mark", "1"), ("status",)]


@pytest.mark.parametrize("command", COMMANDS, ids=["show", "save", "decide", "status"])
def test_a_unique_prefix_of_an_id_is_enough(
    command: tuple[str, ...], run: Run, three: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for identity, why in (("3f2a", "several ids: 3f2a11, 3f2a22"), ("ffff", "ffff"), ("", "''")):
        done = run(*command, identity, "--database", three)
        assert (done.returncode, why in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr
    assert run(*command, "3f2a2", "--database", three).returncode == 0
    assert run(*command, "9c", "--database", three).returncode == 0


def test_lists_are_filtered_and_cut(run: Run, three: str) -> None:
    def ids(*arguments: str) -> list[str]:
        return [
            json.loads(line)["id"]
            for line in run("inbox", "list", *arguments, "--json", "--database", three).stdout.splitlines()
        ]

    assert ids() == ["3f2a11", "3f2a22", "9c0000"]
    assert ids("--find", "s1") == ["3f2a22"]
    assert ids("--find", "3f2a", "--limit", "1", "--offset", "1") == ["3f2a22"]
    assert ids("--module", "cloud_computing") == []
    nothing = run("inbox", "list", "--module", "cloud_computing", "--database", three)
    assert (nothing.returncode, nothing.stdout, "no submission waits" in nothing.stderr) == (0, "", True)
    assert "no results" in run("results", "--database", three).stderr
    assert run("results", "--follow", "--limit", "1").returncode == 2


def test_a_saved_file_is_as_submitted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = bytes(range(256)) * 3
    with Database(database_url) as database:
        one = submission("007", "data_mining", data, "../.hidden/../r\u202eport.zip", "3f2a11")
        _put(database, one)
        _put(database, Assignment(one | {"History": []}), "assistant")
    done = run("inbox", "save", "3f2a", "--database", database_url)
    assert (done.returncode, done.stdout) == (0, "r_port.zip\n")
    assert (tmp_path / "r_port.zip").read_bytes() == data
    again = run("inbox", "save", "3f2a", "--database", database_url)
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    assert run("inbox", "save", "3f2a", "other.zip", "--database", database_url).returncode == 0
    assert (tmp_path / "other.zip").read_bytes() == data
    assert run("inbox", "save", "3f2a", "no/folder.zip", "--database", database_url).returncode == 1
    shown = run("inbox", "show", "3f2a", "--role", "demonstrator", "--database", database_url).stdout
    assert "768 bytes of binary data" in shown
    as_json = json.loads(
        run("inbox", "show", "3f2a", "--role", "demonstrator", "--json", "--database", database_url).stdout
    )
    assert base64.b64decode(as_json["solution"]) == data
    assert (as_json["encoding"], as_json["student"]) == ("base64", "007")


def test_a_mark_is_never_dropped_silently(
    run: Run, three: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "course.toml"
    config.write_text("undo = 0\n")  # what is decided may be claimed at once

    def decide(*arguments: str) -> Done:
        return run("inbox", "decide", *arguments, "--database", three, "--config", str(config))

    refused = decide("9c")
    assert (refused.returncode, "--no-mark" in refused.stderr) == (2, True)
    assert decide("9c", "--no-mark", "--mark", "1").returncode == 2
    assert "no mark" in decide("9c", "--no-mark").stdout
    back = [{"role": "assistant", "status": "submitted", "remark": "again"}]
    fields = {"StudentID": 7, "Solution": "x", "status": "submitted", "Mark": 8, "OutOf": 10, "Feedback": "good"}
    with Database(three) as database:
        for number in range(3):
            one = Assignment(fields | {"SubmissionID": f"back{number}", "History": back, "Remarks": ["again"]})
            _put(database, one)
    assert decide("back0").stdout == "back0  corrected  8 of 10\n"
    assert decide("back1", "--feedback", "better").stdout == "back1  corrected  8 of 10\n"
    assert decide("back2", "--mark", "9.25", "--out-of", "12").stdout == "back2  corrected  9.25 of 12\n"
    with Database(three) as database:
        sent = [
            json.loads(letter.body)
            for letter in database.write_now(partial(outbox.claim, roles=["demonstrator"]))
            if letter.type == "Assignment"
        ]
    assert [one.get("Feedback") for one in sent[-3:]] == ["good", "better", "good"]


def test_a_spreadsheet_shows_what_is_in_the_csv(run: Run, database_url: str) -> None:
    altered = ["007", "123456789012345678", "1e5", "mar1", "3-4", "TRUE"]
    students = {name: f"'{name}" for name in altered} | {name: name for name in ("s1234567", "23200858")}
    moved = [{"role": "student"}, {"role": "demonstrator"}]
    with Database(database_url) as database:
        for number, student in enumerate(students):
            fields = {"StudentID": student, "status": "corrected", "SubmissionID": f"id{number}", "History": moved}
            one = Assignment(fields | {"Mark": 1 / 3, "OutOf": 0.1 + 0.2, "Feedback": "✔ é"})
            database.write_now(partial(course.record, assignment=one))
    exported = run("export", "--database", database_url).stdout
    assert exported.startswith("\ufeff")
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(exported.removeprefix("\ufeff")))}
    assert set(rows) == set(students.values())
    assert {(row["mark"], row["out_of"], row["feedback"]) for row in rows.values()} == {("0.33", "0.3", "✔ é")}


def test_student_numbers_follow_the_configuration(more: dict[str, str], run: Run, file: Path, tmp_path: Path) -> None:
    config = tmp_path / "numbers.toml"
    config.write_text("student_number = 's[0-9]{7}|0*[0-9]{3,8}'\n")
    rest = ("--module", "data_mining", "--config", str(config), "--json")
    folder = tmp_path / "all"
    folder.mkdir()
    for name in ("s1234567_report.py", "0071.py"):
        (folder / name).write_text("x")
    rows = [json.loads(line) for line in run("submit", str(folder), *rest).stdout.splitlines()]
    assert [row["student"] for row in rows] == ["0071", "s1234567"]
    assert json.loads(run("submit", str(file), "--student", "23200858", *rest).stdout)["student"] == 23200858
    for wrong in ("x1234567", "s123", "s1234567x", "12", "s1234567\n"):
        done = run("submit", str(file), "--student", wrong, *rest)
        assert (done.returncode, "not a student number" in done.stderr) == (2, True), wrong
    (folder / "s1234567x.py").write_text("x")
    assert "the name does not begin with a student number" in run("submit", str(folder), *rest).stderr
    config.write_text("student_number = '([a-z'\n")
    assert "not a regular expression" in run("submit", str(file), "--student", "7", *rest).stderr
    config.write_text("student_number = '(a|aa)+b'\n")
    done = run("submit", str(file), "--student", "a" * 150, *rest)
    assert (done.returncode, "too long" in done.stderr) == (2, True)


def test_a_number_that_begins_with_zero_keeps_it(more: dict[str, str], run: Run, file: Path) -> None:
    done = run("submit", str(file), "--student", "007", "--module", "data_mining", "--json")
    assert json.loads(done.stdout)["student"] == "007"
    with rabbitry.connect_blocking(more["RABBITRY_BROKER"]) as connection, connection.channel() as channel:
        message = channel.get("correction_queue_dm")
        assert message is not None
        assert json.loads(message.body)["StudentID"] == "007"


def test_direction_control_characters_are_shown(run: Run, three: str) -> None:
    with Database(three) as database:
        fields = {"StudentID": 7, "Solution": "if admin\u202e # x\u2066:\n\ty", "status": "submitted"}
        more = {"SubmissionID": "bidi", "SolutionName": "a\u202eyp.b", "Remarks": ["\u200fx"]}
        _put(database, Assignment(fields | more))
    shown = run("inbox", "show", "bidi", "--database", three).stdout
    assert "if admin<U+202E> # x<U+2066>:\n    y" in shown
    assert "a<U+202E>yp.b" in shown
    assert "<U+200F>x" in shown


def test_a_scheme_s_bonus_stays_if_it_is_sent_back(run: Run, three: str) -> None:
    back = [{"role": "assistant", "status": "submitted", "remark": "again"}]
    fields = {"StudentID": 7, "Solution": "x", "status": "submitted", "Mark": 11, "OutOf": 10, "SubmissionID": "bonus"}
    with Database(three) as database:
        _put(database, Assignment(fields | {"History": back, "Remarks": ["again"]}))
    assert run("inbox", "decide", "bonus", "--mark", "12", "--out-of", "10", "--database", three).returncode == 2
    assert run("inbox", "decide", "bonus", "--database", three).stdout == "bonus  corrected  11 of 10\n"
