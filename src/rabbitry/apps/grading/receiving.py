"""Checks of the fields of a message that a role receives.

Nothing in a message proves its sender, and a student may write any field. Therefore the first role that takes a
submission records the time and begins its History; marks, remarks and hops that came with it are dropped. An id is
bound to what was submitted: the same id on another solution, student or module becomes another id.
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
    FINAL_MARK,
    HASH,
    HISTORY,
    ID,
    LATE,
    LONGEST_NAME,
    MARK,
    MODULE,
    OUT_OF,
    PENALTY,
    REMARKS,
    SOLUTION,
    STATUS,
    STUDENT,
    SUBMITTED_AT,
    TIMING,
    Assignment,
    as_sent,
    identity,
    now,
)
from rabbitry.flow import Message
from rabbitry.flow.exceptions import Reject

_SEAL: Final = 16
"""Hexadecimal digits at the end of an id that are a digest of what was submitted."""
_LONGEST_STEM: Final = 47
"""Characters kept before them from another program's id; with the dot between, an id has up to 64."""
_MOST_FIELDS: Final = 1_000_000
"""Bytes of the fields beside the file that are kept."""
_STAFF: Final = (
    HISTORY, REMARKS, MARK, OUT_OF, FEEDBACK, SUBMITTED_AT, TIMING, LATE, PENALTY, FINAL_MARK
)  # fmt: skip
"""Fields that only roles write."""


def receive(fields: dict[str, Any], message: Message, *, first: bool) -> Assignment:
    """Convert a message's body to an assignment whose id is bound to what was submitted.

    Args:
        fields: The body.
        message: Its metadata; its id is used if the body has none.
        first: Whether the role takes submissions: each begins its History here, unless it was sent back.

    Raises:
        Reject: The body is not an assignment. The text names the field.
    """
    if is_deeper_than(fields, MAX_DEPTH):
        raise Reject(f"the assignment is nested deeper than {MAX_DEPTH} levels")
    is_new = first and not was_sent_back(fields)
    kept = {name: value for name, value in fields.items() if name not in _STAFF} if is_new else fields
    assignment = Assignment.received(kept, message)
    assignment[ID] = sealed(assignment.id, assignment)
    if is_new:
        assignment[HISTORY] = [_submitted(fields)]
        data = assignment.file()
        if data is not None:
            assignment.history[0][HASH] = hashlib.sha256(data).hexdigest()
    return assignment


def was_sent_back(fields: Mapping[str, Any]) -> bool:
    """Return whether a submission's History says that an assistant or a coordinator sent it back.

    The last hop is then an assistant's with the last remark, or a coordinator's, who has it marked again; or it is the
    demonstrator's correction, if the assistant is another program that writes no hops.
    """
    hops, remarks = fields.get(HISTORY), fields.get(REMARKS)
    if not (isinstance(hops, list) and hops and isinstance(remarks, list) and remarks):
        return False
    last = hops[-1]
    if not isinstance(last, dict):
        return False
    if last.get("role") in ("assistant", "coordinator") and last.get("status") == "submitted":
        return bool(last.get("remark")) and last.get("remark") == remarks[-1]
    return (last.get("role"), last.get("status")) == ("demonstrator", "corrected")


def taken_at(hops: list[dict[str, Any]]) -> object:
    """Return when the first role took a submission, as that role recorded it; None if unknown.

    It is known while that role's correction is the only one. Later hops came by a route on which anyone could have
    written them.
    """
    statuses = [hop.get("status") for hop in hops]
    is_told = statuses[:2] == ["submitted", "corrected"] and all(statuses.count(name) == 1 for name in statuses[:2])
    return hops[0].get("when") if is_told else None


def new_id(fields: Mapping[str, Any]) -> str:
    """Return an id for what is submitted: 32 hexadecimal digits."""
    stem = secrets.token_hex(_SEAL // 2)
    return stem + _seal(stem, fields)


def sealed(given: str, fields: Mapping[str, Any]) -> str:
    """Return an id bound to what was submitted: the given one if it is, else one that begins with it."""
    if given[-_SEAL:] == _seal(given[:-_SEAL], fields):
        return given
    stem = identity(given)
    if len(stem) > _LONGEST_STEM:
        stem = hashlib.sha256(stem.encode()).hexdigest()[:32]
    stem += "."
    return stem + _seal(stem, fields)


def fields_handed_in(assignment: Assignment) -> bytes | None:
    """Return what was handed in beside the file, to make the message again with `again`; None if it is too large."""
    fields = {name: value for name, value in assignment.items() if name not in (*_STAFF, STATUS, ID)}
    key = SOLUTION if SOLUTION in fields else ANSWER
    data = assignment.file()
    if key in fields and data is not None and fields[key] == as_sent(data, is_binary=assignment.is_binary):
        del fields[key]
    else:
        key = ""
    packed = msgspec.json.encode({"file": key, "fields": fields})
    return packed if len(packed) <= _MOST_FIELDS else None


def again(fields: bytes, data: bytes) -> Assignment:
    """Make an assignment as it was handed in, without an id, status or History.

    Args:
        fields: What `fields_handed_in` returned.
        data: The file.
    """
    packed = msgspec.json.decode(fields)
    assignment = Assignment(packed["fields"])
    if packed["file"]:
        assignment[packed["file"]] = as_sent(data, is_binary=assignment.is_binary)
    return assignment


def is_sealed(assignment: Assignment) -> bool:
    """Return whether an assignment's id is bound to its student, module and solution."""
    return assignment.id[-_SEAL:] == _seal(assignment.id[:-_SEAL], assignment)


def _seal(stem: str, fields: Mapping[str, Any]) -> str:
    handed_in = [str(fields.get(STUDENT)), fields.get(MODULE) or "", fields.get(SOLUTION, fields.get(ANSWER))]
    return hashlib.sha256(stem.encode() + b"\0" + msgspec.json.encode(handed_in)).hexdigest()[:_SEAL]


def _submitted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first hop: taken now, submitted by the user that the student's program names."""
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
