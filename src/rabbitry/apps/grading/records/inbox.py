"""People's inboxes and decisions; a decision and its outbox entry are recorded in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from rabbitry._decode import decode_object
from rabbitry._ids import NoSuchID, pick
from rabbitry.apps.grading.message import Assignment, Decision, Progress, now
from rabbitry.apps.grading.message import identity as known_as
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import course as course_records
from rabbitry.apps.grading.records import judgements, outbox
from rabbitry.apps.grading.records.beginning import begins
from rabbitry.apps.grading.records.course import Filter
from rabbitry.apps.grading.records.judging import with_judgement
from rabbitry.apps.grading.records.releases import hold, hold_letter
from rabbitry.apps.grading.records.schema import decisions, inbox, insert_into, text
from rabbitry.apps.grading.roles import (
    PROGRESS_EXCHANGE,
    PROGRESS_KEY,
    RESULTS,
    Role,
    RoleName,
    decide,
    key_of,
    role_named,
)
from rabbitry.apps.grading.signatures import Signer, findings_of
from rabbitry.exceptions import UsageError

_ALL: Final = Filter()
LOOKED_AT: Final = 100
"""Rows compared to find an id by its prefix."""
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Item:
    """An assignment in a role's inbox, waiting for a person."""

    id: int
    role: str
    arrived_at: str
    message: str
    exchange: str
    assignment: Assignment


def put(connection: Connection, role: Role, assignment: Assignment, exchange: str, message: str) -> bool:
    """Put an assignment into a role's inbox. Return whether it is new. It may have been decided since."""
    insert = insert_into(connection, inbox).on_conflict_do_nothing().returning(inbox.c.id)
    done = connection.execute(
        insert,
        {
            "role": role.name,
            "submission": assignment.id,
            "step": assignment.step,
            "student": text(assignment.student, 200),
            "module": text(assignment.module, 200),
            "exchange": exchange,
            "message": text(message, 300),
            "body": _encode(assignment),
            "arrived_at": now(),
        },
    )
    return done.first() is not None


def waiting(connection: Connection, role: RoleName, wanted: Filter = _ALL) -> list[Item]:
    """List the entries that wait for a role's people, oldest first."""
    query = _waiting().where(inbox.c.role == role, *wanted.conditions(inbox, inbox.c.submission))
    return [item_of(row) for row in connection.execute(query.limit(wanted.limit).offset(wanted.offset))]


def count(connection: Connection, role: RoleName, wanted: Filter = _ALL) -> int:
    """Count the entries that wait for a role's people and match a filter, without its limit."""
    query = _waiting().where(inbox.c.role == role, *wanted.conditions(inbox, inbox.c.submission)).order_by(None)
    return connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()


def counts(connection: Connection, wanted: Filter = _ALL) -> dict[str, int]:
    """Count the entries waiting in each role's inbox that match a filter, without its limit."""
    open_ = _waiting().where(*wanted.conditions(inbox, inbox.c.submission)).order_by(None).subquery()
    rows = connection.execute(select(open_.c.role, func.count()).group_by(open_.c.role))
    return {row[0]: row[1] for row in rows}


def newest(connection: Connection) -> dict[str, int]:
    """Return the number of the latest entry in each role's inbox; with the count it shows whether anything changed."""
    rows = connection.execute(select(inbox.c.role, func.max(inbox.c.id)).group_by(inbox.c.role))
    return {row[0]: row[1] for row in rows}


def everybody(student: str, module: str) -> bool:
    """Return true: whoever asks may see all submissions."""
    return True


def item(
    connection: Connection,
    identity: str,
    role: RoleName | None = None,
    *,
    sees: Callable[[str, str], bool] = everybody,
) -> Item:
    """Return a waiting entry by the submission's id or a prefix.

    Args:
        connection: An open connection.
        identity: The id or a prefix.
        role: The role in whose inbox it is; None for any.
        sees: Returns whether the asker may see a submission of a student in a module, and learn who decided on it.

    Raises:
        NoSuchID: No entry with such an id waits (the text then names the last decision), or several do.
    """
    wanted = _waiting()
    if role is not None:
        wanted = wanted.where(inbox.c.role == role)
    rows = connection.execute(wanted.where(begins_with(identity)).limit(LOOKED_AT)).all()
    try:
        whole = pick(
            known_as(identity), [row.submission for row in rows], "assignment that waits for a decision", typed=identity
        )
    except NoSuchID as error:
        decided = None if rows else _last_decision(connection, identity, role, sees)
        raise error if decided is None else NoSuchID(f"{identity!r} is decided already: {decided}") from error
    return item_of(next(row for row in rows if row.submission == whole))


def handed_in(connection: Connection, given: str) -> Item:
    """Return the latest inbox entry of a submission, decided or not, by its id or a prefix.

    Raises:
        NoSuchID: No id, or more than one, begins with it.
    """
    rows = connection.execute(
        select(inbox).where(begins_with(given)).order_by(inbox.c.id.desc()).limit(LOOKED_AT)
    ).all()
    identity = pick(known_as(given), [row.submission for row in rows], "assignment in an inbox", typed=given)
    return item_of(next(row for row in rows if row.submission == identity))


def has(connection: Connection, identity: str) -> bool:
    """Return whether a submission came to an inbox here, which holds its file."""
    return connection.execute(select(inbox.c.id).where(inbox.c.submission == identity).limit(1)).first() is not None


def _last_decision(
    connection: Connection,
    given: str,
    role: RoleName | None,
    sees: Callable[[str, str], bool] = everybody,
) -> str | None:
    query = (
        select(inbox.c.role, inbox.c.student, inbox.c.module, decisions)
        .join(decisions, decisions.c.item == inbox.c.id)
        .where(begins_with(given))
    )
    if role is not None:
        query = query.where(inbox.c.role == role)
    row = connection.execute(query.order_by(decisions.c.at.desc()).limit(1)).first()
    if row is None or not sees(row.student, row.module):
        return None
    return f"{row.who} decided as the {row.role} at {row.at[:19]} UTC ({row.action})"


def begins_with(given: str) -> ColumnElement[bool]:
    """Return the condition that an entry's submission has an id or a prefix of it."""
    return begins(inbox.c.submission, known_as(given))


def settle(connection: Connection, found: Item, action: str, decision: Decision, course: Course) -> Assignment:
    """Record a decision and put the resulting message into the outbox, where it is held as long as the course says.

    A coordinator's confirmation is recorded when the message leaves the outbox. In a module that several demonstrators
    mark, their judgements are recorded until all are in; until then the assignment is returned as it is.

    Raises:
        UsageError: The role can't make this decision, or another person decided before.
    """
    role, who = role_named(found.role), decision.who
    next_ = decide(found.assignment, role, action, decision)
    blind = course.blind(found.assignment.module, found.role)
    if blind is not None:
        joint = judgements.judge(connection, found.id, decision, blind)
        if joint is None:
            return found.assignment
        decision = joint
        # Each mark was checked. One that is kept of a scheme may exceed the maximum, and with it their mean.
        next_ = decide(found.assignment, role, action, decision, by_scheme=True)
    values = {
        "item": found.id,
        "action": action,
        "who": text(who, 200),
        "at": now(),
        "mark": decision.mark,
        "out_of": decision.out_of,
        "text": decision.remark if decision.remark is not None else decision.whole_feedback,
    }
    first = insert_into(connection, decisions).on_conflict_do_nothing().returning(decisions.c.item)
    if connection.execute(first, values).first() is None:
        told = _last_decision(connection, found.assignment.id, role.name)
        raise UsageError(f"another person decided first, and this decision was not recorded: {told}")
    held = outbox.Held(found.id, course.undo, is_final=blind is not None and blind.is_final)
    add = partial(outbox.add, connection, role.name, held=held)
    add(found.exchange, key_of(next_, course), next_, required=role.name != "coordinator")
    if role.name != "coordinator":
        add(PROGRESS_EXCHANGE, PROGRESS_KEY, Progress.of(next_), required=False)
    return next_


def claimed(
    connection: Connection,
    roles: Sequence[str],
    course: Course,
    *,
    modules: Sequence[str] | None = None,
    signer: Signer | None = None,
) -> list[outbox.Letter]:
    """Claim messages to publish. Confirmations among them are recorded first.

    Those that change nothing, and those whose results are held, are removed.

    Args:
        connection: An open connection.
        roles: The roles whose messages are published.
        course: The course.
        modules: As for `outbox.claim`.
        signer: The key that signs what is published; None signs nothing.
    """
    found: list[outbox.Letter] = []
    for letter in outbox.claim(connection, roles, modules=modules):
        if letter.role == "coordinator" and letter.item is not None:
            result = _confirmed(connection, letter, course, signer)
            if result is None:
                outbox.published(connection, [letter.id])
                continue
            letter = replace(letter, body=_encode(result))
        elif letter.key == RESULTS and hold_letter(connection, letter):
            outbox.published(connection, [letter.id])
            continue
        found.append(letter)
    return found


def _confirmed(
    connection: Connection, letter: outbox.Letter, course: Course, signer: Signer | None
) -> Assignment | None:
    """Record a coordinator's confirmation. Return what to publish; None if it was confirmed, or its result is held."""
    message = connection.execute(select(inbox.c.message).where(inbox.c.id == letter.item)).scalar_one()
    decided = Assignment(decode_object(letter.body))
    findings = findings_of(course.signatures, signer, decided)
    if not course_records.confirm(connection, decided, message, findings=findings):
        return None
    result = with_judgement(connection, decided, course)
    return None if hold(connection, result, letter.exchange) else result


def _waiting() -> Select[Any]:
    undecided = ~select(decisions.c.item).where(decisions.c.item == inbox.c.id).exists()
    return select(inbox).where(undecided).order_by(inbox.c.id)


def item_of(row: Row[Any]) -> Item:
    """Return the entry in a row of the table."""
    return Item(row.id, row.role, row.arrived_at, row.message, row.exchange, Assignment(decode_object(row.body)))
