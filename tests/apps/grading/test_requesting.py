"""Requests for another look: over the broker to the records, answered by people, kept in the history."""

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import pytest

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading import requesting, staff, students
from rabbitry.apps.grading.answering import Answer
from rabbitry.apps.grading.files import Files, default_place
from rabbitry.apps.grading.message import HISTORY, Decision
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, requests
from rabbitry.apps.grading.rows import Request
from rabbitry.apps.grading.signatures import Key, Policy, Signatures, Signer, new_key
from rabbitry.apps.grading.stages import RoleSpec, Wiring
from rabbitry.cli import _root
from rabbitry.exceptions import RequestTimeout, UsageError
from tests.apps.grading._running import ALL, CC, Plain, history, recorded, role_set, submit
from tests.apps.grading.test_pipeline import WAY, read_results
from tests.apps.grading.test_regrading import _confirmed
from tests.support import commands
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept late replies of a coordinator, as a busy machine gives them."""
    monkeypatch.setattr(students, "REPLY_WITHIN", 60.0)
    monkeypatch.setattr(staff, "REPLY_WITHIN", 60.0)


def _asked(database: Database, identity: str, message: str = "m1", reason: str = "why?", student: str = "7") -> Request:
    work = partial(requests.ask, given=identity, student=student, reason=reason, message=message, least=4)
    return database.write_now(work)


def _answered(
    database: Database, number: int, given: str, *, remark: str | None = None, data: bytes | None = None
) -> Request:
    told = requests.Given(given, "assistant", Decision("ann", remark=remark))
    work = partial(requests.answer, number=number, given=told, data=data)
    return database.write_now(partial(work, course=Course(), exchange="assignment_exchange"))


async def test_a_request_is_upheld_and_the_submission_marked_again(
    no_leaks: None, broker_url: str, one_database: Database, tmp_path: Path
) -> None:
    files = Files(str(tmp_path / "kept"))
    marks = [3.0]

    def mark(solution: bytes, name: str) -> Decision:
        return Decision("automatic", marks[-1], 10.0)

    async with role_set(broker_url, one_database, ALL, files=files, markers={CC.name: mark}):
        with Plain(broker_url) as plain:
            read_results(plain)
            identity = await submit(broker_url)
            await recorded(one_database, "confirmed", 1)
            await asyncio.to_thread(plain.take, "results_queue", 1)
            with pytest.raises(NoSuchID, match="no submission of student 8"):
                await students.request(Wiring(), broker_url, identity, 8, "mine")
            number = await students.request(Wiring(), broker_url, identity, 7, "test 3 is wrong")
            with pytest.raises(UsageError, match="waits for its answer already"):
                await students.request(Wiring(), broker_url, identity[:8], 7, "again")
            marks.append(8.0)
            told = staff.made(identity, number, "upheld", "assistant", "ann", " right ")
            for unknown in (99, 1 << 70):
                with pytest.raises(NoSuchID, match=f"there is no request {unknown}"):
                    await staff.answer(Wiring(), broker_url, msgspec.structs.replace(told, Request=unknown))
            with pytest.raises(NoSuchID, match="about submission other"):
                await staff.answer(Wiring(), broker_url, msgspec.structs.replace(told, SubmissionID="other"))
            done = await staff.answer(Wiring(), broker_url, told)
            assert (done.answer, done.who, done.remark) == ("upheld", "ann", "right")
            repeated = await staff.answer(Wiring(), broker_url, told)
            assert repeated.answered_at == done.answered_at, "the same answer was another one"
            with pytest.raises(UsageError, match="answered already: upheld by ann"):
                await staff.answer(Wiring(), broker_url, msgspec.structs.replace(told, Who="ben"))
            (result,) = await asyncio.to_thread(plain.take, "results_queue", 1)
        await recorded(one_database, "confirmed", 1)
    asked = [("student", "asked"), ("assistant", "upheld"), ("coordinator", "submitted")]
    assert await history(one_database, identity) == [*WAY, *asked, *WAY[1:]]
    assert result["Mark"] == 8.0
    assert [hop["remark"] for hop in result[HISTORY] if "remark" in hop][:2] == ["test 3 is wrong", "right"]
    assert result["Remarks"] == ["Another look was asked for: test 3 is wrong"]


async def test_a_plain_program_asks_and_a_request_waits_for_a_coordinator(
    broker_url: str, one_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await asyncio.to_thread(_confirmed, one_database, Files(str(tmp_path)), 7, b"x")
    with pytest.raises(UsageError, match="1 to 10000 characters"):  # before it is sent: nobody reads it yet
        await students.request(Wiring(), broker_url, identity, 7, "x" * 10_001)
    monkeypatch.setattr(students, "REPLY_WITHIN", 0.1)
    with pytest.raises(RequestTimeout, match="waits on the broker"):
        await students.request(Wiring(), broker_url, identity, 7, "first")
    async with role_set(broker_url, one_database):

        def waits() -> list[Request]:
            return one_database.read_now(requests.waiting)

        await eventually(lambda: len(waits()) == 1, "the request that waited is recorded")
        await asyncio.to_thread(_answered, one_database, waits()[0].id, "refused", remark="no")
        with Plain(broker_url) as plain:
            for reason in ("second", "third"):  # without a message id, and still two requests
                told = {"SubmissionID": identity, "StudentID": 7, "Reason": reason}
                body = json.dumps(told).encode()
                plain.channel.basic_publish(exchange="", routing_key=requesting.QUEUE, body=body)
                await eventually(lambda: len(waits()) == 1, "the plain program's request")
                (one,) = waits()
                assert one.reason == reason
                await asyncio.to_thread(_answered, one_database, one.id, "refused", remark="no")


def test_a_refused_request_leaves_the_mark_and_its_reason_in_the_history(database: Database, tmp_path: Path) -> None:
    identity = _confirmed(database, Files(str(tmp_path)), 7, b"x", mark=4.0)
    asked = _asked(database, identity)
    assert asked == _asked(database, identity), "the same message made two requests"
    with pytest.raises(UsageError, match="write why"):
        _answered(database, asked.id, "refused", remark=" ")
    with pytest.raises(UsageError, match="is no answer"):
        _answered(database, asked.id, "perhaps", remark="x")
    done = _answered(database, asked.id, "refused", remark="see the sheet")
    assert (done.answer, done.who, done.role, done.remark) == ("refused", "ann", "assistant", "see the sheet")
    with pytest.raises(UsageError, match="answered already: refused by ann"):
        _answered(database, asked.id, "upheld", data=b"x")
    found = database.read_now(partial(course.submission, identity=identity))
    assert found is not None
    assert (found[0].status, found[0].mark) == ("confirmed", 4.0)
    assert [(hop.status, hop.remark) for hop in found[1][-2:]] == [("asked", "why?"), ("refused", "see the sheet")]
    assert database.read_now(requests.waiting) == []


def test_what_can_not_be_asked_or_upheld_is_refused(database: Database, tmp_path: Path) -> None:
    identity = _confirmed(database, Files(str(tmp_path)), 7, b"x")
    with pytest.raises(NoSuchID, match="no submission"):
        _asked(database, "nothing")
    with pytest.raises(UsageError, match="1 to 10000 characters"):
        _asked(database, identity, reason=" ")
    first = _asked(database, identity)
    with pytest.raises(UsageError, match="its file is not kept"):
        _answered(database, first.id, "upheld")
    assert [one.id for one in database.read_now(requests.waiting)] == [first.id], "a failed answer was recorded"
    _answered(database, first.id, "upheld", data=b"x")
    with pytest.raises(UsageError, match="once it is confirmed"):
        _asked(database, identity, "m2")


def test_who_asks_learns_nothing_of_the_ids_of_others(database: Database, tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    identity = _confirmed(database, files, 7, b"x")
    _confirmed(database, files, 8, b"y")
    wrong = {}
    for given in (identity, identity[:4], "f00d", "nothing"):
        with pytest.raises(NoSuchID) as caught:
            _asked(database, given, student="8")
        wrong[given] = str(caught.value).replace(repr(given), "ID")
    assert set(wrong.values()) == {"no submission of student 8 has the id ID, or an id that begins so"}
    _asked(database, identity, "m1")
    with pytest.raises(NoSuchID, match="no submission of student 8"):
        _asked(database, identity, "m1", student="8")  # the message id of another's request


def test_a_submission_has_a_limited_number_of_requests(database: Database, tmp_path: Path) -> None:
    identity = _confirmed(database, Files(str(tmp_path)), 7, b"x")
    for number in range(requests.MOST):
        _answered(database, _asked(database, identity, f"m{number}").id, "refused", remark="no")
    with pytest.raises(UsageError, match="can't have another"):
        _asked(database, identity, "more")


def test_people_answer_on_the_command_line(
    one_url: str,
    broker_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = int(_root.run(("grading", "requests", *arguments)))
        return code, *capsys.readouterr()

    for name, value in {"BROKER": broker_url, "DATABASE": one_url}.items():
        monkeypatch.setenv(f"RABBITRY_{name}", value)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with Database(one_url) as database:
        one, other = (_confirmed(database, Files(default_place(one_url)), 7, data) for data in (b"x", b"y"))
        _asked(database, one, reason="look")
        _asked(database, other, "m2")
        told = [json.loads(line) for line in run("list", "--json")[1].splitlines()]
        assert [(each["submission"], each["reason"]) for each in told] == [(one, "look"), (other, "why?")]
        more = {
            "RABBITRY_BROKER": broker_url,
            "RABBITRY_DATABASE": one_url,
            "XDG_DATA_HOME": str(tmp_path / "data"),
        }
        with commands.service("grading", "coordinator", more=more) as coordinator:
            coordinator.wait_for("coordinator, records")
            monkeypatch.delenv("RABBITRY_DATABASE")  # on another machine: only the broker is there
            code, _, err = run("uphold", one, "--role", "assistant")
            assert code == 0, err
            code, out, err = run("refuse", other, "--reason", "it is right", "--json")
            assert (code, json.loads(out)["answer"]) == (0, "refused"), err
            code, _, err = run("refuse", other, "--reason", "it is right")
            assert (code, "no request about" in err) == (1, True)
        assert database.read_now(course.counts) == {"submitted": 1, "confirmed": 1}


async def test_answers_are_signed_as_the_policy_wants(broker_url: str, one_database: Database, tmp_path: Path) -> None:
    pem, public = new_key()
    mine, foreign = Signer(pem), Signer(new_key()[0])
    keys = {public: Key("desk", public, ("assistant",), (CC.name,))}

    def wiring(policy: Policy) -> Wiring:
        return Wiring(replace(Course(), signatures=Signatures(keys, policy)))

    async def answered(told: Answer, policy: Policy, signer: Signer | None) -> Request:
        async with role_set(broker_url, one_database, [RoleSpec("coordinator")], wiring=wiring(policy)):
            return await staff.answer(Wiring(), broker_url, told, signer=signer)

    files = Files(str(tmp_path))
    for data, policy, signer, role, why in (
        (b"1", "refuse", None, "assistant", "it has no signature"),
        (b"2", "refuse", foreign, "assistant", "configuration lacks"),
        (b"3", "flag", mine, "demonstrator", "may not sign for 'demonstrator'"),
    ):
        identity = await asyncio.to_thread(_confirmed, one_database, files, 7, data)
        asked = await asyncio.to_thread(_asked, one_database, identity, f"m{identity}")
        told = staff.made(identity, asked.id, "refused", role, "ann", "no")
        with pytest.raises(UsageError, match=why):
            await answered(told, cast("Policy", policy), signer)
        assert [hop.status for hop in (await _hops(one_database, identity))][-1] == "asked"
        told = staff.made(identity, asked.id, "refused", "assistant", "ann", "no")
        assert (await answered(told, "refuse", mine)).answer == "refused"
        last = (await _hops(one_database, identity))[-1]
        assert (last.status, last.signer, last.doubt, last.place) == ("refused", "desk", None, told.Where)
    identity = await asyncio.to_thread(_confirmed, one_database, files, 7, b"4")
    asked = await asyncio.to_thread(_asked, one_database, identity, "m4")
    told = staff.made(identity, asked.id, "refused", "assistant", "ann", "no")
    forged = msgspec.structs.replace(msgspec.convert(mine.sign_answer(msgspec.to_builtins(told)), Answer), Remark="yes")
    with pytest.raises(UsageError, match="does not match"):
        await answered(forged, "flag", None)
    assert (await answered(told, "flag", None)).answer == "refused"
    last = (await _hops(one_database, identity))[-1]
    assert (last.signer, last.doubt) == (None, "it has no signature")


async def _hops(database: Database, identity: str) -> list[course.Hop]:
    found = await database.read(partial(course.submission, identity=identity))
    assert found is not None
    return found[1]
