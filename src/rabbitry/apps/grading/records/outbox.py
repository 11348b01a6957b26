"""Messages to publish, of decisions and regrading: each is claimed, published, confirmed, and only then removed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, or_, select, update

from rabbitry.apps.grading.message import ID, Assignment, Progress, now
from rabbitry.apps.grading.records.schema import clock, inbox, outbox, submissions, text

CLAIM: Final = 30.0
"""Seconds after which another publisher may take a claimed entry: the first may have died."""
_LONGEST_HELD: Final = 7200.0
"""Seconds beyond which no entry is held, twice the longest pause of a course: the clock was put back since then."""
_RELEASED: Final = 1.0
"""`claimed_until` of an entry that can't be taken back: it is final, or may have reached the broker before."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to publish. message: its id, the same each time it is published. item: the inbox entry decided on."""

    id: int
    role: str
    exchange: str
    key: str
    required: bool
    message: str
    submission: str
    type: str
    body: bytes
    item: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The decision of an outbox entry. item: the inbox entry. seconds: how long it is held.

    is_final: whether it can't be taken back, and is not held.
    """

    item: int | None = None
    seconds: float = 0.0
    is_final: bool = False


_NOT_HELD: Final = Held()


def add(
    connection: Connection,
    role: str,
    exchange: str,
    key: str,
    value: Assignment | Progress,
    *,
    required: bool,
    held: Held = _NOT_HELD,
) -> None:
    """Put a message into the outbox of a role.

    Args:
        connection: An open connection.
        role: The role that publishes it.
        exchange: The exchange.
        key: The routing key.
        value: The message.
        required: Whether it must be routable.
        held: The decision that it follows, if it follows one.
    """
    connection.execute(
        outbox.insert().values(
            role=role,
            exchange=exchange,
            key=key,
            required=int(required),
            message=uuid.uuid4().hex,
            submission=value[ID],
            type=type(value).__name__,
            body=msgspec.json.encode(value),
            created_at=now(),
            item=held.item,
            claimed_until=_RELEASED if held.is_final else 0.0,
            held_until=clock(connection) + held.seconds if held.seconds and not held.is_final else 0.0,
        )
    )


def claim(
    connection: Connection, roles: Sequence[str], limit: int = 100, *, modules: Sequence[str] | None = None
) -> list[Letter]:
    """Claim the entries to publish for these roles, oldest first. modules: only for their submissions; None for all."""
    seconds = clock(connection)
    free = (
        select(outbox)
        .where(outbox.c.role.in_(roles), _is_free(seconds), *_of(modules))
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(free).all()
    if rows:
        mine = [row.id for row in rows]
        connection.execute(update(outbox).where(outbox.c.id.in_(mine)).values(claimed_until=seconds + CLAIM))
    return [_letter(row) for row in rows]


def _letter(row: Row[Any]) -> Letter:
    return Letter(
        row.id, row.role, row.exchange, row.key, bool(row.required), row.message, row.submission, row.type, row.body,
        row.item,
    )  # fmt: skip


def is_empty(connection: Connection, roles: Sequence[str], *, modules: Sequence[str] | None = None) -> bool:
    """Return whether nothing can be claimed; cheaper than a claim."""
    free = select(outbox.c.id).where(outbox.c.role.in_(roles), _is_free(clock(connection)), *_of(modules))
    return connection.execute(free.limit(1)).first() is None


def _is_free(seconds: ColumnElement[float]) -> ColumnElement[bool]:
    held = outbox.c.held_until
    return and_(outbox.c.claimed_until < seconds, or_(held <= seconds, held > seconds + _LONGEST_HELD))


def _of(modules: Sequence[str] | None) -> list[ColumnElement[bool]]:
    """Return the conditions for entries about submissions of modules; none for all modules."""
    if modules is None:
        return []
    names = [text(name, 200) for name in modules]
    # A decided submission was in an inbox; one that is marked again is recorded, but perhaps was in none.
    decided = select(inbox.c.submission).where(inbox.c.module.in_(names))
    known = select(submissions.c.id).where(submissions.c.module.in_(names))
    return [or_(outbox.c.submission.in_(decided), outbox.c.submission.in_(known))]


def published(connection: Connection, letters: Sequence[int]) -> None:
    """Remove confirmed entries."""
    connection.execute(delete(outbox).where(outbox.c.id.in_(letters)))


def release(connection: Connection, letters: Sequence[int]) -> None:
    """Return entries that could not be published to the outbox."""
    connection.execute(update(outbox).where(outbox.c.id.in_(letters)).values(claimed_until=_RELEASED))


def take_back(connection: Connection, item: int) -> bool:
    """Remove the entries of a decision. Return false, and change nothing, if a publisher has claimed one already."""
    # The rows are locked, so that a publisher that claims at the same time skips them, or is waited for and seen.
    mine = select(outbox.c.claimed_until).where(outbox.c.item == item).with_for_update()
    claimed = connection.execute(mine).scalars().all()
    if not claimed or any(claimed):
        return False
    connection.execute(delete(outbox).where(outbox.c.item == item))
    return True


def count(connection: Connection, key: str | None = None) -> int:
    """Count the entries yet to be published. key: only those with this routing key; None for all."""
    query = select(func.count()).select_from(outbox)
    return connection.execute(query if key is None else query.where(outbox.c.key == key)).scalar_one()
