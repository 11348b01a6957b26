"""When the results of each module are released, and the results that are published then."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from rabbitry._decode import decode_object
from rabbitry.apps.grading.message import LONGEST_TEXT, Assignment, Decision
from rabbitry.apps.grading.records import outbox
from rabbitry.apps.grading.records.schema import clock, held_results, insert_into, releases, submissions, text
from rabbitry.apps.grading.roles import RESULTS, ROLES
from rabbitry.apps.grading.rows import Release

_COORDINATOR: Final = ROLES["coordinator"].name
_AT_ONCE: Final = 20
"""Results that are put into the outbox in one transaction: each may hold a file of 10 MB."""
_MOST_WAITING: Final = 50
"""Results in the outbox before more are put there, because a publisher reads what waits there at once."""


def set_until(connection: Connection, module: str, until: str, decision: Decision) -> Release:
    """Set when the results of a module are released.

    Args:
        connection: An open connection.
        module: The module's name.
        until: The time, in the records' form. One that has passed, or an empty one, releases them now.
        decision: Who sets it, and the remark that says why.
    """
    at = _time(connection)
    values = {"module": text(module, 200), "until": max(until, at), "who": text(decision.who, 200), "at": at}
    values["remark"] = text(decision.remark, LONGEST_TEXT)
    row = connection.execute(insert(releases).returning(*releases.c), values).one()
    return _release(row, at)


def releases_of(connection: Connection, module: str) -> list[Release]:
    """Return what was set for a module, the last first: that holds."""
    mine = select(releases).where(releases.c.module == text(module, 200)).order_by(releases.c.id.desc())
    at = _time(connection)
    return [_release(row, at) for row in connection.execute(mine)]


def held_modules(connection: Connection) -> dict[str, str]:
    """Return the modules whose results are not released yet, with the time at which they are going to be."""
    last = select(func.max(releases.c.id)).group_by(releases.c.module)
    is_ahead = releases.c.until > _time(connection)
    query = select(releases.c.module, releases.c.until).where(releases.c.id.in_(last), is_ahead)
    return {row.module: row.until for row in connection.execute(query)}


def hold(connection: Connection, result: Assignment, exchange: str) -> bool:
    """Keep a result until those of its module are released. Return false, and keep none, if they are.

    Args:
        connection: An open connection.
        result: The result. It takes the place of an earlier one of the same submission.
        exchange: The exchange to which it is going to be published.
    """
    connection.execute(delete(held_results).where(held_results.c.submission == result.id))
    module = text(result.module, 200)
    if module not in held_modules(connection):
        return False
    _keep(connection, result.id, module, exchange, msgspec.json.encode(result))
    return True


def hold_letter(connection: Connection, letter: outbox.Letter) -> bool:
    """Keep a result that was put into the outbox before the results of its module were held, as `hold` does.

    It may have waited there for the broker, or for a coordinator to run. A result that is kept already is a later one,
    and stays.
    """
    module = connection.execute(select(submissions.c.module).where(submissions.c.id == letter.submission)).scalar()
    if module is None or module not in held_modules(connection):
        return False
    _keep(connection, letter.submission, module, letter.exchange, letter.body)
    return True


def _keep(connection: Connection, identity: str, module: str, exchange: str, body: bytes) -> None:
    values = {"submission": identity, "module": module, "exchange": exchange, "body": body}
    # Another coordinator may hold the same confirmation at the same time.
    connection.execute(insert_into(connection, held_results).on_conflict_do_nothing(), values)


def are_due(connection: Connection) -> bool:
    """Return whether results are kept that are released by now."""
    return connection.execute(_due(connection).limit(1)).first() is not None


def let_go(connection: Connection) -> bool:
    """Put kept results that are released by now into the coordinator's outbox, some of them at a time.

    Those of submissions that are marked again at the moment are dropped: they will have another result.

    Returns:
        False if none was moved or dropped: the outbox is full of results, or another coordinator moves them.
    """
    room = min(_AT_ONCE, _MOST_WAITING - outbox.count(connection, RESULTS))
    if room <= 0:
        return False
    ids = connection.execute(_due(connection).limit(room).with_for_update(skip_locked=True)).scalars().all()
    confirmed = select(submissions.c.id).where(submissions.c.id.in_(ids), submissions.c.confirmed_by.is_not(None))
    for identity in connection.execute(confirmed).scalars().all():
        row = connection.execute(select(held_results).where(held_results.c.submission == identity)).one()
        result = Assignment(decode_object(row.body))
        outbox.add(connection, _COORDINATOR, row.exchange, RESULTS, result, required=False)
    connection.execute(delete(held_results).where(held_results.c.submission.in_(ids)))
    return bool(ids)


def _release(row: Row[Any], at: str) -> Release:
    return Release(**row._mapping, is_ahead=row.until > at)


def _time(connection: Connection) -> str:
    """Return the time in the records' form, by the clock of all who share them: that of a page may be ahead."""
    seconds = connection.execute(select(clock(connection))).scalar_one()
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def _due(connection: Connection) -> Select[tuple[str]]:
    held = [*held_modules(connection)]
    return select(held_results.c.submission).where(held_results.c.module.not_in(held))
