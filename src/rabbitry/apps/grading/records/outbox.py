"""Messages to publish, of decisions and regrading: each is claimed, published, confirmed, and only then removed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, delete, func, select, update

from rabbitry.apps.grading.message import ID, Assignment, Progress, now
from rabbitry.apps.grading.records.schema import outbox

CLAIM: Final = 30.0
"""Seconds after which another publisher may take a claimed entry: the first may have died."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to publish. message: its id, the same each time it is published."""

    id: int
    role: str
    exchange: str
    key: str
    required: bool
    message: str
    submission: str
    type: str
    body: bytes


def add(
    connection: Connection, role: str, exchange: str, key: str, value: Assignment | Progress, *, required: bool
) -> None:
    """Put a message into the outbox of a role. required: it must be routable."""
    connection.execute(
        outbox.insert(),
        {
            "role": role,
            "exchange": exchange,
            "key": key,
            "required": int(required),
            "message": uuid.uuid4().hex,
            "submission": value[ID],
            "type": type(value).__name__,
            "body": msgspec.json.encode(value),
            "created_at": now(),
        },
    )


def claim(connection: Connection, roles: Sequence[str], limit: int = 100) -> list[Letter]:
    """Claim the entries to publish for these roles, oldest first."""
    seconds = time.time()
    free = (
        select(outbox)
        .where(outbox.c.role.in_(roles), outbox.c.claimed_until < seconds)
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
        row.id, row.role, row.exchange, row.key, bool(row.required), row.message, row.submission, row.type, row.body
    )  # fmt: skip


def is_empty(connection: Connection, roles: Sequence[str]) -> bool:
    """Return whether nothing can be claimed; cheaper than a claim."""
    free = select(outbox.c.id).where(outbox.c.role.in_(roles), outbox.c.claimed_until < time.time())
    return connection.execute(free.limit(1)).first() is None


def published(connection: Connection, letters: Sequence[int]) -> None:
    """Remove confirmed entries."""
    connection.execute(delete(outbox).where(outbox.c.id.in_(letters)))


def release(connection: Connection, letters: Sequence[int]) -> None:
    """Return entries that could not be published to the outbox."""
    connection.execute(update(outbox).where(outbox.c.id.in_(letters)).values(claimed_until=0.0))


def count(connection: Connection) -> int:
    """Count the entries yet to be published."""
    return connection.execute(select(func.count()).select_from(outbox)).scalar_one()
