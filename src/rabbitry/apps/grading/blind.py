"""Marking by several demonstrators who do not see each other's marks, and the rule that makes one mark of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final, Literal, TypeAlias, get_args

from rabbitry.apps.grading.comments import MOST, MOST_TEXT, LineComment
from rabbitry.apps.grading.message import LONGEST_NAME, LONGEST_TEXT, Decision, number, points
from rabbitry.exceptions import UsageError

Rule: TypeAlias = Literal["mean", "highest", "lowest"]
BETWEEN: Final = ", "
"""Between the names of those who made a joint decision, in its hop."""
_MOST_PEOPLE: Final = 10
_KEYS: Final = ("people", "rule", "within")


@dataclass(frozen=True, slots=True)
class Blind:
    """How demonstrators mark a module's submissions without seeing each other's marks.

    people: how many mark each submission. rule: the mark that counts. within: the points by which their marks may
    differ; if they differ by more, one further person marks, and the median counts. None for any difference.
    """

    people: int
    rule: Rule = "mean"
    within: float | None = None

    def missing(self, marks: Sequence[float]) -> int:
        """Return how many people have still to mark. marks: those given so far."""
        return int(self.is_apart(marks)) if len(marks) >= self.people else self.people - len(marks)

    def is_apart(self, marks: Sequence[float]) -> bool:
        """Return whether all have marked, and their marks differ so much that one further person has to."""
        return self.within is not None and len(marks) == self.people and max(marks) - min(marks) > self.within

    def joint(self, judgements: Sequence[Decision]) -> Decision:
        """Return the decision that follows from those of all demonstrators, with their feedback and comments."""
        marks = [one.mark for one in judgements if one.mark is not None]
        if len(marks) > self.people:
            mark, how = median(marks), "median"
        else:
            mark, how = {"mean": fmean(marks), "highest": max(marks), "lowest": min(marks)}[self.rule], self.rule
        told = f"The mark is the {how} of {', '.join(points(one) for one in marks)}."
        feedback = "\n\n".join([told, *(one.feedback for one in judgements if one.feedback)])
        # The statistics tell the people apart again, and a name that is typed may be "Doe, Jane".
        who = BETWEEN.join(one.who.replace(BETWEEN, " ") for one in judgements)[:LONGEST_NAME]
        comments = _bounded([comment for one in judgements for comment in one.comments])
        return Decision(who, round(mark, 6), judgements[0].out_of, feedback[:LONGEST_TEXT], comments=comments)


def _bounded(comments: Sequence[LineComment]) -> tuple[LineComment, ...]:
    """Return as many comments as a hop may have."""
    found, room = [], MOST_TEXT
    for one in comments[:MOST]:
        room -= one.size
        if room < 0:
            break
        found.append(one)
    return tuple(found)


def blind_of(value: object, where: str) -> Blind | None:
    """Read how a module is marked by several from its table; None if it is not.

    Raises:
        UsageError: It makes no sense. The text begins with `where`.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) - set(_KEYS):
        raise UsageError(f"{where}: blind must be a table with people, and with rule and within if wanted")
    people, rule = value.get("people"), value.get("rule", "mean")
    if isinstance(people, bool) or not isinstance(people, int) or not 2 <= people <= _MOST_PEOPLE:
        raise UsageError(f"{where}: blind.people is {people!r}, which is not a number from 2 to {_MOST_PEOPLE}")
    if rule not in get_args(Rule):
        raise UsageError(f"{where}: blind.rule is {rule!r}: use {', '.join(get_args(Rule))}")
    return Blind(people, rule, _within(value.get("within"), where))


def _within(value: Any, where: str) -> float | None:
    found = None if value is None else number(value)
    if value is not None and (found is None or found < 0):
        raise UsageError(f"{where}: blind.within is {value!r}, which is not a number of points")
    return found
