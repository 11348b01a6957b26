"""Requests for another look: a student asks about a confirmed mark, a demonstrator or an assistant answers.

A request and its answer are hops of the submission's history. If the request is upheld, the coordinator submits the
submission once more, as when it is marked again; if it is refused, the mark stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.message import LONGEST_TEXT, Decision, check_reason, now
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import judging
from rabbitry.apps.grading.records.course import Filter, submission_of
from rabbitry.apps.grading.records.regrading import submit_again
from rabbitry.apps.grading.records.releases import held_modules
from rabbitry.apps.grading.records.schema import history, is_number, requests, submissions, text
from rabbitry.apps.grading.rows import Request
from rabbitry.apps.grading.signatures import Finding
from rabbitry.exceptions import UsageError
from rabbitry.flow.message import node_name

ANSWERS: Final = ("upheld", "refused")
MOST: Final = 3
"""Requests of one submission."""
ANSWERING: Final = ("demonstrator", "assistant")
"""The roles that answer."""
_ALL: Final = Filter()


def ask(connection: Connection, given: str, student: str, reason: str, message: str, *, least: int) -> Request:
    """Record a student's request. The same message again is the same request.

    Args:
        connection: An open connection.
        given: The id, or a prefix, of one of the student's submissions.
        student: The student who asks.
        reason: Why.
        message: The id of the message that asks.
        least: The fewest characters of a prefix.

    Raises:
        NoSuchID: The student has no such submission.
        UsageError: The submission is not confirmed, its results are held, a request waits already, or there were too
            many.
    """
    same = requests.c.message == text(message, 300), submissions.c.student == text(student, 200)
    known = connection.execute(_requests().where(*same)).first()
    if known is not None:
        return _request(known)
    found = submission_of(connection, given, least=least, student=student)
    check_reason(reason)
    if (until := held_modules(connection).get(found.module)) is not None:
        raise UsageError(
            f"the results of module {found.module!r} are held until {until}: another look can be asked for then"
        )
    mine = submissions.c.id == found.id
    locked = connection.execute(select(submissions.c.confirmed_by).where(mine).with_for_update()).scalar()
    if locked is None:
        raise UsageError(
            f"submission {found.id} is {found.status!r}: another look can be asked for once it is confirmed"
        )
    before = [*connection.execute(_requests().where(requests.c.submission == found.id))]
    if any(row.answer is None for row in before):
        raise UsageError(f"a request about submission {found.id} waits for its answer already")
    if len(before) >= MOST:
        raise UsageError(f"submission {found.id} had {MOST} requests, and can't have another")
    values = {"submission": found.id, "message": text(message, 300), "reason": text(reason), "asked_at": now()}
    number = connection.execute(insert(requests).values(values).returning(requests.c.id)).scalar_one()
    _add_hop(connection, found.id, {"role": "student", "status": "asked", "who": student, "remark": reason})
    return one(connection, number)


@dataclass(frozen=True, slots=True)
class Given:
    """An answer. answer: `upheld` or `refused`. role: that answers. decision: who answers, and the remark.

    place: the machine it was given on; empty for this one. finding: what its signature is worth; None if the course
    checks none.
    """

    answer: str
    role: str
    decision: Decision
    place: str = ""
    finding: Finding | None = None


def answer(
    connection: Connection, number: int, given: Given, data: bytes | None, course: Course, exchange: str
) -> Request:
    """Record the answer to a request. One that is upheld submits the submission again, in the same transaction.

    The same answer of the same person again changes nothing.

    Args:
        connection: An open connection.
        number: The request's.
        given: The answer. To refuse, its decision needs a remark.
        data: The submission's file, to uphold; None if it is not kept.
        course: The course.
        exchange: The roles' exchange.

    Raises:
        NoSuchID: There is no such request.
        UsageError: It is answered already, the answer is incomplete, or the submission can't be marked again.
    """
    if given.answer not in ANSWERS or given.role not in ANSWERING:
        raise UsageError(f"{given.answer[:60]!r} by {given.role[:60]!r} is no answer: use {' or '.join(ANSWERS)}, "
                         f"by {' or '.join(ANSWERING)}")  # fmt: skip
    remark, who = (given.decision.remark or "").strip(), given.decision.who
    if given.answer == "refused" and not remark:
        raise UsageError("no remark: write why the request is refused")
    if len(remark) > LONGEST_TEXT:
        raise UsageError(f"a remark may have at most {LONGEST_TEXT} characters")
    told = (given.answer, given.role, text(who, 200), text(remark, LONGEST_TEXT))
    values = dict(zip(("answer", "role", "who", "remark"), told, strict=True))
    # One statement decides which of two people at the same time answers.
    waiting = update(requests).where(requests.c.id == number, requests.c.answer.is_(None))
    is_first = connection.execute(waiting.values(**values, answered_at=now())).rowcount == 1
    found = one(connection, number)
    if not is_first:
        if (found.answer, found.role, found.who, found.remark) == told:
            return found  # the message was delivered again
        raise UsageError(f"request {number} is answered already: {found.answer} by {found.who} ({found.role})")
    finding = given.finding or Finding()
    hop = {"role": given.role, "status": given.answer, "who": who, "remark": remark or None}
    hop |= {"place": given.place or None, "signer": finding.signer, "doubt": finding.doubt}
    _add_hop(connection, found.submission, hop)
    if given.answer == "upheld":
        _mark_again(connection, found, who, data, course, exchange)
    return one(connection, number)


def _mark_again(
    connection: Connection, found: Request, who: str, data: bytes | None, course: Course, exchange: str
) -> None:
    if data is None:
        raise UsageError(f"submission {found.submission} can't be marked again: its file is not kept")
    again = Decision(who, remark=f"Another look was asked for: {found.reason}")
    if submit_again(connection, found.submission, data, again, course, exchange) is None:
        raise UsageError(
            f"submission {found.submission} can't be marked again: it is not confirmed any more, "
            "or only its file is kept, not the message's other fields"
        )


def waiting(connection: Connection, wanted: Filter = _ALL) -> list[Request]:
    """List the requests that wait for an answer, oldest first."""
    query = _waiting(wanted).order_by(requests.c.id).limit(wanted.limit).offset(wanted.offset)
    return [_request(row) for row in connection.execute(query)]


def count(connection: Connection, wanted: Filter = _ALL) -> int:
    """Count the requests that wait for an answer and match a filter, without its limit."""
    return connection.execute(select(func.count()).select_from(_waiting(wanted).subquery())).scalar_one()


def requests_of(connection: Connection, submission: str) -> list[Request]:
    """List all requests about a submission, oldest first."""
    rows = connection.execute(_requests().where(requests.c.submission == submission).order_by(requests.c.id))
    return [_request(row) for row in rows]


def described(
    connection: Connection, given: str, course: Course, *, least: int = 1, student: str | None = None
) -> dict[str, Any]:
    """Return a submission as `judging.described` does, with the requests about it, oldest first."""
    found = judging.described(connection, given, course, least=least, student=student)
    return found | {"requests": [request.as_dict() for request in requests_of(connection, found["id"])]}


def _requests() -> Select[Any]:
    columns = submissions.c
    joined = requests.join(submissions, columns.id == requests.c.submission)
    return select(requests, columns.student, columns.module, columns.mark, columns.out_of).select_from(joined)


def _waiting(wanted: Filter) -> Select[Any]:
    return _requests().where(requests.c.answer.is_(None), *wanted.conditions(submissions, submissions.c.id))


def one(connection: Connection, number: int) -> Request:
    """Return a request. Raises NoSuchID."""
    row = connection.execute(_requests().where(requests.c.id == number)).first() if is_number(number) else None
    if row is None:
        raise NoSuchID(f"there is no request {number}")
    return _request(row)


def _request(row: Row[Any]) -> Request:
    return Request(
        row.id, row.submission, row.student, row.module, row.mark, row.out_of, row.reason, row.asked_at, row.answer,
        row.role, row.who, row.remark, row.answered_at,
    )  # fmt: skip


def _add_hop(connection: Connection, identity: str, hop: Mapping[str, str | None]) -> None:
    """Append a hop that leaves the submission's status and mark as they are."""
    last = select(func.max(history.c.step)).where(history.c.submission == identity)
    step = (connection.execute(last).scalar() or 0) + 1
    at = now()
    known = {name: text(value, LONGEST_TEXT) for name, value in hop.items() if value is not None}
    row = {"submission": identity, "step": step, "place": node_name(), "at": at} | known
    connection.execute(insert(history), row | {"place": text(row["place"], 200)})
    mine = submissions.c.id == identity
    connection.execute(update(submissions).where(mine).values(step=step, updated_at=at))
