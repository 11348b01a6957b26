"""Parts of a job: the header that numbers them.

The header `x-rabbitry-part` is text: `JOB/NUMBER/TOTAL`, where JOB is the id of the message that was split, or
`JOB/NUMBER/TOTAL CALLER` if somebody waits for the result of the join: CALLER is where the reply goes, quoted as in a
URL. Every message that follows from a part carries it on. If a part is split again, its parts have a line for each job,
the outer one first.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

Late: TypeAlias = Literal["dead", "join"]
NOTICE: Final = -1
"""The number of the message that a split sends to the join itself."""


class Part(NamedTuple):
    """The place of a message in a job: its number of so many. caller: where the job's reply goes; empty for nowhere."""

    job: str
    number: int
    total: int
    caller: str = ""

    @property
    def is_notice(self) -> bool:
        """Whether it is no part: it says that the job has none, or that its time is over."""
        return self.number == NOTICE

    def __str__(self) -> str:
        caller = f" {quote(self.caller, safe='')}" if self.caller else ""
        return f"{self.job}/{self.number}/{self.total}{caller}"


class Join(NamedTuple):
    """A stage that runs once for all parts of a job. Made by `App.join`.

    of: the name of the stage whose results are the parts. queue: its own. within, time_limit: seconds.
    """

    of: str
    queue: str
    within: float
    time_limit: float


class Joined(list[Any]):
    """What a handler behind a gate is published as: its results, and a note to its stage; nothing if it did not run.

    answer: what it returned, for the caller of the job. is_whole: False if it did not run, since parts of a join are
    missing or the message is a note. is_skipped: whether it did not run since the message was handled before.
    """

    def __init__(
        self, messages: list[Any], answer: object = None, *, is_whole: bool = True, is_skipped: bool = False
    ) -> None:
        super().__init__(messages)
        self.answer = answer
        self.is_whole = is_whole
        self.is_skipped = is_skipped


def part_of(text: str) -> Part | None:
    """Read the innermost part of a header; None if there is none."""
    try:
        job, number, rest = text.rpartition("\n")[2].rsplit("/", 2)
        total, _, caller = rest.partition(" ")
        return Part(job, int(number), int(total), unquote(caller))
    except ValueError:
        return None
