"""The judgement of recorded submissions by the deadlines of their modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from rabbitry.apps.grading.deadlines import Attempt, Deadlines, Judged
from rabbitry.apps.grading.message import (
    DECLINED,
    FINAL_MARK,
    LATE,
    LONGEST_TEXT,
    PENALTY,
    SUBMITTED_AT,
    TIMING,
    Assignment,
    Decision,
    now,
)  # fmt: skip
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import course as course_records
from rabbitry.apps.grading.records.course import CONFIRMED, FEW, Submission
from rabbitry.apps.grading.records.releases import held_modules, releases_of
from rabbitry.apps.grading.records.schema import acceptances, insert_into, submissions, text
from rabbitry.apps.grading.records.withdrawing import withdrawals_of
from rabbitry.exceptions import UsageError

IN_PARTS: Final = {"yield_per": 1000}
"""Options of a query with more rows than are to be in memory at a time."""
_NO_ATTEMPT: Final = Judged(None, 0.0, 0.0, None, counts=False)
"""The judgement of a submission that was declined."""


def judged(connection: Connection, rows: Sequence[Submission], course: Course) -> dict[str, Judged]:
    """Judge submissions, by their ids, beside all other attempts of their students."""
    found: dict[str, Judged] = {}
    pairs: dict[tuple[str, str], Deadlines] = {}
    for row in rows:
        known = course.modules.get(row.module)
        if known is None or known.deadlines is None:
            found[row.id] = Judged(None, 0.0, 0.0, row.mark, row.latest)
        else:
            pairs[row.student, row.module] = known.deadlines
    found |= {row.id: _NO_ATTEMPT for row in rows if row.status == DECLINED}
    wanted = {row.id for row in rows} - found.keys()
    for first in range(0, len(pairs), FEW):
        for (student, module), attempts in _attempts(connection, [*pairs][first : first + FEW]).items():
            for identity, one in pairs[student, module].judge(student, attempts).items():
                if identity in wanted:
                    found[identity] = one
    return found


class Handed(NamedTuple):
    """A submission of a student in a module, as far as its judgement needs it."""

    id: str
    submitted_at: str
    status: str
    mark: float | None
    out_of: float | None
    is_accepted: bool

    def attempt(self) -> Attempt:
        """Return it as an attempt. One that was declined is none."""
        is_confirmed = self.status == CONFIRMED
        return Attempt(self.id, self.submitted_at, self.mark, self.out_of, is_confirmed, self.is_accepted)


def students_of(
    connection: Connection, module: str, *, student: str | None = None, since: str = ""
) -> Iterator[tuple[str, list[Handed]]]:
    """Yield the students of a module with their submissions, in the order of the students and ids.

    The submissions of one student at a time are in memory. student: only this one. since: from this one on.
    """
    columns = submissions.c
    names = "student", "id", "submitted_at", "status", "mark", "out_of"
    query = (
        select(*(columns[name] for name in names), acceptances.c.submission.is_not(None))
        .join(acceptances, acceptances.c.submission == columns.id, isouter=True)
        .where(columns.module == text(module, 200))
        .order_by(columns.student, columns.id)
    )
    if student is not None:
        query = query.where(columns.student == text(student, 200))
    if since:
        query = query.where(columns.student >= text(since, 200))
    with closing(connection.execute(query, execution_options=IN_PARTS)) as rows:
        for name, own in groupby(rows, lambda row: row[0]):
            yield name, [Handed(*row[1:6], bool(row[6])) for row in own]


def judgements(student: str, handed: Sequence[Handed], rules: Deadlines | None) -> dict[str, Judged]:
    """Judge a student's submissions in a module, by their ids, without those that were declined.

    rules: the module's deadlines; None if it has none: then the latest one counts.
    """
    attempts = [one for one in handed if one.status != DECLINED]
    if rules is not None:
        return rules.judge(student, [one.attempt() for one in attempts])
    last = max(attempts, key=_place, default=None)
    return {one.id: Judged(None, 0.0, 0.0, one.mark, one is last) for one in attempts}


def counting(
    student: str, handed: Sequence[Handed], rules: Deadlines | None
) -> tuple[float | None, float | None] | None:
    """Return the final mark and the maximum of a student's submission that counts; None if none does."""
    if rules is None:
        last = max((one for one in handed if one.status != DECLINED), key=_place, default=None)
        return None if last is None else (last.mark, last.out_of)
    judged = judgements(student, handed, rules)
    found = (one for one in handed if one.id in judged and judged[one.id].counts)
    return next(((judged[one.id].final_mark, one.out_of) for one in found), None)


def _place(one: Handed) -> tuple[str, str]:
    """Return what a student's submissions are ordered by."""
    return one.submitted_at, one.id


def described(
    connection: Connection, given: str, course: Course, *, least: int = 1, student: str | None = None
) -> dict[str, Any]:
    """Return a submission with its history and its judgement as JSON data, by its id or a prefix.

    The arguments are those of `find_id`.

    Raises:
        NoSuchID: No id, or more than one, begins with it.
    """
    found, hops = course_records.found(connection, given, least, student)
    released = releases_of(connection, found.module)
    return {
        **found.as_dict(),
        **judged(connection, [found], course)[found.id].as_dict(),
        "accepted": acceptances_of(connection, [found.id]).get(found.id),
        "withdrawn": withdrawals_of(connection, [found.id]).get(found.id, []),
        "held_until": held_modules(connection).get(found.module),
        "releases": [one.as_dict() for one in released],
        "history": [hop.as_dict() for hop in hops],
    }


def with_judgement(connection: Connection, assignment: Assignment, course: Course) -> Assignment:
    """Return a confirmed assignment with how it stands to the deadlines of its module, if there are any."""
    known = course.modules.get(assignment.module)
    if known is None or known.deadlines is None:
        return assignment
    found = course_records.submission_of(connection, assignment.id)
    one = judged(connection, [found], course)[found.id]
    told = Assignment(assignment)
    told[SUBMITTED_AT], told[TIMING], told[LATE] = found.submitted_at, str(one.timing), one.late_seconds
    told[PENALTY], told[FINAL_MARK] = one.penalty, one.final_mark
    return told


def accept(connection: Connection, identity: str, decision: Decision, course: Course) -> None:
    """Record that a submission can count although the deadlines forbid it.

    Args:
        connection: An open connection.
        identity: The submission's id.
        decision: Who accepts it, and the remark that says why.
        course: The course.

    Raises:
        NoSuchID: There is no such submission.
        UsageError: It can count already, or its module has no deadlines.
    """
    found = course_records.submission_of(connection, identity)
    timing = judged(connection, [found], course)[found.id].timing
    if timing is None or timing.can_count:
        why = "has no deadlines to keep" if timing is None else f"can count, as {timing.value}"
        raise UsageError(
            f"submission {found.id} is {found.status} and {why}: only one that was declined, or that the deadlines "
            "forbid, can be accepted"
        )
    remark = text(decision.remark, LONGEST_TEXT)
    values = {"submission": found.id, "who": text(decision.who, 200), "at": now(), "remark": remark}
    connection.execute(insert_into(connection, acceptances).on_conflict_do_nothing(), values)


def acceptances_of(connection: Connection, ids: Collection[str] | None = None) -> dict[str, dict[str, str]]:
    """Return by submission who had it count although the deadlines forbid it, when and why, as JSON data.

    ids: the only submissions, at most FEW; None for all.
    """
    query = select(acceptances)
    if ids is not None:
        query = query.where(acceptances.c.submission.in_(ids))
    found = connection.execute(query).all()
    return {row.submission: {"who": row.who, "at": row.at, "remark": row.remark} for row in found}


def taken_since(connection: Connection, student: str, module: str, since: str) -> list[str]:
    """Return when a student's submissions in a module were taken since a time, the first one first."""
    columns = submissions.c
    mine = columns.student == text(student, 200), columns.module == text(module, 200), columns.status != DECLINED
    query = select(columns.submitted_at).where(*mine, columns.submitted_at > since).order_by(columns.submitted_at)
    return [*connection.execute(query).scalars()]


def attempts_of(connection: Connection, student: str, module: str) -> list[Attempt]:
    """Return a student's attempts in a module."""
    pair = (text(student, 200), text(module, 200))
    return _attempts(connection, [pair]).get(pair, [])


def _attempts(connection: Connection, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Attempt]]:
    columns = submissions.c
    names = "student", "module", "id", "submitted_at", "mark", "out_of", "status"
    query = (
        select(*(columns[name] for name in names), acceptances.c.submission.is_not(None).label("is_accepted"))
        .join(acceptances, acceptances.c.submission == columns.id, isouter=True)
        .where(course_records.of_students(pairs), columns.status != DECLINED)
    )
    found: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for row in connection.execute(query):
        is_confirmed = row.status == CONFIRMED
        attempt = Attempt(row.id, row.submitted_at, row.mark, row.out_of, is_confirmed, bool(row.is_accepted))
        found[row.student, row.module].append(attempt)
    return found
