"""The records of a course: each submission, its hops, its attempts.

Functions of a connection, within its transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, update

from rabbitry.apps.grading.message import (
    FEEDBACK,
    LONGEST_TEXT,
    MARK,
    MODULE,
    OUT_OF,
    Assignment,
    now,
    number,
)
from rabbitry.apps.grading.message import identity as known_as
from rabbitry.apps.grading.records.schema import history, insert_into, submissions, text

CONFIRMED: Final = "confirmed"


@dataclass(frozen=True, slots=True)
class Submission:
    """What is known of a submission.

    attempt: 1 for the student's first in its module. latest: whether none is newer.
    """

    id: str
    student: str
    module: str
    attempt: int
    latest: bool
    name: str
    status: str
    mark: float | None
    out_of: float | None
    feedback: str | None
    submitted_at: str
    updated_at: str

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop of a submission: who made it what, when and where."""

    role: str
    status: str
    who: str
    place: str
    at: str
    mark: float | None
    out_of: float | None
    feedback: str | None
    remark: str | None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON data."""
        return asdict(self)


def record(connection: Connection, assignment: Assignment, *, whole: bool = False) -> None:
    """Record an assignment as it stands. What was recorded before changes nothing; what comes late, no status.

    whole: record all its hops, not the last alone.
    """
    hops = assignment.history
    first = 1 if whole else max(1, len(hops))
    rows = [_hop_row(assignment.id, step, hop) for step, hop in enumerate(hops, 1) if step >= first]
    if rows:
        connection.execute(insert_into(connection, history).on_conflict_do_nothing(), rows)
    values = {
        "id": assignment.id,
        "student": text(assignment.student, 200),
        "module": text(assignment.get(MODULE), 200),
        "name": text(assignment.name, 1_000),
        "status": text(assignment.status, 200),
        "step": assignment.step,
        "mark": number(assignment.get(MARK)),
        "out_of": number(assignment.get(OUT_OF)),
        "feedback": _optional(assignment.get(FEEDBACK)),
        "submitted_at": _time(hops[0].get("when") if hops else None),
        "updated_at": now(),
    }
    insert = insert_into(connection, submissions)
    changing = ("status", "step", "mark", "out_of", "feedback", "updated_at")
    newer = insert.on_conflict_do_update(
        index_elements=["id"],
        set_={name: insert.excluded[name] for name in changing},
        where=insert.excluded.step > submissions.c.step,
    )
    connection.execute(newer, values)


def confirm(connection: Connection, assignment: Assignment, message: str) -> bool:
    """Record a confirmation, once for each submission; says whether its result is to be published.

    assignment: as it is confirmed. message: the id of the one that led to it. When that comes again, the result
    is published again, since it may not have been; another one, of a hop done twice, changes nothing.
    """
    message = text(message, 300)
    known = connection.execute(
        select(submissions.c.confirmed_by).where(submissions.c.id == assignment.id).with_for_update()
    ).scalar()
    if known is not None:
        return bool(known == message)
    record(connection, assignment, whole=True)
    taken = connection.execute(
        update(submissions)
        .where(submissions.c.id == assignment.id, submissions.c.confirmed_by.is_(None))
        .values(confirmed_by=message)
    )
    return taken.rowcount == 1


def submission(connection: Connection, identity: str) -> tuple[Submission, list[Hop]] | None:
    """Give a submission with its hops, oldest first; None where it is not known."""
    identity = known_as(identity)
    own = select(submissions.c.student, submissions.c.module).where(submissions.c.id == identity).subquery()
    found = _with_attempts(and_(submissions.c.student == own.c.student, submissions.c.module == own.c.module))
    numbered = found.subquery()
    row = connection.execute(select(numbered).where(numbered.c.id == identity)).first()
    if row is None:
        return None
    hops = connection.execute(select(history).where(history.c.submission == identity).order_by(history.c.step))
    return _submission(row), [_hop(hop) for hop in hops]


def submissions_of(
    connection: Connection, *, status: str | None = None, find: str | None = None, limit: int | None = None
) -> list[Submission]:
    """List submissions, what changed last first. find: the beginning of a student's number, or an id."""
    numbered = _with_attempts(None).subquery()
    wanted = select(numbered).order_by(numbered.c.updated_at.desc(), numbered.c.id).limit(limit)
    if status is not None:
        wanted = wanted.where(numbered.c.status == status)
    if find:
        find = text(find, 200)
        wanted = wanted.where(or_(numbered.c.id == find, numbered.c.student.startswith(find, autoescape=True)))
    return [_submission(row) for row in connection.execute(wanted)]


def histories(connection: Connection) -> dict[str, list[Hop]]:
    """Give the hops of all submissions by their ids, oldest first."""
    found: dict[str, list[Hop]] = {}
    for row in connection.execute(select(history).order_by(history.c.submission, history.c.step)):
        found.setdefault(row.submission, []).append(_hop(row))
    return found


def counts(connection: Connection) -> dict[str, int]:
    """Count the submissions by status."""
    rows = connection.execute(select(submissions.c.status, func.count()).group_by(submissions.c.status))
    return {row[0]: row[1] for row in rows}


def _with_attempts(condition: Any) -> Select[Any]:
    """Number each student's submissions in a module by the time they were handed in."""
    within = [submissions.c.student, submissions.c.module]
    order = [submissions.c.submitted_at, submissions.c.id]
    attempt = func.row_number().over(partition_by=within, order_by=order).label("attempt")
    attempts = func.count().over(partition_by=within).label("attempts")
    wanted = select(submissions, attempt, attempts)
    return wanted if condition is None else wanted.where(condition)


def _submission(row: Row[Any]) -> Submission:
    return Submission(
        row.id, row.student, row.module, row.attempt, row.attempt == row.attempts, row.name, row.status, row.mark,
        row.out_of, row.feedback, row.submitted_at, row.updated_at,
    )  # fmt: skip


def _hop(row: Row[Any]) -> Hop:
    return Hop(
        row.role, row.status, row.who, row.place, row.at, row.mark, row.out_of, row.feedback, row.remark
    )  # fmt: skip


def _hop_row(identity: str, step: int, hop: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "submission": identity,
        "step": step,
        "role": text(hop.get("role"), 200),
        "status": text(hop.get("status"), 200),
        "who": text(hop.get("who"), 200),
        "place": text(hop.get("where"), 200),
        "at": _time(hop.get("when")),
        "mark": number(hop.get("mark")),
        "out_of": number(hop.get("outOf")),
        "feedback": _optional(hop.get("feedback")),
        "remark": _optional(hop.get("remark")),
    }


def _optional(value: object) -> str | None:
    return None if value is None else text(value, LONGEST_TEXT)


def _time(value: object) -> str:
    """Give a time from the wire in our own form; now, where it is none."""
    if isinstance(value, str) and len(value) < 64:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return now()
        aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        try:
            return aware.astimezone(UTC).isoformat(timespec="microseconds")
        except OverflowError:
            return now()
    return now()
