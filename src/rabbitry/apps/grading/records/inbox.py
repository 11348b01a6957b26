"""What waits for people, and what they decide: recorded and put into the outbox in one transaction, or not at all."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, func, select

from rabbitry._decode import decode_object
from rabbitry.apps.grading.message import Assignment, Decision, Progress, now
from rabbitry.apps.grading.message import identity as known_as
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import course as course_records
from rabbitry.apps.grading.records.schema import decisions, inbox, insert_into, outbox, text
from rabbitry.apps.grading.roles import PROGRESS_EXCHANGE, PROGRESS_KEY, Role, RoleName, decide, key_of, role_named
from rabbitry.exceptions import UsageError

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
    """Put an assignment into a role's inbox; says whether it was not there yet. It may have been decided since."""
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


def waiting(connection: Connection, role: RoleName, *, limit: int | None = None) -> list[Item]:
    """List what waits for a role's people, oldest first."""
    return [_item(row) for row in connection.execute(_waiting().where(inbox.c.role == role).limit(limit))]


def counts(connection: Connection) -> dict[str, int]:
    """Count what waits in each role's inbox."""
    open_ = _waiting().order_by(None).subquery()
    rows = connection.execute(select(open_.c.role, func.count()).group_by(open_.c.role))
    return {row[0]: row[1] for row in rows}


def item(connection: Connection, identity: str, role: RoleName | None = None) -> Item:
    """Find what waits by the submission's id. Raises UsageError where nothing does."""
    wanted = _waiting().where(inbox.c.submission == known_as(identity))
    if role is not None:
        wanted = wanted.where(inbox.c.role == role)
    row = connection.execute(wanted.limit(1)).first()
    if row is None:
        raise UsageError(f"nothing waits for a decision with the id {identity!r}: it may have been decided already")
    return _item(row)


def settle(connection: Connection, found: Item, action: str, decision: Decision, course: Course) -> Assignment:
    """Record a decision and put what it leads to into the outbox.

    Raises UsageError where the role can't decide so, or somebody decided before.
    """
    role = role_named(found.role)
    next_ = decide(found.assignment, role, action, decision)
    values = {
        "item": found.id,
        "action": action,
        "who": text(decision.who, 200),
        "at": now(),
        "mark": decision.mark,
        "out_of": decision.out_of,
        "text": decision.remark if decision.remark is not None else decision.feedback,
    }
    first = insert_into(connection, decisions).on_conflict_do_nothing().returning(decisions.c.item)
    if connection.execute(first, values).first() is None:
        raise UsageError(f"assignment {found.assignment.id} was decided by somebody else just now")
    if role.name == "coordinator":
        if course_records.confirm(connection, next_, found.message):
            _to_be_published(connection, role, found.exchange, key_of(next_, course), next_, required=False)
        return next_
    _to_be_published(connection, role, found.exchange, key_of(next_, course), next_, required=True)
    _to_be_published(connection, role, PROGRESS_EXCHANGE, PROGRESS_KEY, Progress.of(next_), required=False)
    return next_


def _to_be_published(
    connection: Connection, role: Role, exchange: str, key: str, value: Assignment | Progress, *, required: bool
) -> None:
    connection.execute(
        outbox.insert(),
        {
            "role": role.name,
            "exchange": exchange,
            "key": key,
            "required": int(required),
            "message": uuid.uuid4().hex,
            "submission": value["SubmissionID"],
            "type": type(value).__name__,
            "body": _encode(value),
            "created_at": now(),
        },
    )


def _waiting() -> Select[Any]:
    undecided = ~select(decisions.c.item).where(decisions.c.item == inbox.c.id).exists()
    return select(inbox).where(undecided).order_by(inbox.c.id)


def _item(row: Row[Any]) -> Item:
    return Item(row.id, row.role, row.arrived_at, row.message, row.exchange, Assignment(decode_object(row.body)))
