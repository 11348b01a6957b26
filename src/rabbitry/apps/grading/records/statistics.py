"""Statistics of a module: the distribution of marks, how long each stage takes, who waits longest, and for whom."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, select

from rabbitry.apps.grading.message import BY_ITSELF, DECLINED
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records.course import CONFIRMED, Filter, Submission, submissions_of
from rabbitry.apps.grading.records.judging import judged
from rabbitry.apps.grading.records.requests import waiting
from rabbitry.apps.grading.records.schema import history, submissions, text
from rabbitry.apps.grading.roles import ROLES
from rabbitry.apps.grading.rows import Request

BINS: Final = 10
"""Classes of marks, each a tenth of the maximum."""
_MOST_SHARE: Final = 1000.0
"""How many times its maximum a mark may be. A message may bring any numbers, of which the mean would be none."""
LONGEST: Final = 10
"""Submissions that wait longest."""
_TAKES: Final = {role.takes: role.name for role in ROLES.values()}
_GIVEN: Final = {"demonstrator": ("corrected",), "assistant": ("validated", "submitted"), "coordinator": (CONFIRMED,)}
"""Role → the statuses that it gives when it decides."""
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
    open_ = sorted(
        (row for row in rows if row.status not in (CONFIRMED, DECLINED)), key=lambda row: (row.updated_at, row.id)
    )
    now, hops = datetime.now(UTC), _hops(connection, module)
    return {
        "module": module,
        "submissions": len(rows),
        "declined": sum(row.status == DECLINED for row in rows),
        "students": len({row.student for row in rows}),
        "marks": _marks(given) | {"without": len(counting) - len(given)},
        "stages": _stages(hops),
        "work": _work(_decided(hops), rows, waiting(connection, Filter(module=module)), now),
        "waiting": [
            {
                "id": row.id,
                "student": row.student,
                "status": row.status,
                "role": _TAKES.get(row.status),
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


def _hops(connection: Connection, module: str) -> Sequence[Row[Any]]:
    """Return the hops of a module's submissions, those of one after another."""
    columns = history.c
    hops: Select[Any] = select(*(columns[name] for name in ("submission", "role", "status", "who", "at", "marks")))
    hops = hops.join(submissions, submissions.c.id == columns.submission)
    of_module = submissions.c.module == text(module, 200)
    return connection.execute(hops.where(of_module).order_by(columns.submission, columns.step)).all()


def _decided(hops: Sequence[Row[Any]]) -> Iterator[tuple[Row[Any], list[str]]]:
    """Yield the hops of people's decisions, each with the people who made it."""
    for hop in hops:
        if hop.status in _GIVEN.get(hop.role, ()) and hop.who != BY_ITSELF:
            yield hop, [hop.who] if hop.marks is None else [one.who for one in _people_of(hop.marks)]


class _Person(msgspec.Struct):
    """What is read here of the mark of one of several demonstrators."""

    who: str


_people_of: Final = msgspec.json.Decoder(list[_Person]).decode


def _work(
    decided: Iterable[tuple[Row[Any], list[str]]],
    rows: Sequence[Submission],
    requests: Sequence[Request],
    now: datetime,
) -> list[dict[str, Any]]:
    """Describe what waits for whom, the longest first, and what each person has decided.

    A submission that comes to a role again waits for the people who decided there before; others wait for anybody of
    the role. A request for another look waits for the demonstrators who gave the mark.
    """
    before: dict[tuple[str, str], list[str]] = {}
    work: dict[tuple[str, str | None], _Work] = defaultdict(_Work)
    for hop, people in decided:
        before[hop.submission, hop.role] = people
        for who in people:
            person = work[hop.role, who]
            person.decided, person.last_at = person.decided + 1, max(person.last_at or "", hop.at)
    for row in rows:
        if (role := _TAKES.get(row.status)) is not None:
            for waited_for in before.get((row.id, role), [None]):
                work[role, waited_for].wait(row.updated_at)
    for request in requests:
        for waited_for in before.get((request.submission, "demonstrator"), [None]):
            work["demonstrator", waited_for].ask(request.asked_at)
    found = sorted(work.items(), key=lambda one: (one[1].since or "~", one[0][0], one[0][1] or ""))
    return [{"role": role, "who": who, **one.as_dict(now)} for (role, who), one in found]


@dataclass(slots=True)
class _Work:
    """What waits for a person, or for anybody of a role. since: when the first of it came."""

    waiting: int = 0
    requests: int = 0
    since: str | None = None
    decided: int = 0
    last_at: str | None = None

    def wait(self, at: str) -> None:
        self.waiting += 1
        self.since = min(self.since or at, at)

    def ask(self, at: str) -> None:
        self.requests += 1
        self.since = min(self.since or at, at)

    def as_dict(self, now: datetime) -> dict[str, Any]:
        seconds = None if self.since is None else max((now - datetime.fromisoformat(self.since)).total_seconds(), 0.0)
        return {
            "waiting": self.waiting,
            "requests": self.requests,
            "seconds": seconds,
            "decided": self.decided,
            "last_at": self.last_at,
        }


def _stages(hops: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Describe how long each role took from the hop before to its own, and all of them, in seconds."""
    took: dict[str, list[float]] = defaultdict(list)
    last, begun = ("", "", 0.0), 0.0
    for hop in hops:
        identity, status = hop.submission, hop.status
        moment = datetime.fromisoformat(hop.at).timestamp()
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
