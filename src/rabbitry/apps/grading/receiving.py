"""Checks of the fields of a message that a role takes.

Nothing in a message proves who sent it, and every student may write every field. So the first role that takes a
submission says when that was and begins its History; marks, remarks and hops that came with it are dropped. And an
id belongs to what was handed in: the same id on another solution, student or module becomes another id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rabbitry._decode import MAX_DEPTH, is_deeper_than
from rabbitry.apps.grading.message import (
    ANSWER,
    FEEDBACK,
    HISTORY,
    ID,
    LONGEST_NAME,
    MARK,
    MODULE,
    OUT_OF,
    REMARKS,
    SOLUTION,
    STATUS,
    STUDENT,
    Assignment,
    identity,
    now,
)
from rabbitry.flow import Message
from rabbitry.flow.exceptions import Reject

_SEAL: Final = 16
"""Hexadecimal digits at the end of an id that stand for what was handed in."""
_LONGEST_STEM: Final = 47
"""Letters before them, of an id that another program gave; with a dot between, an id has up to 64."""
_STAFF: Final = (HISTORY, REMARKS, MARK, OUT_OF, FEEDBACK)
"""Fields that only roles write."""


def receive(fields: dict[str, Any], message: Message, *, first: bool) -> Assignment:
    """Take a message's body as an assignment, with an id that belongs to what was handed in.

    Args:
        fields: the body.
        message: its metadata; its id serves if the body has none.
        first: the role takes submissions, so that all but a submission that was sent back begins here.

    Raises:
        Reject: the body is no assignment. The text names the field.
    """
    if is_deeper_than(fields, MAX_DEPTH):
        raise Reject(f"the assignment is nested deeper than {MAX_DEPTH} levels")
    is_new = first and not was_sent_back(fields)
    kept = {name: value for name, value in fields.items() if name not in _STAFF} if is_new else fields
    assignment = Assignment.received(kept, message)
    assignment[ID] = sealed(assignment.id, assignment)
    if is_new:
        assignment[HISTORY] = [_submitted(fields)]
    return assignment


def was_sent_back(fields: Mapping[str, Any]) -> bool:
    """Return whether a submission's History says that an assistant sent it back.

    Its last hop is then an assistant's with the last remark; or, if another program is the assistant and writes no
    hops, the demonstrator's correction.
    """
    hops, remarks = fields.get(HISTORY), fields.get(REMARKS)
    if not (isinstance(hops, list) and hops and isinstance(remarks, list) and remarks):
        return False
    last = hops[-1]
    if not isinstance(last, dict):
        return False
    if (last.get("role"), last.get("status")) == ("assistant", "submitted"):
        return bool(last.get("remark")) and last.get("remark") == remarks[-1]
    return (last.get("role"), last.get("status")) == ("demonstrator", "corrected")


def taken_at(hops: list[dict[str, Any]]) -> object:
    """Return when the first role took a submission, as it says itself; None if the hops do not tell.

    They do while that role's correction is the only one: afterwards they came along a way on which anybody could
    have written them.
    """
    statuses = [hop.get("status") for hop in hops]
    is_told = statuses[:2] == ["submitted", "corrected"] and all(statuses.count(name) == 1 for name in statuses[:2])
    return hops[0].get("when") if is_told else None


def new_id(fields: Mapping[str, Any]) -> str:
    """Make an id for what is handed in: 32 hexadecimal digits."""
    stem = secrets.token_hex(_SEAL // 2)
    return stem + _seal(stem, fields)


def sealed(given: str, fields: Mapping[str, Any]) -> str:
    """Return an id that belongs to what was handed in: the given one if it does, else one that begins with it."""
    if given[-_SEAL:] == _seal(given[:-_SEAL], fields):
        return given
    stem = identity(given)
    if len(stem) > _LONGEST_STEM:
        stem = hashlib.sha256(stem.encode()).hexdigest()[:32]
    stem += "."
    return stem + _seal(stem, fields)


def _seal(stem: str, fields: Mapping[str, Any]) -> str:
    handed_in = [str(fields.get(STUDENT)), fields.get(MODULE) or "", fields.get(SOLUTION, fields.get(ANSWER))]
    return hashlib.sha256(stem.encode() + b"\0" + msgspec.json.encode(handed_in)).hexdigest()[:_SEAL]


def _submitted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Make the first hop: taken now, handed in by whom the student's own program names."""
    hops = fields.get(HISTORY)
    claimed = hops[0] if isinstance(hops, list) and hops and isinstance(hops[0], dict) else {}
    is_own = claimed.get("role") == "student"
    who, where = (claimed.get(name) if is_own else None for name in ("who", "where"))
    return {
        "role": "student",
        "status": fields.get(STATUS),
        "who": who[:LONGEST_NAME] if isinstance(who, str) else str(fields.get(STUDENT)),
        "where": where[:LONGEST_NAME] if isinstance(where, str) else "unknown",
        "when": now(),
    }
