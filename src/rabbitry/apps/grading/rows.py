"""Rows of the records that the page answers as they are. It needs no database to describe them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Release:
    """When the results of a module are released (until), as somebody set it: who, when (at) and why (remark).

    is_ahead: whether that time had not come, by the clock of the records.
    """

    id: int
    module: str
    until: str
    who: str
    at: str
    remark: str
    is_ahead: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Request:
    """A recorded request. answer: upheld or refused; None while it waits; role, who, remark: of the answer."""

    id: int
    submission: str
    student: str
    module: str
    mark: float | None
    out_of: float | None
    reason: str
    asked_at: str
    answer: str | None
    role: str | None
    who: str | None
    remark: str | None
    answered_at: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self)
