"""Withdrawn acceptances: the submission can't count any more. The records keep who accepted and withdrew it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from rabbitry.apps.grading.message import LONGEST_TEXT, Decision, now
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import course as course_records
from rabbitry.apps.grading.records.course import Submission
from rabbitry.apps.grading.records.schema import acceptances, text, withdrawals
from rabbitry.exceptions import UsageError

_NAMES: Final = ("who", "at", "remark", "withdrawn_by", "withdrawn_at", "reason")


def withdraw(
    connection: Connection, given: str, decision: Decision, course: Course, *, accepted_at: str = ""
) -> Submission:
    """Withdraw the acceptance of a submission that the deadlines forbid.

    Args:
        connection: An open connection.
        given: The submission's id or a prefix.
        decision: Who withdraws it, and the remark that says why.
        course: The course.
        accepted_at: When it was accepted, so that no later acceptance is withdrawn instead; empty for any time.

    Returns:
        The submission.

    Raises:
        NoSuchID: No id, or more than one, begins so.
        UsageError: It is not accepted, was accepted at another time, or is accepted in the configuration, too.
    """
    found = course_records.submission_of(connection, given)
    known = course.modules.get(found.module)
    if known is not None and known.deadlines is not None and found.id in known.deadlines.accepted:
        raise UsageError(
            f"submission {found.id} is accepted in the course's configuration: remove its id from `accepted` of "
            f"module {found.module!r}"
        )
    condition = acceptances.c.submission == found.id
    if accepted_at:
        condition &= acceptances.c.at == text(accepted_at, 40)
    # One statement decides which of two people withdraws it, and whether somebody else accepted it anew in between.
    row = connection.execute(delete(acceptances).where(condition).returning(acceptances)).first()
    if row is None:
        raise UsageError(_why(connection, found))
    values = {"submission": found.id, "who": row.who, "at": row.at, "remark": row.remark}
    values |= {"withdrawn_by": text(decision.who, 200), "withdrawn_at": now()}
    connection.execute(insert(withdrawals), values | {"reason": text(decision.remark, LONGEST_TEXT)})
    return found


def withdrawals_of(connection: Connection, ids: Collection[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the withdrawn acceptances by submission, oldest first, as JSON data.

    ids: the only submissions, at most FEW of the course's records; None for all.
    """
    query = select(withdrawals).order_by(withdrawals.c.id)
    if ids is not None:
        query = query.where(withdrawals.c.submission.in_(ids))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.submission, []).append({name: row._mapping[name] for name in _NAMES})
    return found


def _why(connection: Connection, found: Submission) -> str:
    """Return why there is nothing to withdraw."""
    query = select(acceptances.c.who, acceptances.c.at).where(acceptances.c.submission == found.id)
    other = connection.execute(query).first()
    if other is not None:
        return f"submission {found.id} was accepted anew by {other.who}, at {other.at}: look at it again"
    before = withdrawals_of(connection, [found.id]).get(found.id)
    if before:
        last = before[-1]
        return (
            f"the acceptance of submission {found.id} is withdrawn already, by {last['withdrawn_by']}, "
            f"at {last['withdrawn_at']}"
        )
    return (
        f"submission {found.id} is {found.status} and was not accepted against the deadlines: only such an acceptance "
        "can be withdrawn, since a declined submission that was accepted is with the roles"
    )
