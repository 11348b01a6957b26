"""When the results of each module are released, and the results that are published then."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from rabbitry._decode import decode_object
from rabbitry.apps.grading.message import LONGEST_TEXT, Assignment, Decision, now
from rabbitry.apps.grading.records import outbox
from rabbitry.apps.grading.records.schema import held_results, insert_into, releases, submissions, text
from rabbitry.apps.grading.roles import RESULTS, ROLES
from rabbitry.apps.grading.rows import Release

_COORDINATOR: Final = ROLES["coordinator"].name
_AT_ONCE: Final = 20
"""Results that are published in one transaction: each may hold a file of 10 MB."""


def set_until(connection: Connection, module: str, until: str, decision: Decision) -> Release:
    """Set when the results of a module are released.

    Args:
        connection: An open connection.
        module: The module's name.
        until: The time, in the records' form. One that has passed releases them now.
        decision: Who sets it, and the remark that says why.
    """
    at = now()
    values = {"module": text(module, 200), "until": max(until, at), "who": text(decision.who, 200), "at": at}
    values["remark"] = text(decision.remark, LONGEST_TEXT)
    row = connection.execute(insert(releases).returning(*releases.c), values).one()
    return _release(row)


def releases_of(connection: Connection, module: str) -> list[Release]:
    """Return what was set for a module, the last first: that holds."""
    mine = select(releases).where(releases.c.module == text(module, 200)).order_by(releases.c.id.desc())
    return [_release(row) for row in connection.execute(mine)]


def held_modules(connection: Connection) -> dict[str, str]:
    """Return the modules whose results are not released yet, with the time at which they are going to be."""
    last = select(func.max(releases.c.id)).group_by(releases.c.module)
    query = select(releases.c.module, releases.c.until).where(releases.c.id.in_(last), releases.c.until > now())
    return {row.module: row.until for row in connection.execute(query)}


def hold(connection: Connection, result: Assignment, exchange: str) -> bool:
    """Keep a result until those of its module are released. Return false, and keep none, if they are.

    Args:
        connection: An open connection.
        result: The result. It takes the place of an earlier one of the same submission.
        exchange: The exchange to which it is going to be published.
    """
    connection.execute(delete(held_results).where(held_results.c.submission == result.id))
    if text(result.module, 200) not in held_modules(connection):
        return False
    values = {"submission": result.id, "module": text(result.module, 200), "exchange": exchange}
    # Another coordinator may hold the same confirmation at the same time.
    keep = insert_into(connection, held_results).on_conflict_do_nothing()
    connection.execute(keep, values | {"body": msgspec.json.encode(result)})
    return True


def are_due(connection: Connection) -> bool:
    """Return whether results are kept that are released by now."""
    return connection.execute(_due(connection).limit(1)).first() is not None


def let_go(connection: Connection) -> None:
    """Put kept results that are released by now into the coordinator's outbox, some of them at a time.

    Those of submissions that are marked again at the moment are dropped: they will have another result.
    """
    ids = connection.execute(_due(connection).limit(_AT_ONCE).with_for_update(skip_locked=True)).scalars().all()
    confirmed = select(submissions.c.id).where(submissions.c.id.in_(ids), submissions.c.confirmed_by.is_not(None))
    rows = connection.execute(select(held_results).where(held_results.c.submission.in_(confirmed)))
    for row in rows.all():
        result = Assignment(decode_object(row.body))
        outbox.add(connection, _COORDINATOR, row.exchange, RESULTS, result, required=False)
    connection.execute(delete(held_results).where(held_results.c.submission.in_(ids)))


def _release(row: Row[Any]) -> Release:
    return Release(**row._mapping, is_ahead=row.until > now())


def _due(connection: Connection) -> Select[tuple[str]]:
    held = [*held_modules(connection)]
    return select(held_results.c.submission).where(held_results.c.module.not_in(held))
