"""Statistics of a module: the distribution of marks, how long each stage takes, who waits longest, and for whom.

The database counts and groups the hops: of a module of 100,000 submissions it has four times as many, and reading each
of them took longer than an asker waits.
"""

from __future__ import annotations

import statistics
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    Select,
    and_,
    case,
    func,
    or_,
    select,
)

from rabbitry.apps.grading.message import BY_ITSELF, DECLINED
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records.course import CONFIRMED
from rabbitry.apps.grading.records.elapsed import seconds_between
from rabbitry.apps.grading.records.judging import IN_PARTS, counting, students_of
from rabbitry.apps.grading.records.schema import history, requests, submissions, text
from rabbitry.apps.grading.roles import ROLES, RoleName

BINS: Final = 10
"""Classes of marks, each a tenth of the maximum."""
_MOST_SHARE: Final = 1000.0
"""How many times its maximum a mark may be. A message may bring any numbers, of which the mean would be none."""
LONGEST: Final = 10
"""Submissions that wait longest."""
_TAKES: Final = {role.takes: role.name for role in ROLES.values()}
_GIVEN: Final = {"demonstrator": ("corrected",), "assistant": ("validated", "submitted"), "coordinator": (CONFIRMED,)}
"""Role → the statuses that it gives when it decides."""


def statistics_of(connection: Connection, module: str, course: Course) -> dict[str, Any]:
    """Return a module's statistics as JSON data.

    Args:
        connection: An open connection.
        module: The module's name.
        course: The course, which says what counts.
    """
    now, of_module = datetime.now(UTC), submissions.c.module == text(module, 200)
    return {
        "module": module,
        **_counted(connection, module, course),
        "stages": _stages(connection, of_module),
        "work": _work(connection, of_module, now),
        "waiting": [
            {
                "id": row.id,
                "student": row.student,
                "status": row.status,
                "role": _TAKES.get(row.status),
                "seconds": _seconds_since(row.updated_at, now),
            }
            for row in connection.execute(_longest(of_module))
        ],
    }


def _counted(connection: Connection, module: str, course: Course) -> dict[str, Any]:
    """Count submissions and students, and describe the marks of what counts."""
    known = course.modules.get(module)
    rules = None if known is None else known.deadlines
    number = declined = students = without = 0
    given: list[tuple[float, float | None]] = []
    for student, attempts in students_of(connection, module):
        students += 1
        number += len(attempts)
        declined += sum(one.status == DECLINED for one in attempts)
        found = counting(student, attempts, rules)
        if found is None:
            continue
        mark, out_of = found
        if mark is None:
            without += 1
        else:
            given.append((mark, out_of))
    marks = _marks(given) | {"without": without}
    return {"submissions": number, "declined": declined, "students": students, "marks": marks}


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


def _longest(of_module: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the submissions that wait longest."""
    columns = submissions.c
    query = select(columns.id, columns.student, columns.status, columns.updated_at)
    query = query.where(of_module, columns.status.not_in((CONFIRMED, DECLINED)))
    return query.order_by(columns.updated_at, columns.id).limit(LONGEST)


def _seconds_since(at: str, now: datetime) -> float:
    return max((now - datetime.fromisoformat(at)).total_seconds(), 0.0)


# -- what waits for whom ---------------------------------------------------------------------------------


class _Person(msgspec.Struct):
    """What is read here of the mark of one of several demonstrators."""

    who: str


_people_of: Final = msgspec.json.Decoder(list[_Person]).decode


@dataclass(slots=True)
class _Work:
    """What waits for a person, or for anybody of a role. since: when the first of it came."""

    waiting: int = 0
    requests: int = 0
    since: str | None = None
    decided: int = 0
    last_at: str | None = None

    def came(self, at: str) -> None:
        self.since = min(self.since or at, at)

    def decides(self, number: int, last_at: str) -> None:
        self.decided += number
        self.last_at = max(self.last_at or "", last_at)

    def as_dict(self, now: datetime) -> dict[str, Any]:
        return {
            "waiting": self.waiting,
            "requests": self.requests,
            "seconds": None if self.since is None else _seconds_since(self.since, now),
            "decided": self.decided,
            "last_at": self.last_at,
        }


def _work(connection: Connection, of_module: ColumnElement[bool], now: datetime) -> list[dict[str, Any]]:
    """Describe what waits for whom, the longest first, and what each person has decided.

    A submission that comes to a role again waits for the people who decided there before; others wait for anybody of
    the role. A request for another look waits for the demonstrators who gave the mark.
    """
    work: dict[tuple[str, str | None], _Work] = defaultdict(_Work)
    for row in connection.execute(_decided(of_module), execution_options=IN_PARTS):
        for who in _deciders(row):
            work[row.role, who].decides(row.number, row.last_at)
    for role in ROLES.values():
        for row in connection.execute(_open(role.name, role.takes, of_module)):
            for who in _deciders(row):
                one = work[role.name, who]
                one.waiting += row.number
                one.came(row.first_at)
    for row in connection.execute(_asked(of_module)):
        for who in _deciders(row):
            one = work["demonstrator", who]
            one.requests += row.number
            one.came(row.first_at)
    found = sorted(work.items(), key=lambda one: (one[1].since or "~", one[0][0], one[0][1] or ""))
    return [{"role": role, "who": who, **one.as_dict(now)} for (role, who), one in found]


def _deciders(row: Row[Any]) -> Iterable[str | None]:
    """Return the people who decided, of a row with `who` and `marks`; [None] if nobody has."""
    return [row.who] if row.marks is None else [one.who for one in _people_of(row.marks)]


def _is_decision(role: RoleName) -> ColumnElement[bool]:
    """Return the condition that a hop is a person's decision in a role."""
    columns = history.c
    return and_(columns.role == role, columns.status.in_(_GIVEN[role]), columns.who != BY_ITSELF)


def _decided(of_module: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the number of decisions, by role and who decided."""
    columns = history.c
    who = columns.role, columns.who, columns.marks
    query = select(*who, func.count().label("number"), func.max(columns.at).label("last_at"))
    query = query.join(submissions, submissions.c.id == columns.submission)
    return query.where(of_module, or_(*map(_is_decision, ROLES))).group_by(*who)


def _last_decision(role: RoleName) -> ColumnElement[bool]:
    """Return the condition that a hop is the last decision of people of a role about a submission."""
    earlier = history.alias()
    columns = earlier.c
    last: ScalarSelect[Any] = (
        select(func.max(columns.step))
        .where(columns.submission == submissions.c.id, columns.role == role)
        .where(columns.status.in_(_GIVEN[role]), columns.who != BY_ITSELF)
        .scalar_subquery()
    )
    return and_(history.c.submission == submissions.c.id, history.c.step == last)


def _open(role: RoleName, takes: str, of_module: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the submissions that wait for a role, by who decided there before."""
    who, at = (history.c.who, history.c.marks), submissions.c.updated_at
    before = submissions.outerjoin(history, _last_decision(role))
    query = select(*who, func.count().label("number"), func.min(at).label("first_at")).select_from(before)
    return query.where(of_module, submissions.c.status == takes).group_by(*who)


def _asked(of_module: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the requests that wait, by who gave the mark."""
    who, at = (history.c.who, history.c.marks), requests.c.asked_at
    about = requests.join(submissions, submissions.c.id == requests.c.submission)
    about = about.outerjoin(history, _last_decision("demonstrator"))
    query = select(*who, func.count().label("number"), func.min(at).label("first_at")).select_from(about)
    return query.where(of_module, requests.c.answer.is_(None)).group_by(*who)


# -- how long it takes -----------------------------------------------------------------------------------


def _stages(connection: Connection, of_module: ColumnElement[bool]) -> list[dict[str, Any]]:
    """Describe how long each role took from the hop before to its own, and all of them, in seconds."""
    names = {role.gives: role.name for role in ROLES.values()}
    took: dict[str, array[float]] = {name: array("d") for name in (*ROLES, "all")}
    for status, seconds, in_all in connection.execute(_hops(of_module), execution_options=IN_PARTS):
        took[names[status]].append(max(seconds, 0.0))
        if in_all is not None:
            took["all"].append(max(in_all, 0.0))
    return [{"stage": name, "number": len(values), **_percentiles(values)} for name, values in took.items()]


def _hops(of_module: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the seconds of each role's hop since the one before, and of a confirmation in all.

    In all it takes from the hop that began the present round: the student's, or the last that submitted it again.
    """
    before, begun = history.alias(), history.alias()
    at, status = history.c.at, history.c.status
    steps = or_(*(and_(before.c.status == role.takes, status == role.gives) for role in ROLES.values()))
    round_ = select(begun.c.at).where(begun.c.submission == history.c.submission, begun.c.step < history.c.step)
    submitted = round_.where(begun.c.status == "submitted").order_by(begun.c.step.desc()).limit(1).scalar_subquery()
    first = round_.order_by(begun.c.step).limit(1).scalar_subquery()
    in_all = case((status == CONFIRMED, seconds_between(func.coalesce(submitted, first), at)))
    joined = submissions.join(history, history.c.submission == submissions.c.id)
    is_before = and_(before.c.submission == history.c.submission, before.c.step == history.c.step - 1)
    return (
        select(status, seconds_between(before.c.at, at), in_all)
        .select_from(joined.join(before, is_before))
        .where(of_module, steps)
    )


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return percentiles by the nearest rank; None if there are no values."""
    ordered = sorted(values)
    ranks = {percent: max(-(-len(ordered) * percent // 100) - 1, 0) for percent in (50, 95)}
    return {f"p{percent}": ordered[rank] if ordered else None for percent, rank in ranks.items()}
