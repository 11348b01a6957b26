"""A rubric for people: the criteria of a module with their points and stock comments, and the mark that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import msgspec

from rabbitry.apps.grading.message import LONGEST_NAME, Decision, number, points
from rabbitry.apps.grading.personal import Points
from rabbitry.exceptions import UsageError

_MOST: Final = 100
"""Criteria of a rubric, and stock comments of a criterion."""
_LONGEST_COMMENT: Final = 1_000
_MOST_POINTS: Final = 1_000_000


class Criterion(msgspec.Struct, frozen=True):
    """A criterion. points: the most that it gives. comments: texts to choose from."""

    name: str
    points: float
    comments: tuple[str, ...] = ()


class Score(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A person's judgement by one criterion. comments: those chosen, or others."""

    points: float
    comments: tuple[str, ...] = ()


def scored(rubric: Sequence[Criterion], scores: Mapping[str, Score], decision: Decision) -> Decision:
    """Return a decision with the mark, the maximum and the feedback of a judgement by all criteria.

    Args:
        rubric: The criteria.
        scores: The judgement by each of them.
        decision: The decision, of which the feedback follows that by the criteria.

    Raises:
        UsageError: There is no rubric, or a criterion is missing or unknown, or has more points than it gives.
    """
    if not rubric:
        raise UsageError("points by criteria, and the module has no rubric: give a mark instead")
    names = [criterion.name for criterion in rubric]
    if unknown := [name for name in scores if name not in names]:
        raise UsageError(f"unknown criterion {unknown[0][:LONGEST_NAME]!r}: use {', '.join(names) or 'none'}")
    lines = []
    for criterion in rubric:
        score = scores.get(criterion.name)
        if score is None:
            raise UsageError(f"no points for criterion {criterion.name!r}")
        if number(score.points) is None or not 0 <= score.points <= criterion.points:
            raise UsageError(f"criterion {criterion.name!r} gives 0 to {points(criterion.points)} points")
        lines.append(f"{criterion.name}: {points(score.points, criterion.points)}")
        lines += [f"    {comment.strip()}" for comment in score.comments if comment.strip()]
    if remark := (decision.feedback or "").strip():
        lines += ["", remark]
    total = sum((Decimal(repr(scores[name].points)) for name in names), Decimal())
    most = sum((Decimal(repr(criterion.points)) for criterion in rubric), Decimal())
    return replace(
        decision,
        mark=float(total),
        out_of=float(most),
        feedback="\n".join(lines),
        criteria=tuple(Points(one.name, scores[one.name].points, one.points) for one in rubric),
    )


def rubric_of(value: object, where: str) -> tuple[Criterion, ...]:
    """Read a module's rubric from its table.

    Raises:
        UsageError: It makes no sense. The text begins with `where`.
    """
    if not isinstance(value, list) or len(value) > _MOST or not all(isinstance(table, dict) for table in value):
        raise UsageError(f"{where}: rubric must be at most {_MOST} tables, [[…rubric]]")
    found = tuple(_criterion(table, f"{where}: criterion {place} of rubric") for place, table in enumerate(value, 1))
    names = [criterion.name for criterion in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two criteria of rubric are called {name!r}")
    return found


def _criterion(table: Mapping[str, Any], where: str) -> Criterion:
    if unknown := sorted(set(table) - {"name", "points", "comments"}):
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; use name, points and comments")
    name, comments, most = table.get("name"), table.get("comments", []), number(table.get("points"))
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(f"{where}: name is {name!r}: use 1 to {LONGEST_NAME} printable characters")
    if most is None or not 0 < most <= _MOST_POINTS:
        raise UsageError(f"{where}: points is {table.get('points')!r}: use a number above 0, up to {_MOST_POINTS}")
    is_texts = isinstance(comments, list) and all(isinstance(one, str) and one.strip() for one in comments)
    if not is_texts or len(comments) > _MOST or any(len(one) > _LONGEST_COMMENT for one in comments):
        raise UsageError(f"{where}: comments must be at most {_MOST} texts of up to {_LONGEST_COMMENT} characters")
    return Criterion(name, most, tuple(comments))
