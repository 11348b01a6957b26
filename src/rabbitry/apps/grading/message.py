"""An assignment as it travels: the contract's four fields, Rabbitry's own beside them, and any others, all kept."""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import math
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Self

from rabbitry.flow import Message
from rabbitry.flow.exceptions import Reject
from rabbitry.flow.message import node_name

ID: Final = "SubmissionID"
STUDENT: Final = "StudentID"
SOLUTION: Final = "Solution"
ANSWER: Final = "Answer"
MODULE: Final = "Module"
STATUS: Final = "status"
ENCODING: Final = "SolutionEncoding"
NAME: Final = "SolutionName"
HISTORY: Final = "History"
REMARKS: Final = "Remarks"
MARK: Final = "Mark"
OUT_OF: Final = "OutOf"
FEEDBACK: Final = "Feedback"

LONGEST_NAME: Final = 200
"""Letters of a module's or student's name that come over the wire."""
LONGEST_TEXT: Final = 100_000
"""Letters of a feedback or a remark; each hop carries all of them on."""
MOST_HOPS: Final = 1_000
"""Entries of a History; an assignment that was sent back that often goes round in circles."""
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f]")
"""Control characters that no text has; JSON needs six bytes for each, and brokers bound the size of a message."""
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Decision:
    """A role's decision. mark out of out_of; None if it gives none. remark: why it was sent back."""

    who: str
    mark: float | None = None
    out_of: float | None = None
    feedback: str | None = None
    remark: str | None = None

    def __post_init__(self) -> None:
        """Take what a command line holds that is no UTF-8, as text that can be sent."""
        for name in ("who", "feedback", "remark"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, sendable(value))


class Assignment(dict[str, Any]):
    """The JSON object of an assignment; what is in it came over the wire, so it is looked at before use."""

    @classmethod
    def received(cls, fields: dict[str, Any], message: Message) -> Self:
        """Take a message's body, which gets an id if it has none. Raises Reject, naming the field.

        The id is that of the first message, and stands in the body, since other programs keep a body's fields, but
        not a message's properties.
        """
        assignment = cls(fields)
        assignment._check()
        given = fields.get(ID) or message.id
        assignment[ID] = identity(given) if isinstance(given, str) and given else uuid.uuid4().hex
        return assignment

    def __str__(self) -> str:
        """Return whose it is, how it stands and its mark, for a line of the log."""
        module = f", {self.module}" if self.module else ""
        given, total = number(self.get(MARK)), number(self.get(OUT_OF))
        mark = "" if given is None else f", mark {points(given, total)}"
        return f"student {self.student}{module}: {self.status}{mark} ({self.id})"

    @property
    def id(self) -> str:
        """The submission's id."""
        return str(self.get(ID, ""))

    @property
    def student(self) -> str:
        """The student's number, as text."""
        return str(self.get(STUDENT, ""))

    @property
    def module(self) -> str:
        """The module; empty if it says none."""
        return self.get(MODULE) or ""

    @property
    def status(self) -> str:
        """The status; empty if it says none."""
        status = self.get(STATUS)
        return status if isinstance(status, str) else ""

    @property
    def name(self) -> str:
        """The name of the file; empty if it says nothing."""
        name = self.get(NAME)
        return name if isinstance(name, str) else ""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The hops so far, oldest first."""
        return self.get(HISTORY) or []

    @property
    def remarks(self) -> list[Any]:
        """Why it was sent back, oldest first."""
        return self.get(REMARKS) or []

    @property
    def step(self) -> int:
        """The number of hops: the same hop done twice, after a crash, has the same step."""
        return len(self.history)

    def solution(self) -> bytes:
        """Return the file, or the answer.

        Raises:
            Reject: The content can't be decoded.
        """
        value = self[SOLUTION] if SOLUTION in self else self.get(ANSWER, "")
        text = value if isinstance(value, str) else str(value)
        if self.get(ENCODING) != "base64":
            return text.encode()
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Reject(f"{SOLUTION} is no base64, though {ENCODING} says so: {error}") from error

    @property
    def is_binary(self) -> bool:
        """Whether the solution came as bytes that are no text."""
        return self.get(ENCODING) == "base64"

    def solution_text(self) -> str:
        """Return the solution for people to read; what can't be decoded stays as it came."""
        try:
            return self.solution().decode(errors="replace")
        except Reject:
            return str(self.get(SOLUTION))

    def without(self, *names: str) -> Self:
        """Return the assignment without these fields."""
        return type(self)({name: value for name, value in self.items() if name not in names})

    def moved(self, status: str, role: str, decision: Decision) -> Self:
        """Return the assignment in its next status, with the hop appended to its History; nothing else is touched."""
        entry: dict[str, Any] = {
            "role": role,
            "status": status,
            "who": decision.who,
            "where": node_name(),
            "when": now(),
        }
        moved = type(self)(self)
        for field, key, value in (
            (MARK, "mark", decision.mark),
            (OUT_OF, "outOf", decision.out_of),
            (FEEDBACK, "feedback", decision.feedback),
        ):
            if value is not None:
                moved[field] = entry[key] = value
        if decision.remark is not None:
            entry["remark"] = decision.remark
            moved[REMARKS] = [*self.remarks, decision.remark]
        moved[STATUS] = status
        moved[HISTORY] = [*self.history, entry]
        return moved

    def _check(self) -> None:
        student, module = self.get(STUDENT), self.get(MODULE)
        if isinstance(student, bool) or not isinstance(student, int | str) or not str(student).strip():
            raise Reject(f"no {STUDENT}: the assignment says {STUDENT}: {_short(student)}")
        if module is not None and not isinstance(module, str):
            raise Reject(f"{MODULE} is {_short(module)}, which is no name")
        if len(str(student)) > LONGEST_NAME or len(module or "") > LONGEST_NAME:
            raise Reject(f"{STUDENT} and {MODULE} may have {LONGEST_NAME} letters")
        hops = self.get(HISTORY) or []
        if not isinstance(hops, list) or not all(isinstance(hop, dict) for hop in hops):
            raise Reject(f"{HISTORY} is no list of objects")
        if len(hops) >= MOST_HOPS:
            raise Reject(f"{len(hops)} hops: it goes round in circles")
        if not isinstance(self.get(REMARKS) or [], list):
            raise Reject(f"{REMARKS} is no list")


class Progress(dict[str, Any]):
    """What the records are told of a hop: the assignment without what was handed in."""

    @classmethod
    def of(cls, assignment: Assignment) -> Self:
        """Make it of an assignment."""
        kept = (ID, STUDENT, MODULE, STATUS, NAME, MARK, OUT_OF, FEEDBACK, HISTORY)
        return cls({name: assignment[name] for name in kept if name in assignment})


def submission(
    student: int | str, module: str, solution: bytes, name: str, identity_: str, *, who: str | None = None
) -> Assignment:
    """Make the assignment that a student hands in. What is no UTF-8 text goes in as base64."""
    fields: dict[str, Any] = {STUDENT: student}
    try:
        fields[SOLUTION] = solution.decode()
    except UnicodeDecodeError:
        is_text = False
    else:
        is_text = _NO_TEXT.search(solution) is None
    if not is_text:
        fields[SOLUTION] = base64.b64encode(solution).decode()
        fields[ENCODING] = "base64"
    fields |= {MODULE: module, STATUS: "submitted", NAME: sendable(name), ID: identity_}
    return Assignment(fields).moved("submitted", "student", Decision(who or user_name()))


def identity(text: str) -> str:
    """Return an id that can be shown and typed: the text itself if possible, else a digest of it."""
    return text if _GOOD_ID.fullmatch(text) else hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def sendable(text: str) -> str:
    """Return text in valid UTF-8: file names and command lines may hold other bytes, each of which becomes a `?`."""
    return text.encode(errors="replace").decode()


def now() -> str:
    """Return the time in UTC, in a form that sorts."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def number(value: object) -> float | None:
    """Return a number from the wire if it is a finite one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def points(given: float, total: float | None = None) -> str:
    """Write a mark, and what it is out of, with up to two decimals."""
    text = f"{given:.2f}".rstrip("0").rstrip(".") if abs(given) < 1e15 else f"{given:g}"
    return text if total is None else f"{text} of {points(total)}"


def file_name(text: str, otherwise: str) -> str:
    """Return a name under which a file that was handed in can be kept: no folder, nothing hidden or unprintable."""
    name = text.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter if letter.isprintable() else "_" for letter in sendable(name)).strip().lstrip(".-~")
    while len(name.encode()) > 200:
        stem, dot, end = name.rpartition(".")
        name = f"{stem[:-1]}{dot}{end}" if stem else name[:-1]
    return name or otherwise


@cache
def user_name() -> str:
    """Return the name of the user who runs this program."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
