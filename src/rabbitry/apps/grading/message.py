"""An assignment as it is sent: the contract's four fields, Rabbitry's own and any others, all of which are kept."""

from __future__ import annotations

import base64
import binascii
import codecs
import getpass
import hashlib
import math
import re
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Self

from rabbitry.apps.grading.comments import COMMENTS, LineComment
from rabbitry.apps.grading.comments import as_sent as comments_as_sent
from rabbitry.apps.grading.personal import MARKS, PersonalMark, Points
from rabbitry.exceptions import UsageError
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
SUBMITTED_AT: Final = "SubmittedAt"
TIMING: Final = "Timing"
LATE: Final = "LateSeconds"
PENALTY: Final = "Penalty"
FINAL_MARK: Final = "FinalMark"
COVERED: Final = (
    ID, STUDENT, MODULE, STATUS, NAME, MARK, OUT_OF, FEEDBACK, REMARKS, SUBMITTED_AT, TIMING, LATE, PENALTY, FINAL_MARK,
)  # fmt: skip
"""The fields that a role's signature covers, beside the History. The file is covered by its hash in the hop."""
HASH: Final = "sha256"
"""The key in the first hop of a History for the SHA-256 of the file as it was handed in."""

DECLINED: Final = "declined"
"""The status of a submission that is too large, or one too many: no role handles it further."""
BY_ITSELF: Final = "automatic"
"""Recorded as the decider if no person decided."""
LONGEST_NAME: Final = 200
"""Characters of a module's or student's name received over the wire."""
LONGEST_TEXT: Final = 100_000
"""Characters of a feedback or a remark; each hop carries all of them on."""
LONGEST_REASON: Final = 10_000
"""Characters of the reason of a request for another look."""
MOST_HOPS: Final = 1_000
"""Entries of a History; an assignment that is sent back more often is in a loop."""
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f]")
"""Control characters that ordinary text lacks; JSON needs six bytes for each, and brokers bound a message's size."""
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Decision:
    """A role's decision.

    mark, out_of: None if it gives no mark. remark: why it was sent back. comments: on lines. criteria: the points of
    which the mark is the sum, by the module's rubric. marks: those of several people, whose joint decision it is.
    """

    who: str
    mark: float | None = None
    out_of: float | None = None
    feedback: str | None = None
    remark: str | None = None
    comments: tuple[LineComment, ...] = ()
    criteria: tuple[Points, ...] = ()
    marks: tuple[PersonalMark, ...] = ()

    def __post_init__(self) -> None:
        """Replace the bytes of a command line that are not UTF-8, so that the text can be sent."""
        for name in ("who", "feedback", "remark"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, sendable(value))
        comments = tuple(
            replace(one, text=sendable(one.text), file=None if one.file is None else sendable(one.file))
            for one in self.comments
        )
        object.__setattr__(self, "comments", comments)

    @property
    def whole_feedback(self) -> str | None:
        """The feedback, followed by that of each of several people; None if there is none."""
        return "\n\n".join(filter(None, (self.feedback, *(one.feedback for one in self.marks)))) or self.feedback


class Assignment(dict[str, Any]):
    """The JSON object of an assignment. It came over the wire, so each field is checked before use."""

    @classmethod
    def received(cls, fields: dict[str, Any], message: Message) -> Self:
        """Convert a message's body, which gets an id if it has none. Raises Reject, naming the field.

        The id is that of the first message. It is stored in the body because other programs keep a body's fields but
        not a message's properties.
        """
        assignment = cls(fields)
        assignment._check()
        given = fields.get(ID) or message.id
        assignment[ID] = identity(given) if isinstance(given, str) and given else uuid.uuid4().hex
        return assignment

    def __str__(self) -> str:
        """Return its student, status and mark, for a log line."""
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
        """The module; empty if there is none."""
        return self.get(MODULE) or ""

    @property
    def status(self) -> str:
        """The status; empty if there is none."""
        status = self.get(STATUS)
        return status if isinstance(status, str) else ""

    @property
    def name(self) -> str:
        """The name of the file; empty if there is none."""
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
        """The number of hops: a hop that is repeated after a crash has the same step."""
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
        """Whether the solution is not text."""
        return self.get(ENCODING) == "base64"

    @property
    def is_archive(self) -> bool:
        """Whether the file is an archive, whose files people see and comment on."""
        from rabbitry.apps.grading.marking import is_archive  # late: a student's program needs no sandbox

        data = self.file() if self.is_binary else None
        return data is not None and readable(data) is None and is_archive(self.name, data)

    def solution_text(self) -> str:
        """Return the solution as readable text; a solution that can't be decoded is returned as received."""
        try:
            return self.solution().decode(errors="replace")
        except Reject:
            return str(self.get(SOLUTION))

    def readable_text(self) -> str | None:
        """Return the solution as text; None if it is not text."""
        if not self.is_binary:
            return self.solution_text()
        data = self.file()
        return None if data is None else readable(data)

    def file(self) -> bytes | None:
        """Return the file, or the answer; None if it can't be decoded."""
        try:
            return self.solution()
        except Reject:
            return None

    def without(self, *names: str) -> Self:
        """Return the assignment without these fields."""
        return type(self)({name: value for name, value in self.items() if name not in names})

    def moved(self, status: str, role: str, decision: Decision) -> Self:
        """Return the assignment in its next status, with the hop appended to its History; all else is unchanged."""
        entry: dict[str, Any] = {
            "role": role,
            "status": status,
            "who": decision.who,
            "where": node_name(),
            "when": now(),
        }
        moved = type(self)(self)
        for field, key, value, told in (
            (MARK, "mark", decision.mark, decision.mark),
            (OUT_OF, "outOf", decision.out_of, decision.out_of),
            (FEEDBACK, "feedback", decision.feedback, decision.whole_feedback),
        ):
            if value is not None:
                entry[key], moved[field] = value, told
        if decision.remark is not None:
            entry["remark"] = decision.remark
            moved[REMARKS] = [*self.remarks, decision.remark]
        if decision.comments:
            entry[COMMENTS] = comments_as_sent(decision.comments)
        if decision.marks:
            entry[MARKS] = [one.as_sent() for one in decision.marks]
        moved[STATUS] = status
        moved[HISTORY] = [*self.history, entry]
        return moved

    def _check(self) -> None:
        student, module = self.get(STUDENT), self.get(MODULE)
        if isinstance(student, bool) or not isinstance(student, int | str) or not str(student).strip():
            raise Reject(f"{STUDENT} is {_short(student)}, which is not a student's number")
        if module is not None and not isinstance(module, str):
            raise Reject(f"{MODULE} is {_short(module)}, which is not a name")
        if len(str(student)) > LONGEST_NAME or len(module or "") > LONGEST_NAME:
            raise Reject(f"{STUDENT} and {MODULE} may have at most {LONGEST_NAME} characters")
        hops = self.get(HISTORY) or []
        if not isinstance(hops, list) or not all(isinstance(hop, dict) for hop in hops):
            raise Reject(f"{HISTORY} is not a list of objects")
        if len(hops) >= MOST_HOPS:
            raise Reject(f"{len(hops)} hops: the assignment is in a loop")
        if not isinstance(self.get(REMARKS) or [], list):
            raise Reject(f"{REMARKS} is not a list")


class Progress(Assignment):
    """A report of a hop to the records: the assignment without the solution; all of it if this role took it first."""

    @classmethod
    def of(cls, assignment: Assignment, *, whole: bool = False) -> Self:
        """Make the report of an assignment. whole: with the solution and with the fields of other programs."""
        if whole:
            return cls(assignment)
        return cls({name: assignment[name] for name in (*COVERED, HISTORY) if name in assignment})


def submission(
    student: int | str, module: str, solution: bytes, name: str, identity_: str, *, who: str | None = None
) -> Assignment:
    """Make the assignment that a student submits. A solution that is not UTF-8 text is encoded as base64."""
    fields: dict[str, Any] = {STUDENT: student}
    if is_text(solution):
        fields[SOLUTION] = solution.decode()
    else:
        fields[SOLUTION] = base64.b64encode(solution).decode()
        fields[ENCODING] = "base64"
    fields |= {MODULE: module, STATUS: "submitted", NAME: sendable(name), ID: identity_}
    made = Assignment(fields).moved("submitted", "student", Decision(who or user_name()))
    made.history[0][HASH] = hashlib.sha256(solution).hexdigest()
    return made


def is_text(data: bytes) -> bool:
    """Return whether a file is UTF-8 text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return _NO_TEXT.search(data) is None


def readable(data: bytes) -> str | None:
    """Return a file as text for people; None if it is not text.

    A file that is not UTF-8 is read as UTF-16 if it begins with a byte order mark, else as Windows-1252, in which older
    editors on Windows save. Its lines stay the same.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
        return None if _NO_TEXT.search(text.encode()) else text
    if _NO_TEXT.search(data):
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def as_sent(data: bytes, *, is_binary: bool) -> str | None:
    """Return a file as the value of `Solution`; None if it is not text and should be."""
    if is_binary:
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def identity(text: str) -> str:
    """Return an id that can be shown and typed: the text itself if possible, else a digest of it."""
    return text if _GOOD_ID.fullmatch(text) else hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def check_reason(text: str) -> None:
    """Raise UsageError if a text can't be the reason of a request for another look."""
    if not text.strip() or len(text) > LONGEST_REASON:
        raise UsageError(f"the reason of a request must have 1 to {LONGEST_REASON} characters")


def sendable(text: str) -> str:
    """Return the text as valid UTF-8: each invalid byte of a file name or command line becomes a `?`."""
    return text.encode(errors="replace").decode()


def now() -> str:
    """Return the time in UTC, in a form that sorts."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def time_of(given: str) -> str:
    """Return a time in the form of `now`.

    Raises:
        UsageError: It is not a time, or has no offset from UTC.
    """
    try:
        found = datetime.fromisoformat(given)
        if found.tzinfo is None:
            raise UsageError(f"{given[:60]!r} has no offset from UTC: write 2026-12-01T09:00+01:00")
        return found.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError) as error:  # the year 1 in UTC+14 is the year 0 in UTC
        raise UsageError(f"{given[:60]!r} is not a time: write 2026-12-01T09:00+01:00") from error


def number(value: object) -> float | None:
    """Return a number received over the wire if it is finite, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def points(given: float, total: float | None = None) -> str:
    """Format a mark, and the maximum if there is one, with up to two decimals."""
    text = f"{given:.2f}".rstrip("0").rstrip(".") if abs(given) < 1e15 else f"{given:g}"
    return text if total is None else f"{text} of {points(total)}"


def file_name(text: str, otherwise: str) -> str:
    """Return a safe name for saving a submitted file: no folder, not hidden, printable."""
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
