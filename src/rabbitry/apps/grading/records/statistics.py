"""Statistics of a module: the distribution of marks, how long each stage takes, and who waits longest."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records.course import CONFIRMED, Filter, submissions_of
from rabbitry.apps.grading.records.judging import judged
from rabbitry.apps.grading.records.schema import history, submissions, text
from rabbitry.apps.grading.roles import ROLES

BINS: Final = 10
"""Classes of marks, each a tenth of the maximum."""
_MOST_SHARE: Final = 1000.0
"""How many times its maximum a mark may be. A message may bring any numbers, of which the mean would be none."""
LONGEST: Final = 10
"""Submissions that wait longest."""
_STAGES: Final = {(role.takes, role.gives): role.name for role in ROLES.values()}


def statistics_of(connection: Connection, module: str, course: Course) -> dict[str, Any]:
    """Return a module's statistics as JSON data.

    Args:
        connection: An open connection.
        module: The module's name.
        course: The course, which says what counts.
    """
    rows = submissions_of(connection, Filter(module=module))
    known = judged(connection, rows, course)
    counting = [row for row in rows if known[row.id].counts]
    given = [(mark, row.out_of) for row in counting if (mark := known[row.id].final_mark) is not None]
    open_ = sorted((row for row in rows if row.status != CONFIRMED), key=lambda row: (row.updated_at, row.id))
    now = datetime.now(UTC)
    return {
        "module": module,
        "submissions": len(rows),
        "students": len({row.student for row in rows}),
        "marks": _marks(given) | {"without": len(counting) - len(given)},
        "stages": _stages(connection, module),
        "waiting": [
            {
                "id": row.id,
                "student": row.student,
                "status": row.status,
                "role": next((role.name for role in ROLES.values() if role.takes == row.status), None),
                "seconds": max((now - datetime.fromisoformat(row.updated_at)).total_seconds(), 0.0),
            }
            for row in open_[:LONGEST]
        ],
    }


def _marks(given: Sequence[tuple[float, float | None]]) -> dict[str, Any]:
    """Describe marks, given with their maxima, if these are sound; bonus points are in the last class."""
    shares = [share for mark, total in given if total and abs(share := mark / total) <= _MOST_SHARE]
    classes = [0] * BINS
    for share in shares:
        classes[min(max(int(share * BINS), 0), BINS - 1)] += 1
    return {
        "given": len(given),
        "classes": classes,
        "mean": statistics.fmean(shares) if shares else None,
        "median": statistics.median(shares) if shares else None,
        "least": min(shares, default=None),
        "most": max(shares, default=None),
    }


def _stages(connection: Connection, module: str) -> list[dict[str, Any]]:
    """Describe how long each role took from the hop before to its own, and all of them, in seconds."""
    columns = history.c
    of_module = submissions.c.module == text(module, 200)
    hops = select(columns.submission, columns.status, columns.at).join(
        submissions, submissions.c.id == columns.submission
    )
    took: dict[str, list[float]] = defaultdict(list)
    last, begun = ("", "", 0.0), 0.0
    for identity, status, at in connection.execute(hops.where(of_module).order_by(columns.submission, columns.step)):
        moment = datetime.fromisoformat(at).timestamp()
        if identity != last[0]:
            begun = moment
        elif (name := _STAGES.get((last[1], status))) is not None:
            took[name].append(max(moment - last[2], 0.0))
            if status == CONFIRMED:
                took["all"].append(max(moment - begun, 0.0))
        elif status == "submitted":
            begun = moment  # marked again: another round
        last = (identity, status, moment)
    names = [*ROLES, "all"]
    return [
        {
            "stage": name,
            "number": len(took[name]),
            "p50": _percentile(took[name], 50),
            "p95": _percentile(took[name], 95),
        }
        for name in names
    ]


def _percentile(values: list[float], percent: int) -> float | None:
    """Return a percentile by the nearest rank; None if there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]
