"""The records on both databases: each hop once, in any order, and no decision that is not published."""

import asyncio
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Table, column, event, insert, inspect, select, table, text, update

from rabbitry._ids import NoSuchID
from rabbitry.apps import _records
from rabbitry.apps._records import Database as OlderDatabase
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.files import Kept
from rabbitry.apps.grading.message import Assignment, Decision, Progress, now, submission
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, inbox, outbox, schema
from rabbitry.apps.grading.records.beginning import begins
from rabbitry.apps.grading.records.database import SCHEMA
from rabbitry.apps.grading.records.schema import submissions
from rabbitry.apps.grading.roles import ROLES, decide
from rabbitry.exceptions import UsageError
from tests.apps.grading.test_message import FOUR, message
from tests.support.waiting import WITHIN

NOBODY = Decision("automatic")


def _way(identity: str = "s1", student: int = 7, **more: Any) -> list[Assignment]:
    """Return an assignment in each of its statuses."""
    way = [Assignment(submission(student, "cloud_computing", b"x", "f.py", identity) | more)]
    for role in ROLES.values():
        marked = Decision("ann", 8.0, 10.0, "good") if role.name == "demonstrator" else NOBODY
        way.append(decide(way[-1], role, role.actions[0], marked))
    return way


def _status(database: Database, identity: str = "s1") -> str:
    found = database.read_now(partial(course.submission, identity=identity))
    assert found is not None
    return found[0].status


def test_hops_in_any_order_and_twice_make_one_history(database: Database) -> None:
    submitted, corrected, validated, confirmed = _way()
    for told in (corrected, submitted, corrected, validated):
        database.write_now(partial(course.record, assignment=Assignment(Progress.of(told))))
    assert _status(database) == "validated"
    assert database.write_now(partial(course.confirm, assignment=confirmed, message="m1"))
    found = database.read_now(partial(course.submission, identity="s1"))
    assert found is not None
    one, hops = found
    assert (one.status, one.mark, one.out_of, one.feedback, one.attempt) == ("confirmed", 8.0, 10.0, "good", 1)
    assert [hop.status for hop in hops] == ["submitted", "corrected", "validated", "confirmed"]
    assert hops[1].mark == 8.0
    # A late message changes nothing.
    database.write_now(partial(course.record, assignment=validated))
    assert _status(database) == "confirmed"


@pytest.mark.parametrize("seed", range(5))
def test_reports_recorded_together_do_what_they_do_one_by_one(database: Database, seed: int) -> None:
    """In any order, repeated, and about a confirmed submission and one that is marked again."""
    chance = Random(seed)
    told = [(chance.randrange(4), chance.randrange(4)) for _ in range(40)]
    for name in ("alone", "together"):
        ways = [_way(f"{name}{number}") for number in range(4)]
        again = Assignment(ways[1][-1]).moved("submitted", "coordinator", Decision("eve", remark="again"))
        ways[1][1:] = [again, *_way_on(again)[:2]]
        for number in (0, 1):
            confirm = partial(course.confirm, assignment=_way(f"{name}{number}")[-1], message="m")
            assert database.write_now(confirm)
        database.write_now(partial(_reopen, hop=again.history[-1], identity=f"{name}1"))
        kept = [Kept.of(b"x"), None]
        reports = [course.Report(ways[one][step], kept[step % 2]) for one, step in told if (one, step) != (0, 3)]
        for part in [[report] for report in reports] if name == "alone" else [reports[:15], reports[15:]]:
            database.write_now(partial(course.record_all, reports=part))
    tables = (schema.submissions, schema.submissions.c.id), (schema.history, schema.history.c.submission)
    for found, identity in (*tables, (schema.handed_in, schema.handed_in.c.submission)):
        alone, together = (
            database.read_now(partial(_rows, found=found, identity=identity, name=name))
            for name in ("alone", "together")
        )
        assert alone == together
        assert alone


def _way_on(assignment: Assignment) -> list[Assignment]:
    """Return what the roles make of an assignment that was submitted."""
    way = [assignment]
    for role in ROLES.values():
        way.append(decide(way[-1], role, role.actions[0], NOBODY))
    return way[1:]


def _reopen(connection: Connection, hop: dict[str, Any], identity: str) -> None:
    """Do to the records what marking again does."""
    changed = {"status": "submitted", "step": 5, "reopened_at": 5, "confirmed_by": None}
    connection.execute(update(schema.submissions).where(schema.submissions.c.id == identity).values(changed))
    row = {name: hop[name] for name in ("role", "status", "who", "remark")}
    row |= {"submission": identity, "step": 5, "place": hop["where"], "at": hop["when"]}
    connection.execute(insert(schema.history), row)


def _rows(connection: Connection, found: Table, identity: Column[str], name: str) -> list[dict[str, Any]]:
    """Return the rows of submissions without the times at which they were recorded, and what is in their names."""
    query = select(found).where(begins(identity, name)).order_by(*found.primary_key)
    rows = [dict(row._mapping) for row in connection.execute(query)]
    times = ("submitted_at", "updated_at", "at")
    return [
        {column: str(value).replace(name, "", 1) for column, value in row.items() if column not in times}
        for row in rows
    ]


def test_a_confirmation_counts_once_and_is_published_again_for_the_same_message(database: Database) -> None:
    *_, confirmed = _way()
    confirm = partial(course.confirm, assignment=confirmed)
    answers = [database.write_now(partial(confirm, message=name)) for name in ("m1", "m1", "m2", "m1")]
    assert answers == [True, True, False, True]
    assert database.read_now(course.counts) == {"confirmed": 1}


def test_missing_earlier_hops_are_taken_from_the_message(database: Database) -> None:
    *_, confirmed = _way()
    database.write_now(partial(course.confirm, assignment=confirmed, message="m1"))
    found = database.read_now(partial(course.submission, identity="s1"))
    assert found is not None
    assert [hop.status for hop in found[1]] == ["submitted", "corrected", "validated", "confirmed"]


def test_a_second_submission_is_a_new_attempt_and_the_older_one_marked_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [_way(name, student)[1] for name, student in (("a", 7), ("b", 7), ("c", 8), ("d", 7))]
    for one in reversed(made):  # in any order
        database.write_now(partial(course.record, assignment=one))
    other = Assignment(_way("e", 7)[1] | {"Module": "data_mining"})
    database.write_now(partial(course.record, assignment=other))
    found = {one.id: (one.attempt, one.latest) for one in database.read_now(course.submissions_of)}
    assert found == {"a": (1, False), "b": (2, False), "d": (3, True), "c": (1, True), "e": (1, True)}
    second = database.read_now(partial(course.submission, identity="b"))
    assert second is not None
    assert (second[0].attempt, second[0].latest) == (2, False)
    assert {item.id for item in database.read_now(partial(course.submissions_of, wanted=course.Filter("8")))} == {"c"}
    assert {item.id for item in database.read_now(partial(course.submissions_of, wanted=course.Filter("%")))} == set()
    # Of more students than one query names, all of a module are numbered.
    monkeypatch.setattr(course, "FEW", 0)
    for module in (None, "cloud_computing", "data_mining"):
        rows = database.read_now(partial(course.submissions_of, wanted=course.Filter(module=module)))
        assert {one.id: (one.attempt, one.latest) for one in rows} == {
            one: place
            for one, place in found.items()
            if module in (None, "data_mining" if one == "e" else "cloud_computing")
        }


def _told(database: Database, *assignments: Assignment) -> tuple[course.Submission, list[course.Hop]]:
    for assignment in assignments:
        database.write_now(partial(course.record, assignment=assignment))
    found = database.read_now(partial(course.submission, identity=assignments[0].id))
    assert found is not None
    return found


def test_a_student_s_own_time_mark_and_hops_are_not_recorded(database: Database) -> None:
    before = now()
    hop = {"role": "student", "status": "submitted", "who": "x", "when": "2001-01-01T00:00:00+00:00", "mark": 9}
    forged = Assignment(FOUR | {"SubmissionID": "s1", "Mark": 10, "Feedback": "splendid", "History": [hop] * 40})
    one, hops = _told(database, Assignment(Progress.of(forged)))
    assert (one.mark, one.feedback, len(hops), hops[0].mark) == (None, None, 1, None)
    assert before <= one.submitted_at == hops[0].at <= now()
    one, _ = _told(database, _way(student=23200858)[1])  # though the student claimed 40 hops
    assert (one.status, one.mark) == ("corrected", 8.0)


def test_the_first_role_sets_the_time_of_submission(database: Database) -> None:
    submitted, corrected, *_ = _way()
    taken = submitted.history[0]["when"]
    for order in ((submitted, corrected), (corrected, submitted)):
        one, hops = _told(database, *order)
        assert one.submitted_at == hops[0].at == taken
    late = Assignment(corrected | {"SubmissionID": "s2"})
    late["History"] = [submitted.history[0] | {"when": "2999-01-01T00:00:00+00:00"}, *corrected.history[1:]]
    assert _told(database, late)[0].submitted_at <= now()


def test_an_assignment_sent_back_does_not_change_the_time_of_submission(database: Database) -> None:
    submitted, corrected, *_ = _way()
    old = submitted.history[0] | {"when": "2001-01-01T00:00:00+00:00"}
    back = {"role": "assistant", "status": "submitted", "remark": "again"}
    for hops in ([old, back], [old, corrected.history[1]]):
        forged = Assignment(submitted | {"History": hops, "Remarks": ["again"], "SubmissionID": f"forged{len(hops)}"})
        moved = decide(forged, ROLES["demonstrator"], "correct", Decision("ann", 1.0))
        assert _told(database, moved)[0].submitted_at > "2002"


def test_a_confirmation_replaces_earlier_records(database: Database) -> None:
    *_, validated, confirmed = _way()
    hops = [{"role": "assistant", "status": "validated", "mark": 99}] * 9
    _told(database, Assignment(validated | {"Mark": 99, "History": hops, "StudentID": 666}))
    assert database.write_now(partial(course.confirm, assignment=confirmed, message="m1"))
    one, recorded = _told(database, Assignment(validated | {"Mark": 98, "History": hops * 2}))
    assert (one.student, one.mark, one.status) == ("7", 8.0, "confirmed")
    assert [hop.status for hop in recorded] == ["submitted", "corrected", "validated", "confirmed"]


def test_data_from_the_wire_do_not_break_the_records(database: Database) -> None:
    hop = {"role": 7, "status": None, "who": "\0" * 500, "when": "yesterday", "mark": 10**400, "feedback": ["x"]}
    fields = FOUR | {"Mark": "many", "OutOf": True, "Feedback": "a\0b", "SolutionName": 3, "History": [hop, {}]}
    odd = Assignment.received(fields | {"StudentID": "x'; DROP TABLE history; --"}, message())
    database.write_now(partial(course.record, assignment=odd))
    database.write_now(partial(course.confirm, assignment=odd, message="m1"))
    found = database.read_now(partial(course.submission, identity="m1"))
    assert found is not None
    assert (found[0].mark, found[0].feedback, found[1][0].mark) == (None, "a\ufffdb", None)
    assert found[0].student == "x'; DROP TABLE history; --"


def test_message_ids_that_are_not_text_do_not_break_the_records(database: Database) -> None:
    for number, name in enumerate(("a\0b", "m\udcff")):
        odd = Assignment.received(FOUR | {"SubmissionID": f"odd{number}"}, message())
        assert _put(database, "coordinator", odd, name)
        confirm = partial(course.confirm, assignment=odd, message=name)
        assert [database.write_now(confirm) for _ in range(2)] == [True, True]
        assert database.read_now(partial(course.submission, identity=name)) is None
        assert database.read_now(partial(course.submissions_of, wanted=course.Filter(name))) == []
        with pytest.raises(NoSuchID, match="no assignment that waits"):
            database.read_now(partial(inbox.item, identity=name))


def _put(database: Database, role: str, assignment: Assignment, name: str = "m1") -> bool:
    named = next(item for item in ROLES.values() if item.name == role)
    put = partial(inbox.put, role=named, assignment=assignment, exchange="assignment_exchange", message=name)
    return database.write_now(put)


def test_an_inbox_takes_each_hop_once(database: Database) -> None:
    submitted, corrected, *_ = _way()
    assert _put(database, "demonstrator", submitted)
    assert not _put(database, "demonstrator", submitted, "m2")
    assert _put(database, "assistant", corrected)
    assert database.read_now(inbox.counts) == {"demonstrator": 1, "assistant": 1}
    (item,) = database.read_now(partial(inbox.waiting, role="demonstrator"))
    assert item.assignment == submitted


def test_a_decision_is_recorded_and_to_be_published_together_or_not_at_all(database: Database) -> None:
    submitted, *_ = _way()
    _put(database, "demonstrator", submitted)
    found = database.read_now(partial(inbox.item, identity="s1"))

    def fails(connection: Any) -> None:
        inbox.settle(connection, found, "correct", Decision("ann", 5.0), Course())
        raise ValueError("the power went")

    with pytest.raises(ValueError, match="the power went"):
        database.write_now(fails)
    assert database.read_now(outbox.count) == 0
    assert database.read_now(inbox.counts) == {"demonstrator": 1}

    settle = partial(inbox.settle, found=found, action="correct", course=Course())
    done = database.write_now(partial(settle, decision=Decision("ann", 5.0, 10.0, "half")))
    assert (done.status, done["Mark"]) == ("corrected", 5.0)
    assert database.read_now(inbox.counts) == {}
    with pytest.raises(UsageError, match=r"another person decided first.*ann decided as the demonstrator"):
        database.write_now(partial(settle, decision=Decision("bob", 9.0)))
    with pytest.raises(NoSuchID, match="is decided already"):
        database.read_now(partial(inbox.item, identity="s1"))
    letters = database.write_now(partial(outbox.claim, roles=["demonstrator"]))
    assert [(letter.key, letter.required) for letter in letters] == [("validation", True), ("progress", False)]
    assert not _put(database, "demonstrator", submitted, "m3"), "what was decided does not come again"


def test_two_publishers_share_an_outbox(database: Database) -> None:
    for number in range(20):
        submitted, *_ = _way(f"s{number}")
        _put(database, "demonstrator", submitted)
        found = database.read_now(partial(inbox.item, identity=f"s{number}"))
        settle = partial(inbox.settle, found=found, action="correct", course=Course())
        database.write_now(partial(settle, decision=NOBODY))
    first = database.write_now(partial(outbox.claim, roles=["demonstrator"], limit=15))
    second = database.write_now(partial(outbox.claim, roles=["demonstrator", "assistant"]))
    assert len(first) == 15
    assert len(second) == 25
    assert not {letter.id for letter in first} & {letter.id for letter in second}
    assert database.read_now(partial(outbox.is_empty, roles=["demonstrator"]))
    database.write_now(partial(outbox.published, letters=[letter.id for letter in first]))
    database.write_now(partial(outbox.release, letters=[letter.id for letter in second]))
    again = database.write_now(partial(outbox.claim, roles=["demonstrator"]))
    assert [letter.message for letter in again] == [letter.message for letter in second]
    assert database.write_now(partial(outbox.claim, roles=["assistant"])) == []


def test_a_failing_write_does_not_affect_the_others(database: Database) -> None:
    held = threading.Event()
    blocked = database._submit(lambda connection: held.wait(90))
    good = [database._submit(partial(course.record, assignment=_way(f"s{n}")[0])) for n in range(5)]
    bad = database._submit(lambda connection: connection.execute(text("SELECT 1 FROM nowhere")))
    held.set()
    assert blocked.result(90)
    for future in good:
        future.result(90)
    with pytest.raises(RecordsError, match="nowhere"):
        bad.result(90)
    assert database.read_now(course.counts) == {"submitted": 5}


def test_a_write_does_not_wait_for_a_stopped_program_for_ever(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_records, "_BUSY_SECONDS", 0.2)
    monkeypatch.setattr(_records, "_LOCK_SECONDS", 0.2)
    begun, held = threading.Event(), threading.Event()

    def stop(connection: Connection) -> None:
        connection.execute(submissions.update().values(step=1))
        begun.set()
        held.wait(90)

    record = partial(course.record, assignment=_way()[0])
    database.write_now(record)
    stopped = database._submit(stop)
    assert begun.wait(90)
    with Database(database_url, existing=True) as other:
        with pytest.raises(RecordsError, match=r"kept it locked for 0\.2 s: if one was stopped, let it go on"):
            other.write_now(lambda connection: connection.execute(submissions.update().values(step=2)))
        held.set()
        stopped.result(90)
        other.write_now(lambda connection: connection.execute(submissions.update().values(step=2)))


def test_several_processes_may_open_it_at_once(database_url: str) -> None:
    errors: list[Exception] = []

    def use(number: int) -> None:
        try:
            with Database(database_url) as database:
                database.write_now(partial(course.record, assignment=_way(f"s{number}")[0]))
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert errors == []
    with Database(database_url) as database:
        assert database.read_now(course.counts) == {"submitted": 6}


def test_a_file_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "records.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.2, other.execute, ["COMMIT"])
        release.start()
        with Database(f"sqlite:///{file}") as database:
            assert database.read_now(course.counts) == {}
        release.join()


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    with Database(database_url) as database:
        database.write_now(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '99'")))
    with pytest.raises(RecordsError, match="schema '99'"), Database(database_url):
        pass


def _described(connection: Connection) -> dict[str, Any]:
    """Describe each table: its columns, keys and indexes."""
    found = inspect(connection)
    described: dict[str, Any] = {}
    for name in found.get_table_names():
        described[name] = {
            "columns": {one["name"]: {**one, "type": str(one["type"])} for one in found.get_columns(name)},
            "primary key": found.get_pk_constraint(name),
            "foreign keys": found.get_foreign_keys(name),
            "unique": sorted(found.get_unique_constraints(name), key=str),
            "indexes": {one["name"]: one for one in found.get_indexes(name)},
        }
    if connection.dialect.name == "postgresql":  # with their operator classes
        statement = text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        described["indexes"] = sorted(map(tuple, connection.execute(statement)))
    version = connection.execute(text(f"SELECT * FROM {SCHEMA.version_table}")).all()  # noqa: S608 - a constant
    return {"tables": described, "version": version}


def test_a_new_database_is_as_all_migrations_make_it(database: Database, request: pytest.FixtureRequest) -> None:
    if str(database).startswith("postgresql"):
        url = request.getfixturevalue("postgresql_server").create_database()
    else:
        url = f"{database}.migrated"
    with OlderDatabase(replace(SCHEMA, tables=None), url) as migrated:
        assert database.read_now(_described) == migrated.read_now(_described)


def _insert(connection: Connection, name: str, row: dict[str, Any]) -> None:
    """Insert a row into a table with the columns of an older version."""
    connection.execute(table(name, *map(column, row)).insert().values(row))


@pytest.mark.parametrize("version", [str(number) for number in range(1, int(SCHEMA.head))])
def test_the_records_of_each_older_version_are_upgraded(database_url: str, version: str) -> None:
    at = "2026-01-01T00:00:00.000000+00:00"
    of: dict[str, Any] = {"role": "assistant", "submission": "a1"}
    rows: dict[str, dict[str, Any]] = {
        "submissions": {
            "id": "a1", "student": "7", "module": "m", "name": "x.py", "status": "corrected", "step": 2, "mark": 8.0,
            "out_of": 10.0, "feedback": "good", "submitted_at": at, "updated_at": at,
        },
        "history": {
            "submission": "a1", "step": 2, "role": "demonstrator", "status": "corrected", "who": "ann", "place": "here",
            "at": at, "mark": 8.0,
        },
        "inbox": of | {
            "id": 1, "step": 2, "student": "7", "module": "m", "exchange": "e", "message": "m1",
            "body": b'{"SubmissionID":"a1","StudentID":7}', "arrived_at": at,
        },
        "decisions": {"item": 1, "action": "validate", "who": "ben", "at": at},
        "outbox": of | {
            "exchange": "e", "key": "k", "required": 1, "message": "m2", "type": "Assignment", "body": b"{}",
            "created_at": at,
        },
    }  # fmt: skip
    with OlderDatabase(replace(SCHEMA, head=version, tables=None), database_url) as older:
        for name, row in rows.items():
            older.write_now(partial(_insert, name=name, row=row))
    with Database(database_url) as database:
        found = database.read_now(partial(course.submission, identity="a1"))
        letters = database.write_now(partial(outbox.claim, roles=["assistant"]))
        assert not database.read_now(partial(inbox.waiting, role="assistant"))
    assert found is not None
    one, (hop,) = found
    assert (one.student, one.mark, one.feedback, one.kept) == ("7", 8.0, "good", None)
    assert (hop.who, hop.mark, hop.signer, hop.comments) == ("ann", 8.0, None, ())
    assert [(letter.message, letter.body, letter.item) for letter in letters] == [("m2", b"{}", None)]


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite://", "nonsense", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///FILE or postgresql://") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_an_unreachable_database_is_reported_without_its_password(tmp_path: Path) -> None:
    from tests.support.ports import free_port

    url = f"postgresql://ann:secret@127.0.0.1:{free_port()}/course"
    with pytest.raises(RecordsError, match="course") as caught, Database(url):
        pass
    assert "secret" not in str(caught.value)
    (tmp_path / "file").write_text("this is no database at all, but some text of a user's")
    with pytest.raises(RecordsError, match="not a database"), Database(f"sqlite:///{tmp_path / 'file'}"):
        pass


def test_more_work_than_one_transaction_takes_is_done_in_its_order_also_while_closing(database_url: str) -> None:
    done: list[int] = []

    def note(connection: object, number: int) -> int:
        done.append(number)
        return number

    with Database(database_url) as database:
        futures = [database._submit(partial(note, number=number)) for number in range(450)]
    assert [future.result(0) for future in futures] == done == list(range(450))


def test_work_after_the_end_is_refused_and_does_not_wait_for_ever(database_url: str) -> None:
    with Database(database_url) as database:
        database.write_now(course.counts)
    done: list[str] = []

    def late() -> None:
        with pytest.raises(RecordsError, match="it was closed"):
            database.write_now(course.counts)
        with pytest.raises(RecordsError, match="it was closed"):
            database.read_now(course.counts)
        with pytest.raises(RecordsError, match="it was closed"):
            asyncio.run(database.read(course.counts))
        done.append("refused")

    thread = threading.Thread(target=late, daemon=True)
    thread.start()
    thread.join(WITHIN)
    assert done == ["refused"]


def test_a_new_file_is_its_user_s_alone_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    new, shared = tmp_path / "new.sqlite3", tmp_path / "shared.sqlite3"
    shared.touch()
    shared.chmod(0o660)
    for file, mode in ((new, 0o600), (shared, 0o660)):
        with Database(f"sqlite:///{file}"):
            modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(f"{file.name}*")}
        assert modes == {mode}


def test_a_search_by_a_beginning_takes_its_letters_as_they_are(database: Database) -> None:
    for student, identity in (("7", "abc1"), ("70", "ABC2"), ("a_b", "x%y"), ("a/b", "zz")):
        made = Assignment(submission(student, "cloud_computing", b"x", "f.py", identity))
        made["SubmissionID"] = identity
        database.write_now(partial(course.record, assignment=made))

    def found(find: str) -> set[str]:
        return {one.student for one in database.read_now(partial(course.submissions_of, wanted=course.Filter(find)))}

    assert found("abc") == {"7"}, "upper and lower case were equal"
    assert found("7") == {"7", "70"}
    assert found("a_") == {"a_b"}
    assert found("a/") == {"a/b"}
    assert found("x%") == {"a_b"}
    assert found("%") == found("_") == set()


def test_a_search_by_a_beginning_reads_an_index(database: Database) -> None:
    query = select(submissions.c.id).where(begins(submissions.c.student, "232"))

    def plan(connection: Connection) -> str:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        told = query.compile(connection, compile_kwargs={"literal_binds": True})
        explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        return str(connection.exec_driver_sql(f"{explain} {told}".replace("%", "%%")).all())

    assert "submissions_student_begins" in (said := database.read_now(plan)) or "SEARCH submissions" in said, said


@pytest.mark.parametrize(
    "wanted",
    [
        course.Filter(),
        course.Filter(module="a"),
        course.Filter(status="b"),
        course.Filter(module="a", status="b"),
        course.Filter(modules=("a",)),
    ],
)
def test_lists_are_read_from_an_index_in_their_order(database: Database, wanted: course.Filter) -> None:
    def plan(connection: Connection) -> str:
        sent: list[tuple[str, Any]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            sent.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        course.submissions_of(connection, replace(wanted, limit=100))
        event.remove(connection, "before_cursor_execute", note)
        is_postgresql = connection.dialect.name == "postgresql"
        for name in ("seqscan", "sort", "incremental_sort") if is_postgresql else ():
            connection.execute(text(f"SET LOCAL enable_{name} = off"))
        explain = "EXPLAIN" if is_postgresql else "EXPLAIN QUERY PLAN"
        statement, given = next(one for one in sent if "ORDER BY" in one[0])
        return str(connection.exec_driver_sql(f"{explain} {statement}", given).all())

    said = database.read_now(plan)
    assert "submissions_" in said, said
    assert "Sort" not in said, said
    assert "TEMP B-TREE" not in said, said


def test_the_attempt_before_is_the_last_earlier_one_whose_file_is_kept(database: Database) -> None:
    for identity, student, is_kept in (("a", 7, True), ("b", 8, True), ("c", 7, False), ("d", 7, True)):
        made = Assignment(submission(student, "cloud_computing", b"x", "f.py", identity))
        kept = Kept.of(b"x") if is_kept else None
        database.write_now(partial(course.record, assignment=made, kept=kept))
    declined = submission(7, "cloud_computing", b"x", "f.py", "e").moved("declined", "demonstrator", NOBODY)
    database.write_now(partial(course.record, assignment=declined, kept=Kept.of(b"x")))
    later = Assignment(submission(7, "cloud_computing", b"x", "f.py", "f"))
    database.write_now(partial(course.record, assignment=later, kept=Kept.of(b"x")))
    before = {each: database.read_now(partial(course.attempt_before, identity=each)) for each in "abcdefx"}
    assert before == {"a": None, "b": None, "c": "a", "d": "a", "e": "d", "f": "d", "x": None}
