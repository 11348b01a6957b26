"""The marks of several demonstrators who did not see each other's, as the hop of their joint decision has them.

A hop has them as `marks`, a list of objects with `who`, `mark`, and `outOf`, `feedback`, `criteria` and `comments` if
there are any. Therefore its signature covers them, and programs that know nothing of them pass them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rabbitry.apps.grading.comments import COMMENTS, LineComment, comments_of
from rabbitry.apps.grading.comments import as_sent as comments_as_sent

MARKS: Final = "marks"
"""The key of a hop."""
MOST: Final = 11
"""Marks of one hop: of as many people as a course may ask for, and one further person."""
_MOST_CRITERIA: Final = 100
_LONGEST_NAME: Final = 200
_LONGEST_TEXT: Final = 100_000
MOST_POINTS: Final = 1e15
"""Points from which on a number is no mark, nor points by a criterion."""


@dataclass(frozen=True, slots=True)
class Points:
    """The points that a person gave by a criterion of the module's rubric. of: the most that it gives."""

    name: str
    points: float
    of: float


@dataclass(frozen=True, slots=True)
class PersonalMark:
    """The mark of one person. out_of: the maximum. criteria: by the module's rubric. comments: on lines of the file."""

    who: str
    mark: float
    out_of: float | None = None
    feedback: str | None = None
    criteria: tuple[Points, ...] = ()
    comments: tuple[LineComment, ...] = ()

    def as_sent(self) -> dict[str, Any]:
        """Return it as an object in a hop's `marks`."""
        told = {
            "who": self.who,
            "mark": self.mark,
            "outOf": self.out_of,
            "feedback": self.feedback,
            "criteria": points_as_sent(self.criteria) or None,
            COMMENTS: comments_as_sent(self.comments) or None,
        }
        return {name: value for name, value in told.items() if value is not None}


def marks_of(hop: Mapping[str, Any]) -> tuple[PersonalMark, ...]:
    """Return the marks of a hop received over the wire, without those that are invalid or too many."""
    given = hop.get(MARKS)
    found = [_mark_of(one) for one in given[:MOST] if isinstance(one, dict)] if isinstance(given, list) else []
    return tuple(one for one in found if one is not None)


def last_marks(hops: Sequence[Mapping[str, Any]]) -> tuple[PersonalMark, ...]:
    """Return the marks of the latest correction in a History received over the wire; none if one person gave it."""
    return next((marks_of(hop) for hop in reversed(hops) if hop.get("status") == "corrected"), ())


def _mark_of(told: Mapping[str, Any]) -> PersonalMark | None:
    mark, feedback = _number(told.get("mark")), told.get("feedback")
    if mark is None:
        return None
    text = _valid(feedback, _LONGEST_TEXT) if isinstance(feedback, str) else None
    out_of, who = _number(told.get("outOf")), _valid(str(told.get("who") or ""), _LONGEST_NAME)
    return PersonalMark(who, mark, out_of, text, points_of(told.get("criteria")), comments_of(told))


def points_as_sent(criteria: tuple[Points, ...]) -> list[dict[str, Any]]:
    """Return points by criteria as JSON data."""
    return [asdict(one) for one in criteria]


def points_of(given: object) -> tuple[Points, ...]:
    """Return the points by criteria in JSON data received over the wire, without what is invalid."""
    found = []
    for one in given[:_MOST_CRITERIA] if isinstance(given, list) else ():
        name, points, of = [one.get(key) for key in ("name", "points", "of")] if isinstance(one, dict) else [None] * 3
        if isinstance(name, str) and (got := _number(points)) is not None and (most := _number(of)) is not None:
            found.append(Points(_valid(name, _LONGEST_NAME), got, most))
    return tuple(found)


def _valid(text: str, limit: int) -> str:
    """Return a text as valid UTF-8."""
    return text[:limit].encode(errors="replace").decode()


def _number(value: object) -> float | None:
    """Return a number received over the wire; None if it is none, or too large to be one of points."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < MOST_POINTS else None
