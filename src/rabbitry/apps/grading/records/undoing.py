"""Decisions whose messages have not left the outbox yet, and can be taken back by the people who made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from rabbitry._ids import pick
from rabbitry.apps.grading.message import identity as known_as
from rabbitry.apps.grading.records import judgements
from rabbitry.apps.grading.records import outbox as letters
from rabbitry.apps.grading.records.inbox import LOOKED_AT, Item, begins_with, everybody, item_of
from rabbitry.apps.grading.records.schema import clock, decisions, inbox, outbox, text
from rabbitry.apps.grading.roles import RoleName
from rabbitry.exceptions import UsageError


@dataclass(frozen=True, slots=True)
class Unsent:
    """A decision whose message is still in the outbox. seconds: how long it is held there at least; 0 if no longer."""

    item: int
    id: str
    student: str
    module: str
    action: str
    who: str
    seconds: float


def unsent(connection: Connection, role: RoleName, who: str | None, limit: int = 20) -> list[Unsent]:
    """List the decisions that can still be taken back, the latest first.

    Args:
        connection: An open connection.
        role: The role.
        who: The person who made them; None for anybody.
        limit: The most to list.
    """
    entry = outbox.c
    held = (
        select(entry.item, (func.max(entry.held_until) - clock(connection)).label("seconds"))
        .where(entry.item.is_not(None))
        .group_by(entry.item)
        .having(func.max(entry.claimed_until) == 0)
        .subquery()
    )
    query = (
        select(inbox.c.id, inbox.c.submission, inbox.c.student, inbox.c.module, decisions, held.c.seconds)
        .join(decisions, decisions.c.item == inbox.c.id)
        .join(held, held.c.item == inbox.c.id)
        .where(inbox.c.role == role)
        .order_by(decisions.c.at.desc())
        .limit(limit)
    )
    if who is not None:
        query = query.where(decisions.c.who == text(who, 200))
    return [
        Unsent(row.id, row.submission, row.student, row.module, row.action, row.who, round(max(row.seconds, 0.0), 1))
        for row in connection.execute(query)
    ]


def take_back(
    connection: Connection,
    identity: str,
    who: str | None,
    role: RoleName | None = None,
    *,
    sees: Callable[[str, str], bool] = everybody,
) -> Item:
    """Take back the last decision on a submission, which waits in the inbox again. Return its entry there.

    Args:
        connection: An open connection.
        identity: The submission's id or a prefix.
        who: The person who takes it back, who must be the one who decided; None for anybody.
        role: The role that decided; None for any.
        sees: As for `item`.

    Raises:
        NoSuchID: There is no such decision, or several submissions match.
        UsageError: Another person decided, the decision was taken back already, or its message has left the outbox.
    """
    query = (
        select(inbox, decisions.c.who, decisions.c.at)
        .join(decisions, decisions.c.item == inbox.c.id)
        .where(begins_with(identity))
    )
    if role is not None:
        query = query.where(inbox.c.role == role)
    rows = connection.execute(query.order_by(inbox.c.id.desc()).limit(LOOKED_AT)).all()
    rows = [row for row in rows if sees(row.student, row.module)]
    whole = pick(known_as(identity), [row.submission for row in rows], "decided submission", typed=identity)
    row = next(row for row in rows if row.submission == whole)
    if who is not None and row.who != text(who, 200):
        raise UsageError(f"{row.who} decided on {whole} as the {row.role}, and alone can take that back")
    # PostgreSQL lets others commit between two statements: this very decision goes, not one that was made since.
    this = (decisions.c.item == row.id, decisions.c.who == row.who, decisions.c.at == row.at)
    if connection.execute(delete(decisions).where(*this)).rowcount != 1:
        raise UsageError(f"the decision on {whole} was taken back already, perhaps in another window")
    if not letters.take_back(connection, row.id):
        raise UsageError(f"the decision on {whole} can't be taken back: it has been sent, or is final")
    judgements.take_back(connection, row.id, row.who)
    return item_of(row)
