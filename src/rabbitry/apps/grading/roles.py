"""The roles: the status each takes and gives, and its routing keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from rabbitry.apps.grading.comments import check_comments
from rabbitry.apps.grading.message import FEEDBACK, LONGEST_TEXT, MARK, OUT_OF, Assignment, Decision, number
from rabbitry.apps.grading.modules import Course
from rabbitry.exceptions import UsageError

EXCHANGE: Final = "assignment_exchange"
CORRECTION_KEY: Final = "correction"
CORRECTION_QUEUE: Final = "correction_queue"
RESULTS: Final = "results"
PROGRESS_EXCHANGE: Final = "assignment_progress"
"""The exchange for reports to the records. It is not the roles' exchange, where a broadcast would reach all roles."""
PROGRESS_KEY: Final = "progress"
PROGRESS_QUEUE: Final = "progress_queue"

RoleName: TypeAlias = Literal["demonstrator", "assistant", "coordinator"]
Action: TypeAlias = Literal["correct", "validate", "send-back", "confirm"]


@dataclass(frozen=True, slots=True)
class Role:
    """A role. key: its queue's binding key; a demonstrator's are its module's. then: the key it publishes with.

    actions: the decisions a person can make; without a person, the first is taken.
    """

    name: RoleName
    queue: str
    key: str
    takes: str
    gives: str
    then: str
    actions: tuple[Action, ...]


ROLES: Final[dict[RoleName, Role]] = {
    role.name: role
    for role in (
        Role("demonstrator", CORRECTION_QUEUE, CORRECTION_KEY, "submitted", "corrected", "validation", ("correct",)),
        Role(
            "assistant",
            "validation_queue",
            "validation",
            "corrected",
            "validated",
            "confirmation",
            ("validate", "send-back"),
        ),
        Role("coordinator", "confirmation_queue", "confirmation", "validated", "confirmed", RESULTS, ("confirm",)),
    )
}


def role_named(name: str) -> Role:
    """Return the role of this name.

    Raises:
        UsageError: No role has this name.
    """
    for role in ROLES.values():
        if role.name == name:
            return role
    raise UsageError(f"unknown role {name!r}: use {', '.join(ROLES)}")


def demonstrator_key(assignment: Assignment, course: Course) -> str:
    """Return the key of an assignment's demonstrators: its module's, or `correction` if it has no module."""
    module = course.modules.get(assignment.module)
    return CORRECTION_KEY if module is None else module.key


def key_of(assignment: Assignment, course: Course) -> str:
    """Return the key with which an assignment in its present status is published."""
    for role in ROLES.values():
        if role.gives == assignment.status:
            return role.then
    return demonstrator_key(assignment, course)


def decide(
    assignment: Assignment, role: Role, action: str, decision: Decision, *, by_scheme: bool = False
) -> Assignment:
    """Apply a role's decision. Raises UsageError if the role can't make it or it is incomplete.

    by_scheme: the mark is a marking scheme's; bonus points may take it beyond the maximum.
    """
    if action not in role.actions:
        raise UsageError(f"{action[:60]!r} is not a decision of the {role.name}: use {' or '.join(role.actions)}")
    given = (decision.mark, decision.out_of, decision.feedback)
    if role.name != "demonstrator" and any(value is not None for value in given):
        raise UsageError(f"the {role.name} gives no mark or feedback: only the demonstrator does")
    before = (number(assignment.get(MARK)), number(assignment.get(OUT_OF)))
    is_kept = action == "correct" and (decision.mark, decision.out_of) == before  # perhaps a scheme's mark
    _check_mark(decision.mark, decision.out_of, may_exceed=by_scheme or is_kept)
    if max(len(decision.feedback or ""), len(decision.remark or "")) > LONGEST_TEXT:
        raise UsageError(f"feedback and remark may have at most {LONGEST_TEXT} characters")
    if decision.comments:
        check_comments(decision.comments, assignment.readable_text(), is_archive=assignment.is_archive)
    if action == "send-back":
        if not (decision.remark or "").strip():
            raise UsageError("no remark: write why it is sent back")
        return assignment.moved("submitted", role.name, decision)
    if decision.remark is not None:
        raise UsageError("a remark is only for a submission that is sent back")
    if action == "correct":
        # Only the demonstrator's values count: not those a student wrote into the message, nor an earlier round's.
        assignment = assignment.without(MARK, OUT_OF, FEEDBACK)
    return assignment.moved(role.gives, role.name, decision)


def _check_mark(mark: float | None, out_of: float | None, *, may_exceed: bool) -> None:
    if mark is None:
        if out_of is not None:
            raise UsageError("a maximum mark without a mark: give both")
        return
    total = mark if out_of is None else out_of
    if not (math.isfinite(mark) and math.isfinite(total) and mark >= 0 and (may_exceed or mark <= total)):
        raise UsageError(f"a mark of {mark:g}{'' if out_of is None else f' out of {out_of:g}'} is not possible")
