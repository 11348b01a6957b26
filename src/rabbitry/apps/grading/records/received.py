"""The rows of a submission and its hops, from an assignment that was received over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from rabbitry.apps.grading.comments import as_sent, comments_of
from rabbitry.apps.grading.message import FEEDBACK, LONGEST_TEXT, MARK, MODULE, OUT_OF, Assignment, now, number
from rabbitry.apps.grading.personal import marks_of
from rabbitry.apps.grading.receiving import taken_at
from rabbitry.apps.grading.records.schema import text
from rabbitry.apps.grading.signatures import Finding

UNCHECKED: Final = Finding()
HANDED_IN: Final = {
    "status": "submitted",
    "mark": None,
    "out_of": None,
    "feedback": None,
    "remark": None,
    "comments": None,
    "marks": None,
}
"""Recorded as a student's hop, instead of what the student wrote."""


def submission_row(assignment: Assignment, submitted_at: str) -> dict[str, Any]:
    """Return the row of a submission."""
    return {
        "id": assignment.id,
        "student": text(assignment.student, 200),
        "module": text(assignment.get(MODULE), 200),
        "name": text(assignment.name, 1_000),
        "status": text(assignment.status, 200),
        "step": assignment.step,
        "mark": number(assignment.get(MARK)),
        "out_of": number(assignment.get(OUT_OF)),
        "feedback": _optional(assignment.get(FEEDBACK)),
        "submitted_at": submitted_at,
        "updated_at": now(),
    }


def taken_by_first(hops: list[dict[str, Any]]) -> str:
    """Return when the first role took a submission if the hops show it, else now; never a later time."""
    told = taken_at(hops)
    return now() if told is None else min(_time(told), now())


def hop_row(identity: str, step: int, hop: Mapping[str, Any], finding: Finding = UNCHECKED) -> dict[str, Any]:
    """Return the row of a hop. finding: what its signature is worth."""
    return {
        "submission": identity,
        "step": step,
        "role": text(hop.get("role"), 200),
        "status": text(hop.get("status"), 200),
        "who": text(hop.get("who"), 200),
        "place": text(hop.get("where"), 200),
        "at": _time(hop.get("when")),
        "mark": number(hop.get("mark")),
        "out_of": number(hop.get("outOf")),
        "feedback": _optional(hop.get("feedback")),
        "remark": _optional(hop.get("remark")),
        "signer": finding.signer,
        "doubt": _optional(finding.doubt),
        "comments": msgspec.json.encode(as_sent(told)).decode() if (told := comments_of(hop)) else None,
        "marks": msgspec.json.encode(given).decode() if (given := marks_of(hop)) else None,
    }


def _optional(value: object) -> str | None:
    return None if value is None else text(value, LONGEST_TEXT)


def _time(value: object) -> str:
    """Return a time received over the wire in our own format; now if it is invalid."""
    if isinstance(value, str) and len(value) < 64:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return now()
        aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        try:
            return aware.astimezone(UTC).isoformat(timespec="microseconds")
        except OverflowError:
            return now()
    return now()
