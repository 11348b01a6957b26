"""The runs of marking again for people: how far each is, and which marks it changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, select

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.records.course import CONFIRMED
from rabbitry.apps.grading.records.regrading import LOST, REOPENED, UNCONFIRMED, Selection
from rabbitry.apps.grading.records.schema import history, is_number, regraded, regrades, submissions

MOST_RUNS: Final = 20
"""Runs of a module that are listed, the latest ones."""
MOST_CHANGES: Final = 500
"""Changed marks of a run that are listed."""


def runs_of(connection: Connection, module: str) -> list[dict[str, Any]]:
    """List the runs of a module as JSON data, the latest first."""
    found = []
    for row in connection.execute(select(regrades).order_by(regrades.c.id.desc())):
        selection = msgspec.json.decode(row.selection, type=Selection)
        if selection.module == module:
            found.append((row, selection))
        if len(found) == MOST_RUNS:
            break
    outcomes = _outcomes(connection, [row.id for row, _ in found])
    return [_run(row, selection, outcomes[row.id]) for row, selection in found]


def run_of(connection: Connection, number: int) -> dict[str, Any]:
    """Return a run as JSON data, as `runs_of` does. Raises NoSuchID."""
    row = _row(connection, number)
    return _run(row, msgspec.json.decode(row.selection, type=Selection), _outcomes(connection, [number])[number])


def _row(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(select(regrades).where(regrades.c.id == number)).first() if is_number(number) else None
    if row is None:
        raise NoSuchID(f"there is no run {number} of marking again")
    return row


def _outcomes(connection: Connection, numbers: Sequence[int]) -> dict[int, Counter[int]]:
    """Count the submissions of runs by their outcomes."""
    found: dict[int, Counter[int]] = defaultdict(Counter)
    columns = regraded.c.regrade, regraded.c.is_done
    query = select(*columns, func.count()).where(regraded.c.regrade.in_(numbers)).group_by(*columns)
    for number, outcome, count in connection.execute(query):
        found[number][outcome] = count
    return found


def _run(row: Row[Any], selection: Selection, outcomes: Counter[int]) -> dict[str, Any]:
    return {
        "id": row.id,
        "module": selection.module,
        "since": selection.since,
        "student": selection.student,
        "all_attempts": selection.all_attempts,
        "who": row.who,
        "remark": row.remark,
        "begun_at": row.begun_at,
        "ended_at": row.ended_at,
        "is_coordinators": bool(row.by_coordinator),
        "submissions": outcomes.total(),
        "reopened": outcomes[REOPENED],
        "lost": outcomes[LOST],
        "unconfirmed": outcomes[UNCONFIRMED],
    }


def result_of(connection: Connection, number: int) -> dict[str, Any]:
    """Return the result of a run as JSON data: how many submissions have their new mark, and which marks changed.

    Raises:
        NoSuchID: There is no such run.
    """
    row = _row(connection, number)
    selection = msgspec.json.decode(row.selection, type=Selection)
    columns = history.c
    query = (
        select(columns.submission, submissions.c.student, *(columns[name] for name in ("role", "status", "who", "at")))
        .add_columns(columns.mark, columns.out_of, columns.remark)
        .join(regraded, regraded.c.submission == columns.submission)
        .join(submissions, submissions.c.id == columns.submission)
        .where(regraded.c.regrade == number, regraded.c.is_done == REOPENED)
        .order_by(submissions.c.student, columns.submission, columns.step)
    )
    ways: dict[str, list[Row[Any]]] = defaultdict(list)
    for hop in connection.execute(query):
        ways[hop.submission].append(hop)
    ended, changes, before = 0, [], _before(connection, row)
    for identity, hops in ways.items():
        marks = _marks(hops, row, before.get(identity, 0))
        if marks is None:
            continue
        ended += 1
        old, new = marks
        if old != new:
            sides = ({"mark": mark, "out_of": out_of} for mark, out_of in marks)
            changes.append(
                {"id": identity, "student": hops[0].student, **dict(zip(("old", "new"), sides, strict=True))}
            )
    return {
        "id": number,
        "module": selection.module,
        "confirmed": ended,
        "changed": len(changes),
        "changes": changes[:MOST_CHANGES],
    }


def _before(connection: Connection, run: Row[Any]) -> dict[str, int]:
    """Count by submission the earlier runs of the same person for the same reason that reopened it."""
    same = regrades.c.id < run.id, regrades.c.who == run.who, regrades.c.remark == run.remark
    query = select(regraded.c.submission, func.count()).join(regrades, regrades.c.id == regraded.c.regrade)
    query = query.where(*same, regraded.c.is_done == REOPENED).group_by(regraded.c.submission)
    return {row[0]: row[1] for row in connection.execute(query)}


def _marks(hops: list[Row[Any]], run: Row[Any], before: int) -> tuple[tuple[Any, Any], tuple[Any, Any]] | None:
    """Return mark and maximum before a run reopened a submission, and those confirmed after it; None if none is yet.

    before: how many earlier runs left a hop with the same person and reason. Times are not compared: the run's is by
    the clock of the page's machine, the hop's by the coordinator's.
    """
    old = new = (None, None)
    is_again = False
    for hop in hops:
        if not is_again and (hop.role, hop.status) == ("coordinator", "submitted"):
            if (hop.who, hop.remark) == (run.who, run.remark):
                is_again, before = before == 0, before - 1
            new = old
        elif hop.status == "corrected":
            if is_again:
                new = (hop.mark, hop.out_of)
            else:
                old = (hop.mark, hop.out_of)
        elif is_again and hop.status == CONFIRMED:
            return old, new
    return None
