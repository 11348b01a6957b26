"""The roles: what each takes, gives and publishes with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from rabbitry.apps.grading.message import FEEDBACK, LONGEST_TEXT, MARK, OUT_OF, Assignment, Decision, number
from rabbitry.apps.grading.modules import Course
from rabbitry.exceptions import UsageError

EXCHANGE: Final = "assignment_exchange"
CORRECTION_KEY: Final = "correction"
CORRECTION_QUEUE: Final = "correction_queue"
RESULTS: Final = "results"
PROGRESS_EXCHANGE: Final = "assignment_progress"
"""The exchange for reports of hops to the records. It is separate from the roles', where a broadcast reaches all."""
PROGRESS_KEY: Final = "progress"
PROGRESS_QUEUE: Final = "progress_queue"

RoleName: TypeAlias = Literal["demonstrator", "assistant", "coordinator"]
Action: TypeAlias = Literal["correct", "validate", "send-back", "confirm"]


@dataclass(frozen=True, slots=True)
class Role:
    """A role. key: the one its queue is bound with; a demonstrator's are those of its module. then: publishes with.

    actions: what a person can decide; the first is what happens if it decides by itself.
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
    """Return a role.

    Raises:
        UsageError: No role has this name.
    """
    for role in ROLES.values():
        if role.name == name:
            return role
    raise UsageError(f"unknown role {name!r}: there are {', '.join(ROLES)}")


def demonstrator_key(assignment: Assignment, course: Course) -> str:
    """Return the key of the demonstrators who take an assignment: its module's, `correction` if it has none."""
    module = course.modules.get(assignment.module)
    return CORRECTION_KEY if module is None else module.key


def key_of(assignment: Assignment, course: Course) -> str:
    """Return the key that an assignment in its status is published with."""
    for role in ROLES.values():
        if role.gives == assignment.status:
            return role.then
    return demonstrator_key(assignment, course)


def decide(
    assignment: Assignment, role: Role, action: str, decision: Decision, *, by_scheme: bool = False
) -> Assignment:
    """Do what a role decided. Raises UsageError for what it can't decide, or not so.

    by_scheme: a marking scheme gave the mark, which its bonus points may take beyond the maximum.
    """
    if action not in role.actions:
        raise UsageError(f"{action[:60]!r} is nothing that the {role.name} decides: use {' or '.join(role.actions)}")
    given = (decision.mark, decision.out_of, decision.feedback)
    if role.name != "demonstrator" and any(value is not None for value in given):
        raise UsageError(f"the {role.name} gives no mark and no feedback; the demonstrator does")
    before = (number(assignment.get(MARK)), number(assignment.get(OUT_OF)))
    is_kept = action == "correct" and (decision.mark, decision.out_of) == before  # that of a scheme, perhaps
    _check_mark(decision.mark, decision.out_of, may_exceed=by_scheme or is_kept)
    if max(len(decision.feedback or ""), len(decision.remark or "")) > LONGEST_TEXT:
        raise UsageError(f"a feedback or a remark has up to {LONGEST_TEXT} letters")
    if action == "send-back":
        if not (decision.remark or "").strip():
            raise UsageError("say why it is sent back, in a remark")
        return assignment.moved("submitted", role.name, decision)
    if decision.remark is not None:
        raise UsageError("a remark goes with what is sent back")
    if action == "correct":
        # Only the demonstrator's count: not what a student wrote into the message, nor an earlier round's.
        assignment = assignment.without(MARK, OUT_OF, FEEDBACK)
    return assignment.moved(role.gives, role.name, decision)


def _check_mark(mark: float | None, out_of: float | None, *, may_exceed: bool) -> None:
    if mark is None:
        if out_of is not None:
            raise UsageError("what a mark is out of goes with a mark")
        return
    total = mark if out_of is None else out_of
    if not (math.isfinite(mark) and math.isfinite(total) and mark >= 0 and (may_exceed or mark <= total)):
        raise UsageError(f"a mark of {mark:g}{'' if out_of is None else f' out of {out_of:g}'} makes no sense")
