"""The records of a course: each submission, its hops, its attempts.

All functions take a connection and run in its transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    Table,
    and_,
    false,
    func,
    literal,
    or_,
    select,
)

from rabbitry._ids import NoSuchID, pick
from rabbitry.apps.grading.comments import LineComment
from rabbitry.apps.grading.files import Kept
from rabbitry.apps.grading.message import DECLINED, Assignment
from rabbitry.apps.grading.message import identity as known_as
from rabbitry.apps.grading.personal import PersonalMark
from rabbitry.apps.grading.records import statements
from rabbitry.apps.grading.records.beginning import begins
from rabbitry.apps.grading.records.gathering import Changes, known_of
from rabbitry.apps.grading.records.received import HANDED_IN, UNCHECKED, hop_row, submission_row, taken_by_first
from rabbitry.apps.grading.records.schema import history, insert_into, settings, submissions, text
from rabbitry.apps.grading.signatures import Finding

CONFIRMED: Final = "confirmed"
_PLACE: Final = "files"
FEW: Final = 400
"""Students and modules in one query; databases bound the parameters."""
_LOOKED_AT: Final = 100
"""Ids compared to find one by its prefix."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A recorded submission.

    attempt: 1 for the student's first in its module. latest: whether it is the newest. sha256, size: of the file as it
    was handed in, if it is kept.
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
    sha256: str | None
    size: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self)

    @property
    def kept(self) -> Kept | None:
        """The file as it was handed in; None if it is not kept."""
        return None if self.sha256 is None or self.size is None else Kept(self.sha256, self.size)


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop of a submission: the new status, and by whom, when and where.

    signer: the name of the key that signed it. doubt: why it is not taken as signed; None if it is, or need not be.
    comments: on lines of the file, by line. marks: of several demonstrators; empty if one person decided.
    """

    role: str
    status: str
    who: str
    place: str
    at: str
    mark: float | None
    out_of: float | None
    feedback: str | None
    remark: str | None
    signer: str | None
    doubt: str | None
    comments: tuple[LineComment, ...]
    marks: tuple[PersonalMark, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self)


def record(
    connection: Connection, assignment: Assignment, kept: Kept | None = None, *, finding: Finding = UNCHECKED
) -> None:
    """Record an assignment as reported by the role that moved it.

    A hop reported twice counts once; one that comes late, or after the confirmation, does not change the status. The
    time of submission is when the first role took it, or the first call of this function, if that is earlier. A report
    of a student's own program only announces the submission; its time, mark and hops are ignored.

    kept: the file as it was handed in, if it came with the report and is stored. The first one counts: an id is bound
    to the solution, but not to its encoding. finding: what the last hop's signature is worth.
    """
    record_all(connection, [Report(assignment, kept, finding)])


class Report(NamedTuple):
    """A report to record. The fields are the arguments of `record`."""

    assignment: Assignment
    kept: Kept | None = None
    finding: Finding = UNCHECKED


def record_all(connection: Connection, reports: Sequence[Report]) -> None:
    """Record reports, in their order. A statement for all of them costs little more than for one."""
    ids = [*{report.assignment.id for report in reports}]
    found = connection.execute(statements.KNOWN, {"mine": ids})
    known, changes = {row.id: known_of(row) for row in found}, Changes()
    for report in reports:
        identity = report.assignment.id
        one = known.get(identity)
        if one is None or (one.confirmed_by is None and _may_record(connection, report.assignment, one.reopened_at)):
            one = known[identity] = changes.add_hop(report.assignment, report.finding, one)
        if report.kept is not None:
            changes.add_file(report.assignment, report.kept, is_first=one.sha256 is None)
            one.sha256 = one.sha256 or report.kept.sha256
    changes.write(connection)


def confirm(
    connection: Connection,
    assignment: Assignment,
    message: str,
    kept: Kept | None = None,
    *,
    findings: Sequence[Finding] = (),
) -> bool:
    """Record a confirmation, once for each submission, unless it was reopened. Return whether to publish its result.

    Args:
        connection: An open connection.
        assignment: The assignment as it is confirmed.
        message: The id of the message that led to it. If the same message comes again, its result is published again,
            because the first publish may have failed; another message, of a repeated hop, changes nothing.
        kept: The file, as for `record`.
        findings: What the signatures of the hops are worth; empty if nothing checks them.
    """
    message, mine = text(message, 300), {"mine": assignment.id}
    known = connection.execute(statements.LOCKED, mine).first()
    if known is not None and known.confirmed_by is not None:
        return bool(known.confirmed_by == message)
    if known is not None and not _is_of_round(connection, assignment, known.reopened_at):
        return False
    since = 0 if known is None else known.reopened_at
    if findings and _contradicts(connection, assignment, since):
        return False
    taken = taken_by_first(assignment.history)
    if known is None:
        record(connection, assignment, kept)
    else:
        changes = Changes()
        if known.submitted_at > taken:
            changes.set_earlier(assignment.id, taken)
        if kept is not None:
            changes.add_file(assignment, kept, is_first=known.sha256 is None)
        changes.write(connection)
    values = submission_row(assignment, "") | {"confirmed_by": message}
    del values["submitted_at"], values["id"]
    # The id is bound to what was submitted, so its student is right whatever was recorded before.
    if connection.execute(statements.CONFIRM, mine | statements.to(values)).rowcount != 1:
        return False
    # Without a row there was no lock: another coordinator may have recorded it in between.
    earliest = None if known is None else min(known.submitted_at, taken)
    at = earliest or connection.execute(statements.TAKEN_AT, mine).scalar_one()
    worth = [*findings, *[UNCHECKED] * len(assignment.history)]
    rows = [hop_row(assignment.id, step, hop, worth[step - 1]) for step, hop in enumerate(assignment.history, 1)]
    # What was recorded before it was reopened stays: the records themselves sent it out, without the signatures.
    rows = [row for row in rows if row["step"] > since]
    if known is None or known.step > assignment.step:
        connection.execute(statements.FORGET, mine | {"since": max(since, assignment.step)})
    first = (1, "student")
    rows = [row | HANDED_IN | {"at": at} if (row["step"], row["role"]) == first else row for row in rows]
    if rows:
        connection.execute(statements.inserts(connection.dialect.name).whole_hop, rows)
    return True


def attempt_before(connection: Connection, identity: str) -> str | None:
    """Return the id of the student's attempt before a submission, if there is one whose file is kept.

    A declined submission is no attempt.
    """
    columns = submissions.c
    found = connection.execute(
        select(columns.student, columns.module, columns.submitted_at).where(columns.id == identity)
    ).first()
    if found is None:
        return None
    same = and_(columns.student == found.student, columns.module == found.module, columns.status != DECLINED)
    earlier = select(columns.id).where(same, columns.sha256.is_not(None), columns.submitted_at < found.submitted_at)
    return connection.execute(earlier.order_by(columns.submitted_at.desc()).limit(1)).scalar()


def _may_record(connection: Connection, assignment: Assignment, since: int) -> bool:
    """Return whether a report can be recorded: it is of the present round, or so early that it changes no status."""
    return assignment.step < since or _is_of_round(connection, assignment, since)


def _is_of_round(connection: Connection, assignment: Assignment, since: int) -> bool:
    """Return whether an assignment is not of a round before the submission was reopened, if it was.

    The number of hops does not tell: the message of a declined submission may come again to a role that takes it, and
    have more hops in the end. since: its `reopened_at`.
    """
    if since == 0:
        return True
    recorded = connection.execute(statements.REOPENED, {"mine": assignment.id, "since": since}).first()
    if recorded is None or assignment.step <= since:
        return False
    hop = hop_row(assignment.id, since, assignment.history[since - 1])
    return all(hop[name] == value for name, value in recorded._mapping.items())


def _contradicts(connection: Connection, assignment: Assignment, since: int) -> bool:
    """Return whether a signed hop of the present round is recorded that an assignment lacks: it is an older one again.

    A message of a round before the submission was sent back may be published anew by anybody who saw it.
    """
    hops = assignment.history
    return any(
        row.step > len(hops)
        or (row.role, row.status) != (hops[row.step - 1].get("role"), hops[row.step - 1].get("status"))
        for row in connection.execute(statements.SIGNED, {"mine": assignment.id, "since": since})
    )


def find_id(connection: Connection, given: str, *, least: int = 1, student: str | None = None) -> str:
    """Return the full id of a submission, by that id or a prefix.

    Args:
        connection: An open connection.
        given: What the user typed.
        least: The fewest characters of a prefix.
        student: Only this student's submissions are searched, so that an error tells nothing of others' ids; None for
            all.

    Raises:
        NoSuchID: No id, or more than one, begins with it.
    """
    ids = select(submissions.c.id).where(begins(submissions.c.id, given)).order_by(submissions.c.id).limit(_LOOKED_AT)
    what = "submission"
    if student is not None:
        ids = ids.where(submissions.c.student == (owner := text(student, 200)))
        what = f"submission of student {owner}"
    return pick(known_as(given), connection.execute(ids).scalars(), what, typed=given, least=least)


def submission(connection: Connection, identity: str) -> tuple[Submission, list[Hop]] | None:
    """Return a submission with its hops, oldest first; None if it is unknown."""
    identity = known_as(identity)
    row = connection.execute(select(submissions).where(submissions.c.id == identity)).first()
    if row is None:
        return None
    of_student = and_(submissions.c.student == row.student, submissions.c.module == row.module)
    numbered = connection.execute(_with_attempts(of_student, submissions.c.id))
    attempt, attempts = next((one.attempt, one.attempts) for one in numbered if one.id == identity)
    hops = connection.execute(select(history).where(history.c.submission == identity).order_by(history.c.step))
    return _submission(row, attempt, attempts), [_hop(hop) for hop in hops]


def submission_of(connection: Connection, given: str, *, least: int = 1, student: str | None = None) -> Submission:
    """Return a submission by its id or a prefix. The arguments are those of `find_id`.

    Raises:
        NoSuchID: No id, or more than one, begins with it.
    """
    return found(connection, given, least, student)[0]


def found(
    connection: Connection, given: str, least: int = 1, student: str | None = None
) -> tuple[Submission, list[Hop]]:
    """Return a submission with its hops, by its id or a prefix. The arguments are those of `find_id`.

    Raises:
        NoSuchID: No id, or more than one, begins with it.
    """
    whole = submission(connection, find_id(connection, given, least=least, student=student))
    if whole is None:
        raise NoSuchID(f"the submission {given!r} was removed in the meantime")
    return whole


@dataclass(frozen=True, slots=True)
class Filter:
    """The filter of a list; all entries by default.

    find: a prefix of a student's number or of an id. limit: the most entries, after the first `offset`. student: only
    those of this student. modules: only those of these modules.
    """

    find: str = ""
    module: str | None = None
    status: str | None = None
    limit: int | None = None
    offset: int = 0
    student: str | None = None
    modules: tuple[str, ...] | None = None

    def conditions(self, table: Table | Subquery, identity: ColumnElement[str]) -> list[ColumnElement[bool]]:
        """Return the conditions for a table with students and modules; `identity` is its column of ids."""
        conditions: list[ColumnElement[bool]] = []
        if self.module is not None:
            conditions.append(table.c.module == text(self.module, 200))
        if self.student is not None:
            conditions.append(table.c.student == text(self.student, 200))
        if self.modules is not None:
            conditions.append(table.c.module.in_([text(name, 200) for name in self.modules]))
        if self.status is not None:
            conditions.append(table.c.status == text(self.status, 200))
        if self.find:
            conditions.append(or_(begins(identity, self.find), begins(table.c.student, self.find)))
        return conditions


_ALL: Final = Filter()


def submissions_of(connection: Connection, wanted: Filter = _ALL, *, after: str | None = None) -> list[Submission]:
    """List submissions, the last changed first.

    after: list those with greater ids than this, by their ids, so that no change in between moves one to another page.
    """
    rows = connection.execute(_listed(select(submissions), wanted, after)).all()
    of_module = None if wanted.module is None else submissions.c.module == text(wanted.module, 200)
    return _with_places(connection, rows, of_module)


def submissions_by_id(connection: Connection, ids: Sequence[str]) -> list[Submission]:
    """Return submissions by their ids, at most FEW, in the order of these."""
    rows = connection.execute(select(submissions).where(submissions.c.id.in_(ids))).all()
    found = {one.id: one for one in _with_places(connection, rows, None)}
    return [found[one] for one in ids if one in found]


def _with_places(
    connection: Connection, rows: Sequence[Row[Any]], of_all: ColumnElement[bool] | None
) -> list[Submission]:
    """Return rows as submissions with the number of the attempt. of_all: a condition for the attempts of many rows."""
    pairs = {(row.student, row.module) for row in rows}
    # For a page only the attempts of its students are numbered: of 100,000 submissions that takes 20 ms, not a second.
    numbered = _with_attempts(of_students(pairs) if len(pairs) <= FEW else of_all, submissions.c.id)
    places = {row.id: (row.attempt, row.attempts) for row in connection.execute(numbered)}
    return [_submission(row, *places[row.id]) for row in rows]


def _listed(query: Select[Any], wanted: Filter, after: str | None) -> Select[Any]:
    """Return a query for submissions with the filter and order of `submissions_of`."""
    query = query.where(*wanted.conditions(submissions, submissions.c.id))
    if after is None:
        query = query.order_by(submissions.c.updated_at.desc(), submissions.c.id.desc())
    else:
        query = query.where(submissions.c.id > text(after, 200)).order_by(submissions.c.id)
    return query.limit(wanted.limit).offset(wanted.offset)


def fitting(
    connection: Connection, wanted: Filter, most: int, *, after: str | None = None, with_history: bool = False
) -> list[str]:
    """Return the ids of the first submissions of a list that have `most` characters at the most, one at least.

    These are read for one answer: a hundred of them may have 40 MB, and with their hops any number of bytes. There are
    at most FEW. The arguments are those of `submissions_of`.
    """
    columns, few = submissions.c, replace(wanted, limit=FEW if wanted.limit is None else min(wanted.limit, FEW))
    long = func.length(columns.name) + func.coalesce(func.length(columns.feedback), 0)
    sizes = {row[0]: row[1] for row in connection.execute(_listed(select(columns.id, long), few, after))}
    if with_history:
        texts = (history.c[name] for name in ("who", "place", "feedback", "remark", "comments", "marks"))
        of_hop = sum((func.coalesce(func.length(one), 0) for one in texts), literal(0))
        query = select(history.c.submission, func.sum(of_hop)).where(history.c.submission.in_([*sizes]))
        for identity, size in connection.execute(query.group_by(history.c.submission)):
            sizes[identity] += size
    found: list[str] = []
    total = 0
    for identity, size in sizes.items():
        total += size
        if found and total > most:
            break
        found.append(identity)
    return found


def of_students(pairs: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    """Return the condition for all submissions of students in modules, given as pairs; at most FEW.

    SQLite searches its index for these conditions, but not for pairs in a list.
    """
    modules: dict[str, list[str]] = {}
    for student, module in pairs:
        modules.setdefault(module, []).append(student)
    columns = submissions.c
    return or_(false(), *(and_(columns.module == name, columns.student.in_(who)) for name, who in modules.items()))


def count(connection: Connection, wanted: Filter = _ALL) -> int:
    """Count the submissions that a filter matches, without its limit."""
    query = select(func.count()).select_from(submissions).where(*wanted.conditions(submissions, submissions.c.id))
    return connection.execute(query).scalar_one()


def histories(connection: Connection, ids: Collection[str] | None = None) -> dict[str, list[Hop]]:
    """Return the hops of submissions by their ids, oldest first. ids: at most FEW; None for all."""
    found: dict[str, list[Hop]] = {}
    query = select(history).order_by(history.c.submission, history.c.step)
    if ids is not None:
        query = query.where(history.c.submission.in_(ids))
    for row in connection.execute(query):
        found.setdefault(row.submission, []).append(_hop(row))
    return found


def is_of_student(connection: Connection, sha256: str, student: str) -> bool:
    """Return whether a student handed in the file with a hash."""
    mine = submissions.c.student == text(student, 200), submissions.c.sha256 == sha256
    return connection.execute(select(submissions.c.id).where(*mine).limit(1)).first() is not None


def note_place(connection: Connection, place: str) -> None:
    """Record where the files are kept, for the page and the commands that read them."""
    insert = insert_into(connection, settings).values(name=_PLACE, value=place)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": place}))


def place_of_files(connection: Connection) -> str | None:
    """Return where the coordinator keeps the files; None if none has run."""
    return connection.execute(select(settings.c.value).where(settings.c.name == _PLACE)).scalar()


def are_kept(connection: Connection) -> bool:
    """Return whether these are the course's records: a coordinator has run here, or a submission is recorded.

    The database of another role has its inbox alone.
    """
    return (
        place_of_files(connection) is not None
        or connection.execute(select(submissions.c.id).limit(1)).first() is not None
    )


def counts(connection: Connection, wanted: Filter = _ALL) -> dict[str, int]:
    """Count the submissions that a filter matches by status, without its limit."""
    query = select(submissions.c.status, func.count()).where(*wanted.conditions(submissions, submissions.c.id))
    rows = connection.execute(query.group_by(submissions.c.status))
    return {row[0]: row[1] for row in rows}


def _with_attempts(condition: ColumnElement[bool] | None, *columns: ColumnElement[Any]) -> Select[Any]:
    """Number each student's submissions in a module by time of submission."""
    # What was declined is no attempt: it is numbered apart.
    within = [submissions.c.student, submissions.c.module, submissions.c.status == DECLINED]
    order = [submissions.c.submitted_at, submissions.c.id]
    attempt = func.row_number().over(partition_by=within, order_by=order).label("attempt")
    attempts = func.count().over(partition_by=within).label("attempts")
    wanted = select(*columns, attempt, attempts)
    return wanted if condition is None else wanted.where(condition)


def _submission(row: Row[Any], attempt: int, attempts: int) -> Submission:
    return Submission(
        row.id, row.student, row.module, attempt, attempt == attempts and row.status != DECLINED, row.name,
        row.status, row.mark, row.out_of, row.feedback, row.submitted_at, row.updated_at, row.sha256, row.size,
    )  # fmt: skip


def _hop(row: Row[Any]) -> Hop:
    return Hop(
        row.role, row.status, row.who, row.place, row.at, row.mark, row.out_of, row.feedback, row.remark,
        row.signer, row.doubt, _comments(row.comments), _marks(row.marks),
    )  # fmt: skip


def _comments(value: str | None) -> tuple[LineComment, ...]:
    return () if value is None else msgspec.json.decode(value, type=tuple[LineComment, ...])


def _marks(value: str | None) -> tuple[PersonalMark, ...]:
    return () if value is None else msgspec.json.decode(value, type=tuple[PersonalMark, ...])
