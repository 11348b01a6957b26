"""A module's deadlines: when it opens, is due and closes, what being late costs, and which attempt counts.

All is judged from the times that the records have, by the clock of whoever took a submission first; a student's clock
is never read. Nothing here is stored: after an extension was granted or a rule was mended, the same records are judged
anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

from rabbitry.apps.grading.message import number
from rabbitry.exceptions import UsageError

KEYS: Final = ("opens", "due", "closes", "grace", "late", "extensions", "attempts", "pause", "counts", "accepted")
"""The keys of a module's table that concern its deadlines."""
_DAY: Final = 86_400.0
_LONGEST: Final = 366 * _DAY
_MOST_ATTEMPTS: Final = 10_000


class Timing(StrEnum):
    """How an attempt stands to the deadlines."""

    ON_TIME = "on time"
    LATE = "late"
    EARLY = "before it opened"
    CLOSED = "after it closed"
    MANY = "more attempts than allowed"
    SOON = "too soon after the attempt before"

    @property
    def can_count(self) -> bool:
        """Whether such an attempt can count."""
        return self in (Timing.ON_TIME, Timing.LATE)


class Counts(StrEnum):
    """Which of a student's attempts counts."""

    LATEST = "latest"
    BEST = "best"
    BEFORE_DUE = "last-before-due"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A submission, as far as deadlines concern it.

    submitted_at: as in the records. is_accepted: whether it can count in any case, as those in `Deadlines.accepted`.
    """

    id: str
    submitted_at: str
    mark: float | None = None
    out_of: float | None = None
    is_confirmed: bool = False
    is_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement of an attempt.

    timing: None in a module without deadlines. late_seconds: the seconds since it was due; 0 if it was on time.
    penalty: points off the mark. final_mark: the mark less the penalty; 0 if the attempt can't count; None without a
    mark. counts: whether it is the student's one that counts.
    """

    timing: Timing | None
    late_seconds: float
    penalty: float
    final_mark: float | None
    counts: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return {
            "timing": self.timing,
            "late_seconds": self.late_seconds,
            "penalty": self.penalty,
            "final_mark": self.final_mark,
            "counts": self.counts,
        }


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The rules of a module. Times are in UTC.

    grace: seconds after `due` and `closes` that are forgiven. fixed, per_day, cap: what being late costs, in percent of
    the maximum; per_day for each day begun. extensions: student → when it is due for them; it closes later by as much.
    attempts: how many may count; None for any number. pause: seconds between two attempts. accepted: the ids of
    submissions that can count although they came too early, after it closed, too soon, or beyond `attempts`.
    """

    opens: datetime | None = None
    due: datetime | None = None
    closes: datetime | None = None
    grace: float = 0.0
    fixed: float = 0.0
    per_day: float = 0.0
    cap: float = 100.0
    extensions: Mapping[str, datetime] = field(default_factory=dict)
    attempts: int | None = None
    pause: float = 0.0
    counts: Counts = Counts.LATEST
    accepted: frozenset[str] = frozenset()

    def due_for(self, student: str) -> tuple[datetime | None, datetime | None]:
        """Return when it is due and when it closes for a student."""
        due, closes = self.due or self.closes, self.closes
        extended = self.extensions.get(student)
        if extended is None or due is None:
            return due, closes
        return extended, None if closes is None else closes + max(extended - due, timedelta())

    def left(self, student: str, at: datetime) -> dict[str, Any]:
        """Return as JSON data when it opens, is due and closes for a student, each with the seconds from `at` on.

        Each also has `is_over`: whether it has passed, with the grace.
        """
        (due, closes), grace = self.due_for(student), timedelta(seconds=self.grace)
        return {
            name: None
            if moment is None
            else {
                "at": _written(moment),
                "seconds": (moment - at).total_seconds(),
                "is_over": at > moment + forgiven,
            }
            for name, moment, forgiven in (
                ("opens", self.opens, timedelta()),
                ("due", due, grace),
                ("closes", closes, grace),
            )
        }

    def refusal(self, student: str, before: Sequence[Attempt], at: datetime) -> Timing | None:
        """Return why an attempt at this time could not count; None if it could. before: the student's attempts."""
        attempt = Attempt("\uffff", _written(at))
        judged = self.judge(student, [*(one for one in before if _time(one) <= at), attempt])[attempt.id]
        return None if judged.timing is None or judged.timing.can_count else judged.timing

    def judge(self, student: str, attempts: Sequence[Attempt]) -> dict[str, Judged]:
        """Judge all attempts of a student in the module, by their ids."""
        ordered = sorted(attempts, key=lambda one: (one.submitted_at, one.id))
        found: dict[str, Judged] = {}
        allowed: list[Attempt] = []
        before: datetime | None = None
        used = 0
        due, closes = self.due_for(student)
        for one in ordered:
            at = _time(one)
            timing, late = self._timing(at, due, closes, before, used)
            is_accepted = not timing.can_count and (one.is_accepted or one.id in self.accepted)
            if is_accepted:  # beside the others: it takes no attempt from a later one
                timing = Timing.LATE if late else Timing.ON_TIME
            if timing.can_count:
                allowed.append(one)
                if not is_accepted:
                    before, used = at, used + 1
                penalty = self._penalty(one, late)
                final = None if one.mark is None else max(0.0, round(one.mark - penalty, 6))
            else:
                penalty, final = 0.0, None if one.mark is None else 0.0
            found[one.id] = Judged(timing, late, penalty, final, False)
        chosen = self._chosen(allowed, found)
        if chosen is not None:
            found[chosen] = replace(found[chosen], counts=True)
        return found

    def _timing(
        self, at: datetime, due: datetime | None, closes: datetime | None, before: datetime | None, used: int
    ) -> tuple[Timing, float]:
        """Return the timing of an attempt, and by how many seconds it is late.

        before: when the last attempt came that can count. used: how many there were.
        """
        grace = timedelta(seconds=self.grace)
        late = 0.0 if due is None or at <= due + grace else (at - due).total_seconds()
        if self.opens is not None and at < self.opens:
            return Timing.EARLY, 0.0
        if closes is not None and at > closes + grace:
            return Timing.CLOSED, late
        if self.attempts is not None and used >= self.attempts:
            return Timing.MANY, late
        if before is not None and (at - before).total_seconds() < self.pause:
            return Timing.SOON, late
        return (Timing.LATE if late else Timing.ON_TIME), late

    def _penalty(self, one: Attempt, late: float) -> float:
        if not late or one.mark is None:
            return 0.0
        days = -(-late // _DAY)
        percent = min(self.fixed + self.per_day * days, self.cap)
        of = one.mark if one.out_of is None else one.out_of
        return round(min(of * percent / 100, one.mark), 6)

    def _chosen(self, allowed: Sequence[Attempt], found: Mapping[str, Judged]) -> str | None:
        if not allowed:
            return None
        if self.counts is Counts.BEST:
            marked = [one for one in allowed if one.is_confirmed and found[one.id].final_mark is not None]
            if marked:
                return max(marked, key=lambda one: found[one.id].final_mark or 0.0).id  # of equal ones the first
        if self.counts is Counts.BEFORE_DUE:
            in_time = [one for one in allowed if found[one.id].timing is Timing.ON_TIME]
            return in_time[-1].id if in_time else allowed[0].id
        return allowed[-1].id


def _time(one: Attempt) -> datetime:
    return datetime.fromisoformat(one.submitted_at)


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def said(found: Mapping[str, Any]) -> str:
    """Describe a judgement for people; empty if there is nothing to say. found: as of `Judged.as_dict`."""
    timing = found.get("timing")
    if timing is None or timing == Timing.ON_TIME:
        return ""
    if timing != Timing.LATE:
        return f"does not count: {timing}"
    late, penalty = number(found.get("late_seconds")) or 0.0, number(found.get("penalty")) or 0.0
    text = f"{duration(late)} late"
    return text + (f", {penalty:g} off" if penalty else "")


def duration(seconds: float) -> str:
    """Format a duration for people, by its two largest units."""
    left = max(int(seconds), 1)
    parts = []
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


# -- configuration ---------------------------------------------------------------------------------------


def deadlines_of(table: Mapping[str, Any], where: str) -> Deadlines | None:
    """Read a module's deadlines from its table; None if it has none of their keys.

    Raises:
        UsageError: A value makes no sense. The text begins with `where`.
    """
    if not set(table) & set(KEYS):
        return None
    opens, due, closes = (_moment(table.get(name), name, where) for name in ("opens", "due", "closes"))
    named = [(name, at) for name, at in (("opens", opens), ("due", due), ("closes", closes)) if at is not None]
    for (first, before), (second, after) in pairwise(named):
        if after < before:
            raise UsageError(f"{where}: {second} is before {first}")
    extensions = table.get("extensions", {})
    if not isinstance(extensions, dict):
        raise UsageError(f"{where}: extensions must be a table of student = time")
    if extensions and due is None and closes is None:
        raise UsageError(f"{where}: extensions without due or closes: there is nothing to extend")
    accepted = table.get("accepted", [])
    if not isinstance(accepted, list) or not all(isinstance(one, str) and one for one in accepted):
        raise UsageError(f"{where}: accepted is {accepted!r}, which is no list of submissions' ids")
    counts = table.get("counts", Counts.LATEST)
    if counts not in [*Counts]:
        raise UsageError(f"{where}: counts is {counts!r}: use {', '.join(Counts)}")
    attempts = table.get("attempts")
    is_number = isinstance(attempts, int) and not isinstance(attempts, bool)
    if attempts is not None and not (is_number and 1 <= attempts <= _MOST_ATTEMPTS):
        raise UsageError(f"{where}: attempts is {attempts!r}, which is not a number from 1 to {_MOST_ATTEMPTS}")
    fixed, per_day, cap = _late(table.get("late", "none"), where)
    later = {str(student): _moment(at, f"extensions.{student}", where) for student, at in extensions.items()}
    return Deadlines(
        opens,
        due,
        closes,
        _amount(table.get("grace", 0), "grace", where, _LONGEST, "seconds"),
        fixed,
        per_day,
        cap,
        {student: at for student, at in later.items() if at is not None},
        attempts,
        _amount(table.get("pause", 0), "pause", where, _LONGEST, "seconds"),
        Counts(counts),
        frozenset(accepted),
    )


def _moment(value: object, name: str, where: str) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise UsageError(
            f"{where}: {name} is not a time with an offset from UTC: write it without quotes, "
            "as 2026-11-15T23:59:00+01:00"
        )
    if not 1970 < value.year < 3000:
        raise UsageError(f"{where}: {name} is {value}: use a year from 1971 to 2999")
    return value.astimezone(UTC)


def _late(value: object, where: str) -> tuple[float, float, float]:
    if value == "none":
        return 0.0, 0.0, 100.0
    if not isinstance(value, dict) or not value or set(value) - {"fixed", "per_day", "cap"}:
        raise UsageError(f'{where}: late must be "none" or a table with fixed, per_day and cap, in percent')
    fixed, per_day, cap = (
        _amount(value.get(name, default), f"late.{name}", where, 100, "percent")
        for name, default in (("fixed", 0), ("per_day", 0), ("cap", 100))
    )
    return fixed, per_day, cap


def _amount(value: object, name: str, where: str, most: float, unit: str) -> float:
    found = number(value)
    if found is None or not 0 <= found <= most:
        raise UsageError(f"{where}: {name} is {value!r}, which is not a number from 0 to {most:g} ({unit})")
    return found
