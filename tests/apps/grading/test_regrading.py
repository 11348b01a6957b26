"""Marking again: through all roles, with the old marks in the history, each once, also after a kill."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Connection, delete, update

from rabbitry.apps.grading import looking
from rabbitry.apps.grading import regrading as doing
from rabbitry.apps.grading.deadlines import Counts, Deadlines
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.message import HISTORY, LONGEST_TEXT, Assignment, Decision, submission
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.receiving import again, fields_handed_in, is_sealed, new_id
from rabbitry.apps.grading.records import Database, course, judging, outbox, regrading, schema
from rabbitry.apps.grading.records.regrading import Selection
from rabbitry.apps.grading.records.schema import outbox as outbox_table
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.cli import _root
from tests.apps.grading import _running
from tests.apps.grading._running import CC, ON_BOTH_DATABASES, PEOPLE, Plain, arrived, history, recorded, role_set
from tests.apps.grading.test_pipeline import FOUR, WAY, read_results
from tests.support import commands
from tests.support.waiting import eventually_blocking

pytestmark = pytest.mark.timeout(180)
_AGAIN = [*WAY, ("coordinator", "submitted"), *WAY[1:]]
_ALL = Selection(CC.name)


def _confirmed(
    database: Database, files: Files, student: int, data: bytes, *, mark: float = 1.0, name: str = "x.py"
) -> str:
    """Record a confirmed submission with its file."""
    made = submission(student, CC.name, data, name, "")
    made["SubmissionID"] = identity = new_id(made)
    for role in ROLES.values():
        given = Decision("automatic", mark, 10.0) if role.name == "demonstrator" else Decision("automatic")
        made = decide(made, role, role.actions[0], given)
    work = partial(course.confirm, assignment=made, message=f"m {identity}", kept=files.keep(data))
    assert database.write_now(work)
    return identity


def _reopened(database: Database, files: Files, selection: Selection = _ALL) -> list[Assignment]:
    """Do what the command does."""
    run = database.write_now(partial(regrading.begin, selection=selection, course=Course(), who="ann", remark="mended"))
    made = []
    for identity in run.left:
        found = database.read_now(partial(course.submission_of, given=identity))
        assert found.kept is not None
        work = partial(regrading.reopen, run=run, identity=identity, data=files.fetch(found.kept), course=Course())
        made.append(database.write_now(partial(work, exchange="assignment_exchange")))
    assert database.write_now(partial(regrading.end, run=run)) == 0
    return [one for one in made if one is not None]


def _selected(database: Database, selection: Selection, course: Course) -> list[dict[str, Any]]:
    """Return what is selected, in parts as a coordinator sends it; they must be what is read at once."""
    asked, found = Look("regradable", **asdict(selection)), list[dict[str, Any]]()
    following: dict[str, str] | None = {}
    while following is not None:
        asked = structs.replace(asked, **following)
        page = database.read_now(partial(looking.read, asked=asked, course=course))
        found, following = found + page["rows"], page["next"]
    asked = Look("regradable", **asdict(selection))
    assert found == database.read_now(partial(looking.regradable, asked=asked, course=course))
    return found


def _able(database: Database, selection: Selection, course: Course) -> set[str]:
    """Return what can be marked again; a run must take the same."""
    able = {row["id"] for row in _selected(database, selection, course) if row["reason"] is None}
    begin = partial(regrading.begin, selection=selection, course=course, who="ann", remark="mended")

    def begun(connection: Connection) -> tuple[str, ...]:
        with connection.begin_nested() as savepoint:
            run = begin(connection)
            savepoint.rollback()
        return run.left

    assert set(database.write_now(begun)) == able
    return able


@pytest.mark.parametrize(
    "fields",
    [
        FOUR,
        FOUR | {"Extra": {"deep": [1, None, "ü"]}, "StudentID": "007"},
        {"StudentID": 9, "Answer": 42},
        {"StudentID": 9, "Answer": None},
        FOUR | {"Solution": "AAEC", "SolutionEncoding": "base64", "SolutionName": "x.bin"},
        FOUR | {"Solution": "AAED\n", "SolutionEncoding": "none"},
    ],
)
def test_a_message_is_made_again_from_its_file_and_its_other_fields(fields: dict[str, object]) -> None:
    handed = Assignment(fields)
    data, kept = handed.file(), fields_handed_in(handed)
    assert data is not None
    assert kept is not None
    assert again(kept, data) == {name: value for name, value in fields.items() if name != "status"}
    assert '"Solution":"' not in kept.decode()
    assert fields_handed_in(Assignment(FOUR | {"Extra": "x" * 1_000_001})) is None


async def test_submissions_are_marked_again_through_all_roles(
    no_leaks: None, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    marks = [3.0]

    def mark(solution: bytes, name: str) -> Decision:
        return Decision("automatic", marks[-1], 10.0, f"{len(solution)} bytes of {name}")

    async with role_set(broker_url, one_database, files=files, markers={CC.name: mark}):
        with Plain(broker_url) as plain:
            read_results(plain)
            mine = await _running.submit(broker_url, data=b"\0\1\2")
            plain.send("demonstrator_cc", FOUR | {"Extra": [1]})
            await recorded(one_database, "confirmed", 2)
            await asyncio.to_thread(plain.take, "results_queue", 2)
            marks.append(8.0)
            reopened = await asyncio.to_thread(_reopened, one_database, files)
            assert len(reopened) == 2
            results = await asyncio.to_thread(plain.take, "results_queue", 2)
        found = await recorded(one_database, "confirmed", 2)
    assert {one.mark for one in found} == {result["Mark"] for result in results} == {8.0}
    assert await history(one_database, mine) == _AGAIN
    for result in results:
        assert is_sealed(Assignment(result))
        assert [hop.get("mark") for hop in result[HISTORY] if hop["role"] == "demonstrator"] == [3.0, 8.0]
        assert [hop["remark"] for hop in result[HISTORY] if "remark" in hop] == result["Remarks"] == ["mended"]
    assert [1] in [result.get("Extra") for result in results]
    shown = await one_database.read(partial(judging.described, given=mine, course=Course()))
    assert [hop["mark"] for hop in shown["history"]] == [None, 3.0, None, None, None, 8.0, None, None]


async def test_people_see_the_earlier_mark_and_the_reason(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    _confirmed(one_database, files, 7, b"x", mark=4.0)
    async with role_set(broker_url, one_database, PEOPLE, files=files):
        await asyncio.to_thread(_reopened, one_database, files)
        (item,) = await arrived(one_database, "demonstrator")
        assert (item.assignment["Mark"], item.assignment.remarks) == (4.0, ["mended"])


def test_what_comes_late_from_the_round_before_changes_nothing(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    identity = _confirmed(database, files, 7, b"x")
    old = database.read_now(partial(course.submission, identity=identity))
    (reopened,) = _reopened(database, files)
    before = Assignment(reopened | {HISTORY: reopened.history[:4], "status": "confirmed", "Mark": 10.0})
    for message in (f"m {identity}", "m2"):
        assert not database.write_now(partial(course.confirm, assignment=before, message=message))
    database.write_now(partial(course.record, assignment=Assignment(before | {HISTORY: before.history[:3]})))
    found = database.read_now(partial(course.submission, identity=identity))
    assert old is not None
    assert found is not None
    assert (found[0].status, found[0].mark, found[0].submitted_at) == ("submitted", 1.0, old[0].submitted_at)
    assert [hop.status for hop in found[1]] == ["submitted", "corrected", "validated", "confirmed", "submitted"]
    later = reopened
    for role in ROLES.values():
        given = Decision("ann", 9.0, 10.0) if role.name == "demonstrator" else Decision("ann")
        later = decide(later, role, role.actions[0], given)
    assert [database.write_now(partial(course.confirm, assignment=later, message=m)) for m in ("m3", "m3", "m4")] == [
        True,
        True,
        False,
    ]


def test_a_selection_takes_what_it_names(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    first, second, third = (_confirmed(database, files, student, b"x") for student in (7, 7, 8))
    since = database.read_now(partial(course.submission_of, given=third)).submitted_at
    other = submission(9, CC.name, b"x", "x.py", "open")
    database.write_now(partial(course.record, assignment=other, kept=files.keep(b"x")))
    for selection, ids in (
        (_ALL, {second, third}),
        (Selection(CC.name, all_attempts=True), {first, second, third}),
        (Selection(CC.name, student="7"), {second}),
        (Selection(CC.name, since=since), {third}),
        (Selection("data_mining"), set()),
    ):
        assert _able(database, selection, Course()) == ids
    every = {row["id"]: row["reason"] for row in _selected(database, _ALL, Course())}
    assert every == {second: None, third: None, "open": "not confirmed yet"}


def test_with_deadlines_what_can_count_is_marked_again(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    first, second, third = (_confirmed(database, files, 7, b"x", mark=mark) for mark in (5.0, 9.0, 1.0))
    for counts, ids in ((Counts.BEST, {first, second}), (Counts.LATEST, {second})):
        known = Course({CC.name: replace(CC, deadlines=Deadlines(attempts=2, counts=counts))})
        assert _able(database, _ALL, known) == ids
    assert _able(database, Selection(CC.name, all_attempts=True), known) == {first, second, third}


def test_what_can_not_be_marked_again_is_in_no_run_and_has_a_reason(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    able, lost, fieldless, declined = (_confirmed(database, files, student, b"x") for student in range(4))

    def spoil(connection: Connection) -> None:
        of = schema.submissions.c.id
        connection.execute(update(schema.submissions).where(of == lost).values(sha256=None, size=None))
        connection.execute(update(schema.submissions).where(of == declined).values(status="declined"))
        connection.execute(delete(schema.handed_in).where(schema.handed_in.c.submission == fieldless))

    database.write_now(spoil)
    assert {row["id"]: row["reason"] for row in _selected(database, _ALL, Course())} == {
        able: None,
        lost: "the file is not kept",
        fieldless: "only the file is kept, not the message's other fields",
    }
    assert _able(database, Selection(CC.name, all_attempts=True), Course()) == {able}


@pytest.mark.parametrize(("name", "most"), [("LOOKED_AT", 1), ("MOST", 2), ("PAGE", 1), ("PAGE", 1000)])
def test_what_is_selected_can_be_had_in_parts_of_any_size(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    files = Files(str(tmp_path / "kept"))
    ids = {_confirmed(database, files, student, b"x") for student in (7, 7, 7, 8, 9, 9)}
    monkeypatch.setattr(looking, name, most)
    every = Selection(CC.name, all_attempts=True)
    assert len(_selected(database, every, Course())) == 6  # none twice
    assert _able(database, every, Course()) == ids
    assert len(_able(database, _ALL, Course())) == 3
    nobody = Look("regradable", module=CC.name, from_student="9\0")
    assert database.read_now(partial(looking.read, asked=nobody, course=Course())) == {"rows": [], "next": None}


def test_two_commands_that_go_on_with_one_run_share_it(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    ids = {_confirmed(database, files, student, b"x") for student in range(1, 21)}
    database.write_now(partial(regrading.begin, selection=_ALL, course=Course(), who="ann", remark="mended"))
    made: list[Assignment] = []
    threads = [threading.Thread(target=lambda: made.extend(_reopened(database, files))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.id for one in made) == sorted(ids)
    assert database.read_now(outbox.count) == 20


def test_a_run_may_have_more_submissions_than_a_query_has_parameters(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regrading, "FEW", 40)
    files = Files(str(tmp_path / "kept"))
    for _ in range(60):
        _confirmed(database, files, 7, b"x")

    def begin(connection: Connection) -> regrading.Run:
        raw = connection.connection.driver_connection
        if isinstance(raw, sqlite3.Connection):
            raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 50)
        every = Selection(CC.name, all_attempts=True)
        return regrading.begin(connection, every, Course(), "ann", "r" * LONGEST_TEXT)

    run = database.write_now(begin)
    assert (len(run.left), run.resumed, len(run.remark)) == (60, 0, LONGEST_TEXT)


class _Kill(BaseException):
    """The end of a process."""


class _Dying:
    """Records of a process that is killed at its step of that number: before a transaction begins or after it ended."""

    def __init__(self, records: Database, number: int, *, is_before: bool) -> None:
        self._records = records
        self._left = number
        self._is_before = is_before

    def read_now(self, work: Callable[[Connection], Any]) -> Any:
        return self._step(self._records.read_now, work)

    def write_now(self, work: Callable[[Connection], Any]) -> Any:
        return self._step(self._records.write_now, work)

    def _step(self, run: Callable[[Callable[[Connection], Any]], Any], work: Callable[[Connection], Any]) -> Any:
        self._left -= 1
        if self._left == 0 and self._is_before:
            raise _Kill
        done = run(work)
        if self._left == 0:
            raise _Kill
        return done


@pytest.mark.parametrize("is_before", [True, False])
def test_a_run_that_is_killed_at_any_step_reopens_each_submission_once(
    database: Database, tmp_path: Path, is_before: bool
) -> None:
    files = Files(str(tmp_path / "kept"))

    def run(records: Any, student: int) -> None:
        """Do what the command does, and a coordinator."""
        chosen = Selection(CC.name, student=str(student), all_attempts=True)
        begin = partial(regrading.begin, selection=chosen, course=Course(), who="ann", remark="mended")
        begun = records.write_now(begin)
        steps = doing.reopened(records, files, begun, Course(), "assignment_exchange", has_room=lambda _: True)
        for _ in steps:
            pass

    ways = []
    for number in range(1, 100):
        ids = [_confirmed(database, files, number, b"%d %d" % (number, attempt)) for attempt in range(3)]
        try:
            run(_Dying(database, number, is_before=is_before), number)
        except _Kill:
            run(database, number)  # the next process goes on
            is_killed = True
        else:
            is_killed = False
        hops = database.read_now(course.histories)
        ways.append([sum(hop.remark == "mended" for hop in hops[identity]) for identity in ids])
        assert database.read_now(outbox.count) == 3
        database.write_now(lambda connection: connection.execute(delete(outbox_table)))  # it holds up further ones
        if not is_killed:
            break
    assert ways == [[1, 1, 1]] * number
    assert number > 3 * 3 + 2, "a begin, three steps for each submission, and an end"


@pytest.fixture
def course_files(found_url: str) -> tuple[Database, Files]:
    """The records that the commands find."""
    return Database(found_url), Files(default_place(found_url))


def _hops(database: Database, ids: Sequence[str]) -> list[int]:
    """Return how often each was corrected."""
    found = database.read_now(course.histories)
    return [sum(hop.role == "demonstrator" for hop in found[identity]) for identity in ids]


def test_a_killed_command_goes_on_where_it_stopped(
    broker_url: str, course_files: tuple[Database, Files], found_url: str, tmp_path: Path
) -> None:
    opened, files = course_files
    number = doing.MOST_WAITING + 10
    with opened as database:
        ids = [_confirmed(database, files, student, b"x") for student in range(1, number + 1)]
        more = {
            "RABBITRY_DATABASE": found_url,
            "RABBITRY_BROKER": broker_url,
            "XDG_DATA_HOME": str(tmp_path / "data"),
        }
        with commands.service("grading", "regrade", "--module", CC.name, more=more) as command:
            command.wait_for(r"\d+ messages not published: waiting for a coordinator")
            assert database.read_now(outbox.count) == doing.MOST_WAITING
            command.process.kill()
            command.process.wait()
        with commands.service("grading", "run", more=more):
            done = commands.run("grading", "regrade", "--module", CC.name, more=more)
            assert done.returncode == 0, done.stderr
            assert f"going on: {doing.MOST_WAITING} submissions of {number}" in done.stderr
            assert "10 submissions submitted again" in done.stderr
            eventually_blocking(
                lambda: database.read_now(course.counts) == {"confirmed": number}, "all marked again", within=90
            )
        assert _hops(database, ids) == [2] * number
        again_ = commands.run("grading", "regrade", "--module", CC.name, "--student", "1", "--json", more=more)
        assert [json.loads(line)["id"] for line in again_.stdout.splitlines()] == [ids[0]]


@ON_BOTH_DATABASES
def test_a_run_stops_while_the_files_are_away_and_goes_on_later(
    course_files: tuple[Database, Files], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, files = course_files
    with opened as database:
        _confirmed(database, files, 7, b"here")
        away = _confirmed(database, files, 8, b"away")
        (path,) = Path(files.place).glob(f"*/{course_of(database, away).sha256}.z")
        aside = path.rename(tmp_path / "aside")
        path.mkdir()
        assert _root.run(("grading", "regrade", "--module", CC.name)) == 1
        assert "can't be read" in capsys.readouterr().err
        path.rmdir()
        aside.rename(path)
        assert _root.run(("grading", "regrade", "--module", CC.name)) == 0
        told = capsys.readouterr().err
        assert "going on: 1 submission of 2 reopened before" in told
        assert "1 submission submitted again" in told
        assert database.read_now(outbox.count) == 2


_SCHEME = """
[scheme]
name = "Echo"
[[part]]
name = "it prints"
points = 4
command = ["python3", "solution"]
expect = { contains = "hello" }
"""


@ON_BOTH_DATABASES
def test_a_dry_run_shows_what_would_change(
    course_files: tuple[Database, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    opened, files = course_files
    (tmp_path / "scheme.toml").write_text(_SCHEME.replace("solution", "x.py"))
    (tmp_path / "grading.toml").write_text(
        'weak_sandbox = true\n[modules.cloud_computing]\nshort = "cc"\nscheme = "scheme.toml"\n'
        '[modules.none]\nshort = "no"\n'
    )
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "grading.toml"))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = int(_root.run(("grading", "regrade", *arguments)))
        return code, *capsys.readouterr()

    with opened as database:
        good = _confirmed(database, files, 7, b"print('hello')", mark=0.0)
        bad = _confirmed(database, files, 8, b"print('bye')", mark=0.0)
        missing = _confirmed(database, files, 9, b"print('gone')")
        for path in Path(files.place).glob(f"*/{course_of(database, missing).sha256}.z"):
            path.unlink()
        before = database.read_now(course.submissions_of)
        code, printed, told = run("--module", CC.name, "--dry-run")
        assert (code, printed.split("\n")[0]) == (1, f"{good}  student 7  0 of 10 -> 4 of 4")
        assert f"{bad}  student 8  0 of 10 -> 0 of 4" in printed
        assert f"{missing} of student 9 can't be marked: the file" in told
        assert "2 of 3 marks would change; nothing was changed" in told
        _, printed, _ = run("--module", CC.name, "--dry-run", "--student", "7", "--json")
        shown = json.loads(printed)
        assert (shown["old"]["mark"], shown["new"]["mark"], shown["is_changed"]) == (0.0, 4.0, True)
        assert database.read_now(course.submissions_of) == before
        for arguments, why in (
            (("--module", "none", "--dry-run"), "has no marking scheme"),
            (("--module", "nothing"), "unknown module"),
            (("--module", CC.name, "--since", "yesterday"), "is not a time"),
            (("--module", CC.name, "--remark", " "), "--remark must have"),
        ):
            code, _, told = run(*arguments)
            assert (code, why in told) == (2, True), told
        code, _, told = run("--module", CC.name, "--student", "9")
        assert (code, "is not marked again: the file" in told, "0 submissions submitted" in told) == (1, True, True)
        assert run("--module", CC.name, "--since", "2999-01-01")[0] == 0


def course_of(database: Database, identity: str) -> course.Submission:
    return database.read_now(partial(course.submission_of, given=identity))
