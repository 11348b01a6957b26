"""Files, exports, similar solutions and changes over the broker, from machines that have no records."""

import asyncio
import contextlib
import io
import json
import random
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest
from sqlalchemy import Connection, func, insert, update

from rabbitry._ids import NoSuchID
from rabbitry.apps.exceptions import NoRecords, RecordsError
from rabbitry.apps.grading import asking, looking, questions, web_regrades
from rabbitry.apps.grading.asking import Asking
from rabbitry.apps.grading.changing import Change
from rabbitry.apps.grading.commands import stats
from rabbitry.apps.grading.commands.access import CourseRecords
from rabbitry.apps.grading.deadlines import Deadlines
from rabbitry.apps.grading.exceptions import FileLost
from rabbitry.apps.grading.files import Files, Kept, default_place
from rabbitry.apps.grading.looking import PART, Look, Looked, What, found_in, refused
from rabbitry.apps.grading.message import Decision, submission
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.questions import Answers, Question
from rabbitry.apps.grading.receiving import new_id
from rabbitry.apps.grading.records import Database, inbox, judging
from rabbitry.apps.grading.records.course import record
from rabbitry.apps.grading.records.schema import history as history_table
from rabbitry.apps.grading.records.schema import submissions
from rabbitry.apps.grading.roles import ROLES
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.cli import _root
from rabbitry.exceptions import RequestTimeout, UsageError
from tests.apps.grading._running import ALL, CC, ON_BOTH_DATABASES, history, recorded, role_set
from tests.apps.grading.similar.programs import DISGUISED, ORIGINAL
from tests.apps.grading.test_looking import OPEN, page
from tests.apps.grading.test_regrading import _SCHEME, _confirmed
from tests.support.waiting import eventually_awaited

pytestmark = pytest.mark.timeout(300)
_SEEN = {"module": CC.name}
_FEEDBACK = " well done" * 8000
_OVER = replace(CC, deadlines=Deadlines(closes=datetime(2001, 1, 1, tzinfo=UTC)))
_CLOSED = replace(OPEN, modules={**OPEN.modules, CC.name: _OVER})
"""A course whose module `cloud_computing` closed long ago."""


@dataclass(frozen=True)
class Elsewhere:
    """A coordinator with its records, and this machine, which has none: only the broker is between them."""

    broker: str
    database: Database
    url: str
    files: Files
    capsys: pytest.CaptureFixture[str]

    async def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command away from the records; return what it printed to stdout, or if it failed to stderr."""
        done = await asyncio.to_thread(_root.run, ("grading", *arguments))
        printed = self.capsys.readouterr()
        assert done == code, printed.err
        return printed.err if code else printed.out

    async def run_here(self, *arguments: str) -> str:
        """Run it with the records."""
        return await self.run(*arguments, "--database", self.url)

    async def confirmed(self, student: int, data: bytes, name: str = "x.py") -> str:
        """Record a confirmed submission with its file; return its id."""
        return await asyncio.to_thread(_confirmed, self.database, self.files, student, data, name=name)

    def coordinator(self, course: Course = OPEN) -> contextlib.AbstractAsyncContextManager[object]:
        """Run a coordinator alone."""
        return role_set(self.broker, self.database, [RoleSpec("coordinator")], wiring=Wiring(course), files=self.files)


@pytest.fixture
def elsewhere(
    broker_url: str, one_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Elsewhere]:
    monkeypatch.delenv("RABBITRY_DATABASE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("RABBITRY_BROKER", broker_url)
    monkeypatch.chdir(tmp_path)
    with Database(one_url) as database:
        files = Files(default_place(one_url) if one_url.startswith("sqlite") else str(tmp_path / "kept"))
        yield Elsewhere(broker_url, database, one_url, files, capsys)


def _declined(database: Database, files: Files, student: int) -> str:
    """Record a declined submission with its file; return its id."""
    made = submission(student, CC.name, b"x", "x.py", "")
    made["SubmissionID"] = identity = new_id(made)
    made = made.moved("declined", "demonstrator", Decision("automatic", remark="one too many"))
    database.write_now(partial(record, assignment=made, kept=files.keep(b"x")))
    return identity


def _noise(size: int) -> bytes:
    """Return data that does not compress, the same each time."""
    return random.Random(7).randbytes(size)


def _archive(text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("work/main.py", text)
    return made.getvalue()


async def test_files_are_sent_in_parts_and_read_on_the_page_and_by_command(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    large = _noise(2 * PART + PART // 2)
    whole = await elsewhere.confirmed(7, large, "large.bin")
    first = await elsewhere.confirmed(8, _archive("x = 1\n"), "a.zip")
    second = await elsewhere.confirmed(8, _archive("x = 2\n"), "a.zip")
    async with elsewhere.coordinator(), page(elsewhere.broker) as http:
        assert await elsewhere.run("fetch", whole[:12]) == "large.bin\n"
        assert (tmp_path / "large.bin").read_bytes() == large
        assert "no submission" in await elsewhere.run("fetch", "ffffffff", code=1)
        answer = await http.get(f"/api/files/{whole}")
        assert (answer.status_code, answer.content == large) == (200, True)
        listed = (await http.get(f"/api/texts/{second}")).json()
        assert [one["path"] for one in listed["files"]] == ["main.py"], listed
        changed = await http.get(f"/api/changes/{second}", params={"path": "main.py"})
        assert (changed.status_code, changed.json()["id"]) == (200, first), changed.text
        assert (await http.get("/api/files/ffffffff")).status_code == 404
        room = (await http.get("/api/room")).json()
        assert room["used"] > len(large)
        sha256 = Kept.of(large).sha256
        path = Path(elsewhere.files.place) / sha256[:2] / f"{sha256}.z"
        path.write_bytes(path.read_bytes()[:1000])
        assert "damaged" in await elsewhere.run("fetch", whole, "other.bin", code=1)
        path.unlink()
        assert "is not in" in await elsewhere.run("fetch", whole, "other.bin", code=1)
        assert (await http.get(f"/api/files/{whole}")).status_code == 503


async def test_exports_are_the_same_as_beside_the_records(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "ROWS", 20)  # pages of 20, and with histories of 2
    monkeypatch.setattr(looking, "PAGE", 1500)  # of which a few fit into an answer
    for student in range(1, 24):
        text = f"{ORIGINAL if student % 2 else DISGUISED}\n# {student}\n"
        await elsewhere.confirmed(student, text.encode())
    commands_ = (
        ("results",), ("results", "--json"), ("results", "--find", "2", "--limit", "3", "--offset", "1"),
        ("results", "--limit", "2000", "--offset", "20"), ("results", "--limit", "5"),
        ("export",), ("export", "--format", "json", "--module", CC.name), ("export", "--module", "data_mining"),
        ("similar", "--module", CC.name, "--common", "100", "--json"), ("stats", "--module", CC.name, "--json"),
    )  # fmt: skip
    place = ("--files", elsewhere.files.place)
    async with elsewhere.coordinator():
        for command in commands_:
            here = place if command[0] == "similar" else ()
            assert await elsewhere.run(*command) == await elsewhere.run_here(*command, *here), command
        assert len((await elsewhere.run("results", "--limit", "2000", "--offset", "20")).splitlines()) == 3
        assert (await elsewhere.run("results")).splitlines()[:5] == (
            await elsewhere.run("results", "--limit", "5")
        ).splitlines()
        assert "kept files: " in await elsewhere.run("stats")
        await elsewhere.run("export", "--files", "away")
        assert len((await elsewhere.run("export", "--format", "json")).splitlines()) == 23
    found = sorted(str(path.relative_to(tmp_path / "away")) for path in (tmp_path / "away").rglob("*.py"))
    assert found == sorted(f"{CC.name}/{student}/x.py" for student in range(1, 24))


async def test_large_records_are_the_same_as_beside_them(elsewhere: Elsewhere) -> None:
    """A hundred submissions with 80 KB of feedback each, and one whose history alone has more than 8 MB."""
    ids = [await elsewhere.confirmed(number, b"x") for number in range(1, 101)]

    def grow(connection: Connection) -> None:
        connection.execute(update(submissions).values(feedback=func.substr(submissions.c.id, 1, 8) + _FEEDBACK))
        hop = {
            "submission": ids[0],
            "role": "demonstrator",
            "status": "corrected",
            "who": "ann",
            "place": "x",
            "at": "2026",
        }
        rows = [hop | {"step": step, "remark": f"{step} " + "\u00e9" * 90_000} for step in range(10, 70)]
        connection.execute(insert(history_table), rows)

    await elsewhere.database.write(grow)
    commands_ = (
        ("export", "--format", "json"), ("export",), ("results", "--json", "--limit", "100"),
        ("results", "--json", "--limit", "30", "--offset", "60"),
    )  # fmt: skip
    async with elsewhere.coordinator(), page(elsewhere.broker) as http:
        for command in commands_:
            away, here = await elsewhere.run(*command), await elsewhere.run_here(*command)
            assert away == here, command
            assert len(here) > 2_000_000
        whole = await elsewhere.run("export", "--format", "json")
        assert max(len(line.encode()) for line in whole.splitlines()) > looking.LARGEST
        listed = (await http.get("/api/overview")).json()
        assert {one["id"] for one in listed["submissions"]} == set(ids)
        assert len(listed["submissions"]) == listed["total"] == 100
        shown = (await http.get(f"/api/submissions/{ids[0]}")).json()
        assert len(shown["history"]) == 64
        async with Asking(elsewhere.broker) as coordinators:
            told = await coordinators.ask(ids[0])
    assert told is not None
    assert told["history"] == shown["history"]


async def test_an_inbox_elsewhere_shows_the_attempt_before_side_by_side(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await elsewhere.confirmed(7, b"x = 1\n")
    made = submission(7, CC.name, b"x = 2\n", "x.py", "")
    made["SubmissionID"] = second = new_id(made)
    await elsewhere.database.write(partial(record, assignment=made, kept=elsewhere.files.keep(b"x = 2\n")))
    inbox_url = f"sqlite:///{tmp_path / 'inbox.sqlite3'}"
    with Database(inbox_url) as own:
        await own.write(partial(inbox.put, role=ROLES["demonstrator"], assignment=made, exchange="e", message="m"))
        async with page(elsewhere.broker, inbox_url) as http:
            where = f"/api/inbox/demonstrator/{second}"
            async with elsewhere.coordinator():
                assert (await http.get(f"{where}/before")).json() == {"id": first}
                changed = (await http.get(f"/api/changes/{second}")).json()
                assert (await http.get(f"/api/inbox/assistant/{second}/before")).status_code == 404
            monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.1)
            assert (await http.get(where)).status_code == 200, "an inbox works without a coordinator"
            assert (await http.get(f"{where}/before")).status_code == 503
    assert changed["id"] == first
    assert [(row["before"], row["after"]) for row in changed["rows"]] == [("x = 1", "x = 2")]


async def test_the_page_elsewhere_shows_its_inboxes_while_the_coordinator_is_busy(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MOST_EACH", 0)
    async with elsewhere.coordinator(), page(elsewhere.broker) as http:
        answer = await http.get("/api/overview")
    assert answer.status_code == 200, answer.text
    assert "too many questions to answer" in answer.json()["away"]


async def test_the_form_elsewhere_counts_the_attempts_of_the_records(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "course.toml").write_text(
        f'status_logins = ["guest"]\nsubmissions_per_hour = 3\n[modules.{CC.name}]\nshort = "cc"\nattempts = 2\n'
    )
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "course.toml"))
    async with elsewhere.coordinator(load_course()), page(elsewhere.broker) as http:

        async def handed_in(*, anyway: bool = False) -> tuple[int, str]:
            data = {"module": CC.name, "student": "7", "anyway": str(anyway)}
            answer = await http.post("/api/submissions", data=data, files={"file": ("x.py", b"x")})
            return answer.status_code, answer.text

        for number in (1, 2, 3):
            assert (await handed_in(anyway=number == 3))[0] == 200
            await recorded(elsewhere.database, "submitted", number)
            if number == 2:
                told = await handed_in()
                assert (told[0], "more attempts than allowed" in told[1]) == (400, True), told
        told = await handed_in(anyway=True)
        assert (told[0], "more are not taken" in told[1]) == (400, True), told
    monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.1)
    async with page(elsewhere.broker) as http:
        answer = await http.post(
            "/api/submissions", data={"module": CC.name, "student": "7"}, files={"file": ("x.py", b"x")}
        )
        assert answer.status_code == 200, "what can't be checked now is taken, and the first role checks it"


async def test_a_file_that_the_coordinator_can_not_read_costs_an_export_that_file_alone(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    for student, text in ((7, b"x = 1"), (8, b"y = 1"), (9, b"z = 1")):
        await elsewhere.confirmed(student, text)
    sha256 = Kept.of(b"y = 1").sha256
    path = Path(elsewhere.files.place) / sha256[:2] / f"{sha256}.z"
    path.unlink()
    path.mkdir()
    async with elsewhere.coordinator():
        told = await elsewhere.run("export", "--files", "away", code=1)
    assert f"the file {sha256} can't be had from a coordinator: " in told
    assert sorted(one.parent.name for one in (tmp_path / "away").rglob("*.py")) == ["7", "9"]


def test_statistics_are_printed_also_if_counting_the_files_takes_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    class Records:
        here = None

        def read(self, asked: Look) -> Any:
            raise RequestTimeout("no coordinator answers")

    stats._print_files(cast("CourseRecords", Records()))
    assert capsys.readouterr() == ("", "rabbitry: warning: no coordinator answers\n")


async def test_similar_solutions_are_shown_by_a_page_elsewhere(elsewhere: Elsewhere) -> None:
    for student, text in ((7, ORIGINAL), (8, DISGUISED)):
        await elsewhere.confirmed(student, text.encode())
    async with elsewhere.coordinator(), page(elsewhere.broker) as http:
        await http.post("/api/similar", json=_SEEN)

        async def ended() -> dict[str, Any] | None:
            told: dict[str, Any] = (await http.get("/api/similar", params=_SEEN)).json()
            return None if told["is_running"] else told

        told = await eventually_awaited(ended, "the comparison has ended")
        assert told is not None
        assert (told["error"], len(told["pairs"])) == (None, 1)
        pair = told["pairs"][0]
        both = (await http.get(f"/api/similar/{pair['one']['id']}/{pair['other']['id']}")).json()
        assert {"".join(part["text"] for part in both[side]["parts"]) for side in ("one", "other")} == {
            ORIGINAL, DISGUISED
        }  # fmt: skip


async def test_declined_submissions_are_accepted_and_modules_marked_again_elsewhere(
    elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    audited: list[tuple[str, ...]] = []

    @contextlib.asynccontextmanager
    async def audit(*what: str) -> AsyncIterator[None]:
        audited.append(what)
        yield

    def mark(solution: bytes, name: str) -> Decision:
        return Decision("automatic", 8.0, 10.0)

    one, other = [
        await asyncio.to_thread(_declined, elsewhere.database, elsewhere.files, student) for student in (7, 8)
    ]
    caplog.set_level("INFO")
    wiring = Wiring(OPEN)
    roles = role_set(
        elsewhere.broker, elsewhere.database, ALL, wiring=wiring, files=elsewhere.files, markers={CC.name: mark}
    )
    async with roles, page(elsewhere.broker, audit=audit) as http:
        assert await elsewhere.run("accept", one, "--remark", "the network") == f"{one}  student 7  accepted\n"
        assert "only one that was declined" in await elsewhere.run("accept", one, code=2)
        assert "no submission" in await elsewhere.run("accept", "zz", code=1)
        assert "1 to 100000 characters" in await elsewhere.run("accept", other, "--remark", " ", code=2)
        accepted = await http.post(f"/api/submissions/{other}/acceptance", json={"remark": "so be it"})
        assert (accepted.status_code, accepted.json()["id"]) == (200, other), accepted.text
        await recorded(elsewhere.database, "confirmed", 2)
        by_command = json.loads(await elsewhere.run("regrade", "--module", CC.name, "--json"))
        assert (by_command["submissions"], by_command["reopened"], by_command["remark"]) == (2, 2, "marked again")
        await recorded(elsewhere.database, "confirmed", 2)
        run = (await http.post("/api/regrades", json=_SEEN | {"remark": "test 3 was wrong"})).json()

        async def ended() -> dict[str, Any] | None:
            found: list[dict[str, Any]] = (await http.get("/api/regrades", params=_SEEN)).json()["runs"]
            return found[0] if found[0]["ended_at"] is not None else None

        done = await eventually_awaited(ended, "the run has ended")
        assert done is not None
        assert (done["id"], done["remark"]) == (run["id"], "test 3 was wrong")
        await recorded(elsewhere.database, "confirmed", 2)
        result = (await http.get(f"/api/regrades/{run['id']}")).json()
        assert result["id"] == run["id"]
    assert [what[1:] for what in audited] == [("accept a submission", other), ("mark again", CC.name)]
    assert f"over the login 'guest': {one}" in caplog.text
    hops = await history(elsewhere.database, one)
    assert hops.count(("coordinator", "submitted")) == 3  # accepted, and marked again by the command and the page


async def test_late_submissions_are_accepted_and_that_is_withdrawn_elsewhere(elsewhere: Elsewhere) -> None:
    audited: list[tuple[str, ...]] = []

    @contextlib.asynccontextmanager
    async def audit(*what: str) -> AsyncIterator[None]:
        audited.append(what)
        yield

    late = await elsewhere.confirmed(7, b"x")
    async with elsewhere.coordinator(_CLOSED), page(elsewhere.broker, audit=audit) as http:

        async def shown() -> dict[str, Any]:
            return dict((await http.get(f"/api/submissions/{late}")).json())

        async def withdrawn(at: str) -> int:
            told = {"remark": "he was well", "accepted_at": at}
            return (await http.post(f"/api/submissions/{late}/withdrawal", json=told)).status_code

        assert await elsewhere.run("accept", late, "--remark", "he was ill") == f"{late}  student 7  accepted\n"
        first = (await shown())["accepted"]["at"]
        told = await elsewhere.run("accept", late, "--withdraw", "--remark", "by mistake")
        assert told == f"{late}  student 7  not accepted any more\n"
        assert "is withdrawn already" in await elsewhere.run("accept", late, "--withdraw", code=2)
        assert not (await shown())["counts"]
        await elsewhere.run("accept", late)
        again = await shown()
        assert (again["counts"], await withdrawn(first), await withdrawn(again["accepted"]["at"])) == (True, 400, 200)
        after = await shown()
        exported = json.loads(await elsewhere.run("export", "--format", "json"))
    assert (exported["withdrawn"], exported["counts"]) == (after["withdrawn"], False)
    assert (after["counts"], after["accepted"]) == (False, None)
    assert [(one["remark"], one["reason"]) for one in after["withdrawn"]] == [
        ("he was ill", "by mistake"), ("accepted", "he was well")
    ]  # fmt: skip
    assert [what[1:] for what in audited] == [("withdraw an acceptance", late)] * 2


async def test_a_dry_run_elsewhere_marks_the_files_that_the_coordinator_sends(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_regrades, "_check_sandbox", lambda _: None)  # this machine's may be the weak one
    (tmp_path / "scheme.toml").write_text(_SCHEME.replace("solution", "x.py"))
    (tmp_path / "grading.toml").write_text(
        'weak_sandbox = true\n[modules.cloud_computing]\nshort = "cc"\nscheme = "scheme.toml"\n'
    )
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "grading.toml"))
    better = await elsewhere.confirmed(7, b"print('hello')")
    inbox = f"sqlite:///{tmp_path / 'inbox.sqlite3'}"
    # The page's machine has a role's inbox, and records of another course beside it.
    other = tmp_path / "data" / "rabbitry" / "grading.sqlite3"
    other.parent.mkdir(parents=True)
    with Database(inbox), Database(f"sqlite:///{other}") as unrelated:
        await asyncio.to_thread(_confirmed, unrelated, Files(str(tmp_path / "unrelated")), 9, b"x")
        async with elsewhere.coordinator(), page(elsewhere.broker, inbox) as http:
            begun = await http.post("/api/regrades/trial", json=_SEEN)
            assert (begun.status_code, begun.json()["able"]) == (200, 1), begun.text

            async def ended() -> dict[str, Any] | None:
                trial: dict[str, Any] = (await http.get("/api/regrades", params=_SEEN)).json()["trial"]
                return None if trial["is_running"] else trial

            trial = await eventually_awaited(ended, "the dry run has ended")
            assert trial is not None
            assert (trial["error"], trial["failures"]) == (None, [])
            assert [(one["id"], one["new"]) for one in trial["changes"]] == [(better, {"mark": 4.0, "out_of": 4.0})]
            other.unlink()
            dry = await elsewhere.run("regrade", "--module", CC.name, "--dry-run")
            assert dry == f"{better}  student 7  1 of 10 -> 4 of 4\n"
    assert ("coordinator", "submitted") not in await history(elsewhere.database, better)


async def test_results_are_held_and_released_by_command_and_on_the_page(elsewhere: Elsewhere) -> None:
    await elsewhere.confirmed(7, b"x = 1\n")
    release = partial(elsewhere.run, "release", "--module", CC.name)
    async with elsewhere.coordinator(), page(elsewhere.broker) as http:
        assert await release() == ""
        assert (await http.get("/api/releases", params=_SEEN)).json() == []
        held = await release("--until", "2126-12-01T09:00+01:00", "--remark", "after the exam")
        assert held.startswith("held until 2126-12-01T08:00:00 UTC  set 20")
        assert ": after the exam" in held
        assert "exclude each other" in await release("--until", "2126-12-01", "--now", code=2)
        assert "is not a time" in await release("--until", "tomorrow", code=2)
        assert "has passed" in await release("--until", "2025-12-01", code=2)
        answer = await http.post("/api/releases", json=_SEEN | {"until": "", "remark": "all are marked"})
        assert (answer.status_code, answer.json()["is_ahead"]) == (200, False), answer.text
        both = (await release()).splitlines()
        assert [line[: line.index("UTC")] for line in both[1:]] == ["before: until 2126-12-01T08:00:00 "]
        assert both[0].startswith("released 20")
        told = [json.loads(line) for line in (await release("--json")).splitlines()]
        assert (await http.get("/api/releases", params=_SEEN)).json() == told
        assert await elsewhere.run_here("release", "--module", CC.name) == "\n".join([*both, ""])
        assert (await release("--now", "--remark", "again")).startswith("released 20")


@ON_BOTH_DATABASES
def test_who_is_not_named_reads_and_changes_nothing_but_a_student_their_own(found_url: str, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "files"))
    with Database(found_url) as database:
        mine, other = _confirmed(database, files, 7, b"mine"), _confirmed(database, files, 8, b"other")
        declined, late = _declined(database, files, 9), _confirmed(database, files, 10, b"late")
        given = Decision("cleo", remark="x")
        database.write_now(partial(judging.accept, identity=late, decision=given, course=_CLOSED))
        looks = [Look(what, module=CC.name, submission=mine, number=1) for what in get_args(What) if what != "file"]
        files_ = [Look("file", sha256=Kept.of(data).sha256, size=len(data)) for data in (b"mine", b"other")]
        changes = [
            Change("accept", "eve", "x", submission=declined), Change("regrade", "eve", "x", module=CC.name),
            Change("withdraw", "eve", "x", submission=late), Change("release", "eve", "x", module=CC.name),
        ]  # fmt: skip
        questions = [*(Question(Look=look) for look in (*looks, *files_)), *(Question(Change=one) for one in changes)]

        def answered(course: Course, question: Question, asker: str | None) -> Any:
            body = Answers(database, course, files, "x").answer(question, asker)
            return found_in(msgspec.json.decode(body, type=Looked))

        for logins, asker in ((None, None), (None, "guest"), ((), None), (("office",), "eve"), (("office",), "7")):
            course = replace(Course(), status_logins=logins)
            for question in questions:
                look = question.Look
                is_own = asker == "7" and (look == files_[0] or (look is not None and look.what == "submission"))
                if is_own:
                    assert answered(course, question, asker)
                    continue
                with pytest.raises((UsageError, FileLost, NoSuchID)):
                    answered(course, question, asker)
        office = replace(Course(), status_logins=("office",))
        with pytest.raises(NoSuchID):
            answered(office, Question(Look=Look("submission", submission=other, student="8")), "7")
        for question in questions:
            if question.Look is None or question.Look.what not in ("request", "run", "result"):
                answered(office, question, "office")
        with pytest.raises(UsageError, match="no file is named"):
            answered(office, Question(Look=Look("file")), "office")
        for wrong in ("../" + "a" * 61, "a" * 64 + "\n"):
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({"What": "file", "Sha256": wrong}, Look)


def test_errors_keep_their_kind_over_the_broker() -> None:
    for error in (
        NoSuchID("none"), NoSuchID("several", is_ambiguous=True), FileLost("lost"), NoRecords("no records"),
        RecordsError("locked"), UsageError("wrong"),
    ):  # fmt: skip
        with pytest.raises(type(error), match=str(error)) as raised:
            found_in(msgspec.json.decode(msgspec.json.encode(refused(error)), type=Looked))
        assert type(raised.value) is type(error)
        assert getattr(raised.value, "is_ambiguous", None) == getattr(error, "is_ambiguous", None)
