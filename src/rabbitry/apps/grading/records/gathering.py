"""Statements gathered for reports that are recorded together: one for all of them costs little more than for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from rabbitry.apps.grading.files import Kept
from rabbitry.apps.grading.message import FEEDBACK, MARK, OUT_OF, Assignment
from rabbitry.apps.grading.receiving import fields_handed_in
from rabbitry.apps.grading.records import statements
from rabbitry.apps.grading.records.received import HANDED_IN, hop_row, submission_row, taken_by_first
from rabbitry.apps.grading.signatures import Finding


@dataclass(slots=True)
class Known:
    """What is recorded of a submission, or about to be. first_at: the time of its first hop, if that is recorded."""

    confirmed_by: str | None
    reopened_at: int
    step: int
    submitted_at: str
    sha256: str | None
    first_at: str | None


def known_of(row: Row[Any]) -> Known:
    """Return what a row of the statement KNOWN tells."""
    return Known(row.confirmed_by, row.reopened_at, row.step, row.submitted_at, row.sha256, row.first_at)


@dataclass(slots=True)
class Changes:
    """The rows and parameters of statements, which are executed together. new: submissions that were unknown."""

    hops: list[dict[str, Any]] = field(default_factory=list)
    new: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[dict[str, object]] = field(default_factory=list)
    newer: list[dict[str, object]] = field(default_factory=list)
    files: list[dict[str, object]] = field(default_factory=list)
    kept: list[dict[str, object]] = field(default_factory=list)
    handed_in: list[dict[str, object]] = field(default_factory=list)

    def add_hop(self, assignment: Assignment, finding: Finding, known: Known | None) -> Known:
        """Add the last hop of an assignment that is not confirmed. Return what is recorded of it then."""
        hops = assignment.history
        taken = taken_by_first(hops)
        if len(hops) > 1 and hops[-1].get("role") != "student":
            self.hops.append(hop_row(assignment.id, len(hops), hops[-1], finding))
            values = submission_row(assignment, taken)
        else:
            values = submission_row(assignment.without(MARK, OUT_OF, FEEDBACK), taken) | {"step": 1}
        if known is None:
            self.new.append(values)
            known = Known(None, 0, values["step"], taken, None, None)
        # Steps only grow, and times of submission only become earlier: what is not newer or earlier now never will be.
        if known.submitted_at > taken:
            self.set_earlier(values["id"], values["submitted_at"])
            known.submitted_at = taken
        if known.step < values["step"]:
            self._set_newer(values)
            known.step = values["step"]
        if hops and hops[0].get("role") == "student" and (known.first_at is None or known.first_at > taken):
            self.hops.append(hop_row(assignment.id, 1, hops[0]) | HANDED_IN | {"at": taken})
            known.first_at = taken
        return known

    def set_earlier(self, identity: str, taken: str) -> None:
        """Set an earlier time of submission."""
        self.earlier.append({"mine": identity, "taken": taken})

    def add_file(self, assignment: Assignment, kept: Kept, *, is_first: bool) -> None:
        """Add a file that was stored with a submission. is_first: whether none is recorded of it."""
        if kept.packed is not None:
            self.files.append({"sha256": kept.sha256, "packed": kept.packed})
        if not is_first:
            return
        self.kept.append({"mine": assignment.id, "to_sha256": kept.sha256, "to_size": kept.size})
        if (fields := fields_handed_in(assignment)) is not None:
            self.handed_in.append({"submission": assignment.id, "fields": fields})

    def _set_newer(self, values: Mapping[str, Any]) -> None:
        changing = {name: values[name] for name in statements.CHANGING}
        self.newer.append({"mine": values["id"]} | statements.to(changing))

    def write(self, connection: Connection) -> None:
        """Execute the statements."""
        insert = statements.inserts(connection.dialect.name)
        if self.hops:
            connection.execute(insert.hop, self.hops)
        if self.new and connection.execute(insert.submission, self.new).rowcount != len(self.new):
            for values in self.new:  # another coordinator has recorded one since the rows were read
                self.set_earlier(values["id"], values["submitted_at"])
                self._set_newer(values)
        for statement, rows in (
            (statements.EARLIER, self.earlier),
            # Another coordinator may have confirmed it since the row was read, and then it stays as it is.
            (statements.NEWER, self.newer),
            (insert.kept_file, self.files),
            (statements.KEPT, self.kept),
            (insert.handed_in, self.handed_in),
        ):
            if rows:
                connection.execute(statement, rows)
