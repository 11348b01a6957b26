"""Declined submissions are kept within bounds, and a coordinator accepts them: by command and on the page."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rabbitry.apps.grading.accepting import accept
from rabbitry.apps.grading.changing import Change, change
from rabbitry.apps.grading.commands import students
from rabbitry.apps.grading.deadlines import Deadlines
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.files import Files, Kept, default_place
from rabbitry.apps.grading.message import Assignment, Decision, submission, user_name
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, judging, outbox
from rabbitry.apps.grading.records.withdrawing import withdraw
from rabbitry.apps.grading.roles import decide, role_named
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.cli import _root
from rabbitry.exceptions import UsageError
from tests.apps.grading._running import ALL, CC, ON_BOTH_DATABASES, Plain, history, recorded, role_set, submit
from tests.apps.grading.test_pipeline import WAY, read_results
from tests.apps.grading.test_regrading import _confirmed
from tests.apps.grading.test_web import Served
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.timeout(180)
_EXCHANGE = "assignment_exchange"
_LONG = "the network was down, " * 4000 + "all day"


def _declined(database: Database, files: Files | None, identity: str, status: str = "declined") -> None:
    """Record a declined submission of student 7, and keep its file if there is a place for files."""
    made = Assignment({**submission(7, CC.name, b"x", "x.py", identity), "Extra": [1]})
    made = made.moved(status, "demonstrator", Decision("automatic", remark="one too many"))
    kept = None if files is None else files.keep(b"x")
    database.write_now(partial(course.record, assignment=made, kept=kept))


async def test_an_accepted_submission_is_marked_and_counts_by_the_time_it_was_handed_in(
    no_leaks: None, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files, marked = Files(str(tmp_path / "kept")), []

    def mark(solution: bytes, name: str) -> Decision:
        marked.append((solution, name))
        return Decision("automatic", 1.0, 1.0)

    wiring = Wiring(Course(per_hour=1))

    async def accepted_by_cleo(identity: str) -> course.Submission:
        decision = Decision("cleo", remark="so be it")
        return await asyncio.to_thread(accept, one_database, files, identity, decision, wiring.course, _EXCHANGE)

    async with role_set(broker_url, one_database, ALL, wiring=wiring, files=files, markers={CC.name: mark}):
        await submit(broker_url, data=b"first")
        await recorded(one_database, "confirmed", 1)
        mine = await submit(broker_url, data=b"second")
        later = await submit(broker_url, data=b"third")
        rows = {row.id: row for row in await recorded(one_database, "declined", 2)}
        with pytest.raises(UsageError, match="is not kept, so it can't be accepted"):
            await accepted_by_cleo(later)
        found = await accepted_by_cleo(mine[:20])
        assert found.id == mine
        with pytest.raises(UsageError, match="only one that was declined, or that the deadlines forbid"):
            await accepted_by_cleo(mine)
        await recorded(one_database, "confirmed", 2)
    assert marked == [(b"first", "x.py"), (b"second", "x.py")]
    assert await history(one_database, mine) == [
        ("student", "submitted"), ("demonstrator", "declined"), ("coordinator", "submitted"),
        ("demonstrator", "corrected"), ("assistant", "validated"), ("coordinator", "confirmed"),
    ]  # fmt: skip
    told = await one_database.read(partial(judging.described, given=mine, course=wiring.course))
    assert (told["attempt"], told["mark"], told["counts"]) == (2, 1.0, True)
    assert told["submitted_at"] == rows[mine].submitted_at
    declined, accepted = told["history"][1:3]
    assert "more are not taken" in declined["remark"]
    assert (accepted["remark"], accepted["who"]) == ("so be it", "cleo")


@ON_BOTH_DATABASES
async def test_the_command_and_the_page_accept_what_is_declined_and_kept(
    found_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = int(_root.run(("grading", "accept", *arguments)))
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    with Database(found_url) as database:
        files = Files(default_place(found_url))
        for identity, place, status in (
            ("a1", files, "declined"), ("a2", files, "declined"), ("b1", None, "declined"), ("c1", files, "corrected"),
        ):  # fmt: skip
            _declined(database, place, identity, status)
        for wrong, code, why in (
            ("zz", 1, "no submission"), ("a", 1, "several"), ("b1", 2, "is not kept"), ("c1", 2, "is corrected"),
        ):  # fmt: skip
            found = run(wrong)
            assert (found[0], why in found[1]) == (code, True), found
        assert run("a1", "--remark", " ")[0] == 2
        assert run("a1") == (0, "a1  student 7  accepted\n")
        served = Served("amqp://127.0.0.1:1/", found_url)
        async with served.pages.open(), served.http as http:
            for identity, remark, code in (
                ("a2", " ", 400), ("zz", "x", 404), ("b1", "x", 400), ("a1", "x", 400), ("a2", "the network", 200),
            ):  # fmt: skip
                answer = await http.post(f"/api/submissions/{identity}/acceptance", json={"remark": remark})
                assert answer.status_code == code, (identity, answer.text)
            assert answer.json() == {"id": "a2", "status": "submitted"}
            hops = (await http.get("/api/submissions/a2")).json()["history"]
        assert [(hop["role"], hop["status"], hop["remark"]) for hop in hops][1:] == [
            ("demonstrator", "declined", "one too many"), ("coordinator", "submitted", "the network")
        ]  # fmt: skip
        found_row = database.read_now(partial(course.submission_of, given="a1"))
        assert (found_row.status, found_row.attempt, found_row.latest) == ("submitted", 1, False)


@pytest.mark.parametrize("sent_back", [0, 1, 2])
def test_the_declined_message_that_comes_again_is_not_confirmed(
    database: Database, tmp_path: Path, sent_back: int
) -> None:
    files = Files(str(tmp_path / "kept"))
    _declined(database, files, "a1")
    accept(database, files, "a1", Decision("cleo", remark="so be it"), Course(), _EXCHANGE)
    original = Assignment(submission(7, CC.name, b"x", "x.py", "a1"))  # as another process takes it
    (letter,) = database.write_now(partial(outbox.claim, roles=["coordinator"]))
    before = database.read_now(partial(course.submission, identity="a1"))
    ways = [*[("demonstrator", "correct"), ("assistant", "send-back")] * sent_back]
    ways += [("demonstrator", "correct"), ("assistant", "validate"), ("coordinator", "confirm")]
    for role, action in ways:
        mark, out_of = (10.0, 10.0) if action == "correct" else (None, None)
        given = Decision("dan", mark, out_of, remark="why?" if action == "send-back" else None)
        original = decide(original, role_named(role), action, given)
        if role != "coordinator":
            database.write_now(partial(course.record, assignment=original))
    assert database.read_now(partial(course.submission, identity="a1")) == before
    assert not database.write_now(partial(course.confirm, assignment=original, message="m1"))
    accepted = Assignment(json.loads(letter.body))
    for role, action in ways[2 * sent_back :]:
        accepted = decide(accepted, role_named(role), action, Decision("eve"))
    assert database.write_now(partial(course.confirm, assignment=accepted, message="m2"))
    found = database.read_now(partial(course.submission, identity="a1"))
    assert found is not None
    assert [hop.who for hop in found[1]][2:] == ["cleo", "eve", "eve", "eve"]


@ON_BOTH_DATABASES
async def test_the_command_and_the_page_have_a_late_one_count(
    found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "course.toml").write_text(
        f'[modules.{CC.name}]\nshort = "cc"\ncloses = 2001-01-01T00:00:00Z\ncounts = "latest"\n'
        '[modules.open]\nshort = "op"\nopens = 2001-01-01T00:00:00Z\n'
    )
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "course.toml"))
    with Database(found_url) as database:
        for identity, student in (("a1", 7), ("a2", 8)):
            made = submission(student, CC.name, b"x", "x.py", identity)
            for role in ("demonstrator", "assistant", "coordinator"):
                mark = (8.0, 10.0) if role == "demonstrator" else (None, None)
                made = decide(made, role_named(role), role_named(role).actions[0], Decision("ann", *mark))
            assert database.write_now(partial(course.confirm, assignment=made, message=identity))
        database.write_now(partial(course.record, assignment=submission(9, "open", b"x", "x.py", "o1")))
        assert _root.run(("grading", "accept", "o1")) == 2
        assert "can count, as on time" in capsys.readouterr().err
        assert _root.run(("grading", "accept", "a1", "--remark", "she was ill")) == 0
        assert _root.run(("grading", "accept", "a1")) == 2
        assert capsys.readouterr().out == "a1  student 7  accepted\n"
        served = Served("amqp://127.0.0.1:1/", found_url)
        async with served.pages.open(), served.http as http:
            answer = await http.post("/api/submissions/a2/acceptance", json={"remark": _LONG})
            assert answer.json() == {"id": "a2", "status": "confirmed"}
            found = [(await http.get(f"/api/submissions/{identity}")).json() for identity in ("a1", "a2", "o1")]
        for one, remark in zip(found, ("she was ill", _LONG), strict=False):
            assert (one["accepted"]["who"], one["accepted"]["remark"]) == (user_name(), remark)
            assert (one["timing"], one["counts"], one["final_mark"]) == ("late", True, 8.0)
        assert (found[2]["accepted"], found[2]["timing"]) == (None, "on time")
        students._show_status(found[0], None, as_json=False)
        assert "accepted by" in capsys.readouterr().out
        assert _root.run(("grading", "export", "--format", "json")) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {row["id"]: row["accepted"] and row["accepted"]["remark"] for row in rows} == {
            "a1": "she was ill", "a2": _LONG, "o1": None
        }  # fmt: skip


def _late(database: Database, identity: str = "a1", student: int = 7) -> None:
    """Record a confirmed submission."""
    made = submission(student, CC.name, b"x", "x.py", identity)
    for role in ("demonstrator", "assistant", "coordinator"):
        mark = (8.0, 10.0) if role == "demonstrator" else (None, None)
        made = decide(made, role_named(role), role_named(role).actions[0], Decision("ann", *mark))
    assert database.write_now(partial(course.confirm, assignment=made, message=identity))


@ON_BOTH_DATABASES
async def test_the_command_and_the_page_withdraw_an_acceptance_and_keep_its_history(
    found_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = f'[modules.{CC.name}]\nshort = "cc"\ncloses = 2001-01-01T00:00:00Z\n'
    (tmp_path / "course.toml").write_text(configuration)
    monkeypatch.setenv("RABBITRY_GRADING", str(tmp_path / "course.toml"))

    def run(*arguments: str) -> tuple[int, str]:
        code = int(_root.run(("grading", "accept", *arguments)))
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    with Database(found_url) as database:
        _late(database)
        _declined(database, None, "b1")
        for identity, code, why in (
            ("zz", 1, "no submission"), ("a1", 2, "was not accepted"), ("b1", 2, "is declined and was not accepted"),
        ):  # fmt: skip
            found = run(identity, "--withdraw")
            assert (found[0], why in found[1]) == (code, True), found
        assert run("a1", "--remark", "she was ill")[0] == 0
        assert run("a1", "--withdraw", "--remark", " ")[0] == 2
        assert run("a1", "--withdraw") == (0, "a1  student 7  not accepted any more\n")
        assert "is withdrawn already" in run("a1", "--withdraw")[1]
        served = Served("amqp://127.0.0.1:1/", found_url)
        async with served.pages.open(), served.http as http:

            async def shown() -> dict[str, Any]:
                return dict((await http.get("/api/submissions/a1")).json())

            async def withdrawn(at: str, remark: str = _LONG) -> tuple[int, str]:
                told = {"remark": remark, "accepted_at": at}
                answer = await http.post("/api/submissions/a1/withdrawal", json=told)
                return answer.status_code, answer.text

            before = await shown()
            (first,) = before["withdrawn"]
            assert (first["who"], first["remark"]) == (user_name(), "she was ill")
            assert (first["withdrawn_by"], first["reason"]) == (user_name(), "withdrawn")
            assert first["at"] < first["withdrawn_at"]
            counted = before["accepted"], before["timing"], before["counts"], before["final_mark"]
            assert counted == (None, "after it closed", False, 0.0)
            assert (await http.post("/api/submissions/a1/acceptance", json={"remark": "anew"})).status_code == 200
            again = await shown()
            assert (again["counts"], again["final_mark"], again["withdrawn"]) == (True, 8.0, [first])
            assert (await withdrawn(first["at"]))[0] == 400
            assert "was accepted anew" in (await withdrawn(first["at"]))[1]
            assert (await withdrawn(again["accepted"]["at"], " "))[0] == 400
            assert (await shown())["counts"]
            assert (await withdrawn(again["accepted"]["at"]))[0] == 200
            after = await shown()
        assert [one["reason"] for one in after["withdrawn"]] == ["withdrawn", _LONG]
        students._show_status(after, None, as_json=False)
        assert f"accepted by {user_name()}: anew; withdrawn by" in capsys.readouterr().out
        assert _root.run(("grading", "export", "--format", "json", "--module", CC.name)) == 0
        rows = {row["id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
        assert (rows["a1"]["withdrawn"], rows["a1"]["counts"]) == (after["withdrawn"], False)
        assert rows["b1"]["withdrawn"] == []
        (tmp_path / "course.toml").write_text(f'{configuration}accepted = ["a1"]\n')
        assert "accepted in the course's configuration" in run("a1", "--withdraw")[1]


async def test_a_result_is_published_again_as_it_is_judged_after_an_acceptance_and_its_withdrawal(
    broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    closed = replace(CC, deadlines=Deadlines(closes=datetime(2001, 1, 1, tzinfo=UTC)))
    wiring = Wiring(Course(modules={CC.name: closed}))
    identity = _confirmed(one_database, files, 7, b"x = 1\n", mark=8.0)
    before = one_database.read_now(partial(course.submission, identity=identity))
    async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring, files=files):
        with Plain(broker_url) as plain:
            read_results(plain)
            for what in ("accept", "withdraw"):
                wanted = msgspec.convert(
                    {"What": what, "Who": "cleo", "Remark": "she was ill", "Submission": identity}, Change
                )
                await asyncio.to_thread(change, one_database, files, wanted, wiring.course, _EXCHANGE)
            results = await asyncio.to_thread(plain.take, "results_queue", 2)
    assert [(result["Timing"], result["FinalMark"]) for result in results] == [("late", 8.0), ("after it closed", 0.0)]
    for result in results:
        assert (result["SubmissionID"], result["StudentID"], result["Module"]) == (identity, 7, CC.name)
        assert (result["status"], result["Mark"], result["Solution"]) == ("confirmed", 8.0, "x = 1\n")
        assert [(hop["role"], hop["status"]) for hop in result["History"]] == WAY
    assert one_database.read_now(partial(course.submission, identity=identity)) == before


def test_an_acceptance_holds_though_the_result_can_t_be_published_again(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = replace(CC, deadlines=Deadlines(closes=datetime(2001, 1, 1, tzinfo=UTC)))
    known, files = Course(modules={CC.name: closed}), Files(str(tmp_path / "kept"))
    _late(database)
    lost = _confirmed(database, files, 8, b"x = 1\n")
    next((tmp_path / "kept").rglob("*.z")).unlink()
    made = Assignment(submission(9, CC.name, b"x", "x.py", "c1"))
    database.write_now(partial(course.record, assignment=made))
    for identity in ("a1", lost, "c1"):
        accept(database, files, identity, Decision("cleo", remark="she was ill"), known, _EXCHANGE)
        assert database.read_now(partial(judging.described, given=identity, course=known))["accepted"]
        missing = f"the result of submission {identity} is not published again" in caplog.text
        assert missing == (identity != "c1"), "that one is not confirmed, and has no result yet"
    assert database.read_now(outbox.count) == 0


def test_files_that_can_t_be_read_hinder_only_the_acceptance_of_what_has_a_result(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = replace(CC, deadlines=Deadlines(closes=datetime(2001, 1, 1, tzinfo=UTC)))
    known, files = Course(modules={CC.name: closed}), Files(str(tmp_path / "kept"))
    confirmed = _confirmed(database, files, 8, b"x = 1\n")
    made = Assignment(submission(9, CC.name, b"x", "x.py", "c1"))
    database.write_now(partial(course.record, assignment=made, kept=files.keep(b"x")))

    def fetch(kept: Kept) -> bytes:
        raise FilesError("the bucket does not answer")

    monkeypatch.setattr(files, "fetch", fetch)
    given = Decision("cleo", remark="she was ill")
    accept(database, files, "c1", given, known, _EXCHANGE)
    with pytest.raises(FilesError, match="does not answer"):
        accept(database, files, confirmed, given, known, _EXCHANGE)
    assert [*database.read_now(judging.acceptances_of)] == ["c1"]


def test_of_several_who_accept_and_withdraw_at_once_each_does_it_or_is_told(database_url: str) -> None:
    rules = {**Course().modules, CC.name: replace(CC, deadlines=Deadlines(closes=datetime(2001, 1, 1, tzinfo=UTC)))}
    known = Course(modules=rules)

    def accepted(records: Database) -> object:
        return records.write_now(
            partial(judging.accept, identity="a1", decision=Decision("cleo", remark="x"), course=known)
        )

    def withdrawn(records: Database) -> object:
        return records.write_now(partial(withdraw, given="a1", decision=Decision("dan", remark="y"), course=known))

    def done(work: Callable[[Database], object], records: Database) -> bool:
        together.wait()
        try:
            work(records)
        except UsageError:
            return False
        return True

    together = threading.Barrier(4)
    with Database(database_url) as one, Database(database_url) as other, ThreadPoolExecutor(4) as threads:
        _late(one)
        expected = 0
        for _ in range(10):
            accepted(one)
            both = [threads.submit(done, withdrawn, records) for records in (one, other, one, other)]
            assert [future.result(WITHIN) for future in both].count(True) == 1
            mixed = [
                threads.submit(done, work, records)
                for work, records in ((accepted, one), (withdrawn, other), (accepted, other), (withdrawn, one))
            ]
            expected += 1 + [future.result(WITHIN) for future in mixed][1::2].count(True)
            told = one.read_now(partial(judging.described, given="a1", course=known))
            assert (told["accepted"] is not None) == told["counts"]
            assert len(told["withdrawn"]) == len({row["at"] for row in told["withdrawn"]}) == expected
            if told["accepted"] is not None:
                withdrawn(other)
                expected += 1


def test_a_message_is_accepted_once_and_with_its_other_fields(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "kept"))
    _declined(database, files, "a1")
    accept(database, files, "a1", Decision("cleo", remark="so be it"), Course(), _EXCHANGE)
    _declined(database, files, "a1")  # the report comes again
    assert database.read_now(partial(course.submission_of, given="a1")).status == "submitted"
    (letter,) = database.write_now(partial(outbox.claim, roles=["coordinator"]))
    sent = json.loads(letter.body)
    assert (letter.key, sent["Extra"], sent["Remarks"], sent["status"]) == (CC.key, [1], ["so be it"], "submitted")
    assert [(hop["role"], hop["status"]) for hop in sent["History"]] == [
        ("student", "submitted"), ("demonstrator", "declined"), ("coordinator", "submitted")
    ]  # fmt: skip
