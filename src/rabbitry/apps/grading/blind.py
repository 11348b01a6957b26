"""Marking by several demonstrators who do not see each other's marks, and the rule that makes one mark of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final, Literal, TypeAlias, get_args

from rabbitry.apps.grading.comments import MOST as MOST_COMMENTS
from rabbitry.apps.grading.comments import MOST_TEXT
from rabbitry.apps.grading.message import LONGEST_NAME, LONGEST_TEXT, Decision, number, points
from rabbitry.apps.grading.personal import MOST, MOST_POINTS, PersonalMark
from rabbitry.exceptions import UsageError

Rule: TypeAlias = Literal["mean", "highest", "lowest"]
_MOST_PEOPLE: Final = MOST - 1
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

    @property
    def is_final(self) -> bool:
        """Whether a mark that was given can't be changed or taken back.

        With `within`, the next mark tells whether the others are near it: who could try several would find theirs.
        """
        return self.within is not None

    def check_size(self, decision: Decision) -> None:
        """Raise UsageError if a person's mark, feedback or comments would not fit into the hop with the others'."""
        if max(decision.mark or 0.0, decision.out_of or 0.0) >= MOST_POINTS:
            raise UsageError(f"with {self.people} demonstrators, marks and maxima are below {MOST_POINTS:g}")
        shares = self.people + 2  # one is left for a further person, and one for the text about the rule
        comments = decision.comments
        if len(decision.feedback or "") > LONGEST_TEXT // shares:
            raise UsageError(f"with {self.people} demonstrators, each feedback has at most {LONGEST_TEXT // shares} "
                             "characters")  # fmt: skip
        if len(comments) > MOST_COMMENTS // shares or sum(one.size for one in comments) > MOST_TEXT // shares:
            raise UsageError(
                f"with {self.people} demonstrators, each makes at most {MOST_COMMENTS // shares} comments on lines, "
                f"with {MOST_TEXT // shares} characters in all"
            )

    def is_apart(self, marks: Sequence[float]) -> bool:
        """Return whether all have marked, and their marks differ so much that one further person has to."""
        return self.within is not None and len(marks) == self.people and max(marks) - min(marks) > self.within

    def joint(self, given: Sequence[PersonalMark]) -> Decision:
        """Return the decision that follows from the marks of all demonstrators."""
        marks = [one.mark for one in given]
        if len(marks) > self.people:
            mark, how = median(marks), "median"
        else:
            mark, how = {"mean": fmean(marks), "highest": max(marks), "lowest": min(marks)}[self.rule], self.rule
        feedback = f"The mark is the {how} of {', '.join(points(one) for one in marks)}."
        who = ", ".join(one.who for one in given)[:LONGEST_NAME]
        return Decision(who, round(mark, 6), given[0].out_of, feedback, marks=tuple(given))


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
