"""Marking again: a run takes a fixed set of confirmed submissions, and reopens each of them once.

A reopened submission is submitted again, by the coordinator and with its whole history, so that it goes through the
roles like one that was sent back. The transaction that reopens it also puts its message into the outbox and notes it in
the run. Therefore a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, Select, case, func, insert, literal, or_, select, update

from rabbitry.apps.grading.comments import COMMENTS, as_sent
from rabbitry.apps.grading.deadlines import Counts, Deadlines, Judged
from rabbitry.apps.grading.message import (
    FEEDBACK,
    HISTORY,
    LONGEST_TEXT,
    MARK,
    OUT_OF,
    REMARKS,
    STATUS,
    Assignment,
    Decision,
    now,
)
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.personal import MARKS
from rabbitry.apps.grading.receiving import again
from rabbitry.apps.grading.records import outbox, statements
from rabbitry.apps.grading.records.course import CONFIRMED, FEW, Hop, Submission, submission, submissions_by_id
from rabbitry.apps.grading.records.judging import Handed, judgements, students_of
from rabbitry.apps.grading.records.schema import handed_in, history, regraded, regrades, submissions, text
from rabbitry.apps.grading.roles import ROLES, key_of

COORDINATOR: Final = ROLES["coordinator"]
REOPENED: Final = 1
LOST: Final = 2
UNCONFIRMED: Final = 3
"""The outcomes of a submission in a run, see the column `is_done`."""
_AT_ONCE: Final = 100
"""Submissions that are read at a time: each may have a feedback of 100,000 characters."""
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Selection:
    """The submissions to mark again. since: the earliest time of submission, in the records' form; None for all.

    all_attempts: all of each student's attempts, not only those that count or, where the best one counts, that can.
    """

    module: str
    since: str | None = None
    student: str | None = None
    all_attempts: bool = False

    def selects(self, found: Handed, judged: Judged | None, rules: Deadlines | None) -> bool:
        """Return whether a submission of the module is one to mark again. judged: None if it was declined."""
        # Where the best attempt counts, another mark may make another one the best.
        is_best = rules is not None and rules.counts is Counts.BEST
        could_count = judged is not None and (
            judged.counts or (is_best and judged.timing is not None and judged.timing.can_count)
        )
        return (self.since is None or found.submitted_at >= self.since) and (self.all_attempts or could_count)


@dataclass(frozen=True, slots=True)
class Run:
    """A run. left: the submissions still to reopen. resumed: how many were reopened before, if it goes on."""

    id: int
    who: str
    remark: str
    left: tuple[str, ...]
    resumed: int


class Selected(NamedTuple):
    """The submissions of a student that are selected, by id. of: how many the student has."""

    student: str
    ids: list[str]
    of: int


def selected(
    connection: Connection, selection: Selection, course: Course, *, since: str = ""
) -> Generator[Selected, None, None]:
    """Yield what is selected, student by student, in the order of the students.

    since: from this student on, so that it can be had in parts.
    """
    known = course.modules.get(selection.module)
    rules = None if known is None else known.deadlines
    for student, handed in students_of(connection, selection.module, student=selection.student, since=since):
        judged = {} if selection.all_attempts else judgements(student, handed, rules)
        # Sorted here, because databases order texts by their own rules.
        ids = sorted(one.id for one in handed if selection.selects(one, judged.get(one.id), rules))
        yield Selected(student, ids, len(handed))


def candidates(connection: Connection, ids: Sequence[str]) -> Iterator[tuple[Submission, str | None]]:
    """Yield selected submissions, each with the reason why it can't be marked again (yet); None if it can.

    Those that can are confirmed, and their files are kept.
    """
    for part in _parts(ids, _AT_ONCE):
        why = {row.id: row.why for row in connection.execute(_reasons(part))}
        for one in submissions_by_id(connection, part):
            yield one, why[one.id]


def _able(connection: Connection, selection: Selection, course: Course) -> Iterator[str]:
    """Yield the ids of the selected submissions that can be marked again."""
    ids = [identity for one in selected(connection, selection, course) for identity in one.ids]
    for part in _parts(ids, FEW):
        yield from (row.id for row in connection.execute(_reasons(part)) if row.why is None)


def _parts(ids: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Yield ids, so many at a time."""
    return (ids[first : first + most] for first in range(0, len(ids), most))


def _reasons(ids: Sequence[str]) -> Select[Any]:
    """Return the query for the reason why each of some submissions can't be marked again; null if it can."""
    columns = submissions.c
    why = case(
        (columns.status != CONFIRMED, literal("not confirmed yet")),
        (or_(columns.sha256.is_(None), columns.size.is_(None)), literal("the file is not kept")),
        (handed_in.c.submission.is_(None), literal("only the file is kept, not the message's other fields")),
    )
    with_fields = submissions.outerjoin(handed_in, handed_in.c.submission == columns.id)
    return select(columns.id, why.label("why")).select_from(with_fields).where(columns.id.in_(ids))


def begin(
    connection: Connection, selection: Selection, course: Course, who: str, remark: str, *, by_coordinator: bool = False
) -> Run:
    """Begin a run, or return the one for the same selection that has not ended.

    Args:
        connection: An open connection.
        selection: The submissions.
        course: The course, which says what counts.
        who: Who begins a new run.
        remark: The reason, for a new run.
        by_coordinator: Whether a coordinator does the run, also one that a command has begun.
    """
    named = _encode(asdict(selection)).decode()
    same = select(regrades).where(regrades.c.selection == named, regrades.c.ended_at.is_(None))
    row = connection.execute(same.order_by(regrades.c.id).limit(1)).first()
    if row is None:
        values = {"selection": named, "who": text(who, 200), "remark": text(remark, LONGEST_TEXT), "begun_at": now()}
        row = connection.execute(insert(regrades).returning(*regrades.c), values).one()
        able = [{"regrade": row.id, "submission": one} for one in _able(connection, selection, course)]
        if able:
            connection.execute(insert(regraded), able)
    if by_coordinator:
        connection.execute(update(regrades).where(regrades.c.id == row.id).values(by_coordinator=1))
    return _run(connection, row)


def begun(connection: Connection) -> Run | None:
    """Return the oldest run that a coordinator has still to do; None if there is none."""
    open_ = select(regrades).where(regrades.c.ended_at.is_(None), regrades.c.by_coordinator != 0)
    row = connection.execute(open_.order_by(regrades.c.id).limit(1)).first()
    return None if row is None else _run(connection, row)


def _run(connection: Connection, row: Row[Any]) -> Run:
    mine = regraded.c.regrade == row.id
    ids = select(submissions.c.id).join(regraded, regraded.c.submission == submissions.c.id)
    ids = ids.where(mine, regraded.c.is_done == 0).order_by(submissions.c.submitted_at, submissions.c.id)
    done = select(func.count()).select_from(regraded).where(mine, regraded.c.is_done != 0)
    left = tuple(connection.execute(ids).scalars())
    return Run(row.id, row.who, row.remark, left, connection.execute(done).scalar_one())


def reopen(
    connection: Connection, run: Run, identity: str, data: bytes | None, course: Course, exchange: str
) -> Assignment | None:
    """Submit a submission of a run again. Return it; None if it is not confirmed any more, or done already.

    Args:
        connection: An open connection.
        run: The run.
        identity: The submission's id.
        data: The file; None if it can't be read, and then the submission is only noted as done.
        course: The course, for the key of the module's demonstrators.
        exchange: The roles' exchange.
    """
    mine = (regraded.c.regrade == run.id) & (regraded.c.submission == identity)
    # The row is locked first, so that of two commands that go on with the same run, one finds it done.
    outcome = LOST if data is None else REOPENED
    locked = connection.execute(update(regraded).where(mine, regraded.c.is_done == 0).values(is_done=outcome))
    if locked.rowcount != 1 or data is None:
        return None
    made = submit_again(connection, identity, data, Decision(run.who, remark=run.remark), course, exchange)
    if made is None:
        connection.execute(update(regraded).where(mine).values(is_done=UNCONFIRMED))
    return made


def submit_again(
    connection: Connection,
    identity: str,
    data: bytes,
    decision: Decision,
    course: Course,
    exchange: str,
    *,
    was: str = CONFIRMED,
) -> Assignment | None:
    """Reopen a submission, and put its message into the coordinator's outbox. Return it.

    Args:
        connection: An open connection.
        identity: The submission's id.
        data: The file.
        decision: Who reopens it, and the remark that says why.
        course: The course, for the key of the module's demonstrators.
        exchange: The roles' exchange.
        was: The status that it must have: confirmed or declined.

    Returns:
        The assignment; None if it does not have the status (any more), or the message's other fields are not kept.
    """
    mine = submissions.c.id == identity
    is_so = submissions.c.confirmed_by.is_not(None) if was == CONFIRMED else submissions.c.status == was
    locked = connection.execute(select(submissions.c.id).where(mine, is_so).with_for_update()).first()
    found = submission(connection, identity) if locked is not None else None
    fields = connection.execute(select(handed_in.c.fields).where(handed_in.c.submission == identity)).scalar()
    if found is None or fields is None:
        return None
    assignment = as_recorded(found, again(fields, data)).moved("submitted", COORDINATOR.name, decision)
    step = assignment.step
    changed = {"status": assignment.status, "step": step, "updated_at": now(), "confirmed_by": None}
    connection.execute(update(submissions).where(mine).values(**changed, reopened_at=step))
    hop = assignment.history[-1]
    row = {"submission": identity, "step": step, "place": hop["where"], "at": hop["when"]}
    row |= {name: text(hop[name], LONGEST_TEXT) for name in ("role", "status", "who", "remark")}
    connection.execute(statements.FORGET, {"mine": identity, "since": step - 1})
    connection.execute(insert(history), row)
    outbox.add(connection, COORDINATOR.name, exchange, key_of(assignment, course), assignment, required=True)
    return assignment


def as_recorded(found: tuple[Submission, list[Hop]], handed: Assignment) -> Assignment:
    """Add what is recorded to an assignment as it was handed in: id, history, remarks, mark and status. Return it."""
    one, hops = found
    handed["SubmissionID"], handed[STATUS] = one.id, one.status
    handed[HISTORY] = [_hop(hop) for hop in hops]
    if one.sha256 is not None and hops:
        handed.history[0]["sha256"] = one.sha256
    # Requests for another look have remarks, too, but were not sent back.
    handed[REMARKS] = [hop.remark for hop in hops if hop.remark is not None and hop.status == "submitted"]
    for field, value in ((MARK, one.mark), (OUT_OF, one.out_of), (FEEDBACK, one.feedback)):
        if value is not None:
            handed[field] = value
    return handed


def _hop(hop: Hop) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "role": hop.role,
        "status": hop.status,
        "who": hop.who,
        "where": hop.place,
        "when": hop.at,
        "mark": hop.mark,
        "outOf": hop.out_of,
        "feedback": hop.feedback,
        "remark": hop.remark,
        COMMENTS: as_sent(hop.comments) or None,
        MARKS: [one.as_sent() for one in hop.marks] or None,
    }
    return {name: value for name, value in entry.items() if value is not None}


def end(connection: Connection, run: Run) -> int:
    """Note that a run has ended, if nothing of it is left. Return how many submissions are left."""
    left = select(func.count()).where(regraded.c.regrade == run.id, regraded.c.is_done == 0)
    number = connection.execute(left).scalar_one()
    if number == 0:
        connection.execute(update(regrades).where(regrades.c.id == run.id).values(ended_at=now()))
    return number
