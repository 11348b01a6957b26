"""Parts of a job: the header that numbers them.

The header `x-rabbitry-part` is text: `JOB/NUMBER/TOTAL`, where JOB is the id of the message that was split. Every
message that follows from a part carries it on. If a part is split again, its parts have a line for each job, the outer
one first.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from rabbitry.flow.codec import Codec

Late: TypeAlias = Literal["dead", "join"]
NOTICE: Final = -1
"""The number of the message that a split sends to the join itself."""


class Part(NamedTuple):
    """The place of a message in a job: its number of so many."""

    job: str
    number: int
    total: int

    @property
    def is_notice(self) -> bool:
        """Whether it is no part: it says that the job has none, or that its time is over."""
        return self.number == NOTICE

    def __str__(self) -> str:
        return f"{self.job}/{self.number}/{self.total}"


class Join(NamedTuple):
    """A stage that runs once for all parts of a job. Made by `App.join`.

    of: the name of the stage whose results are the parts. queue: its own. within, time_limit: seconds. codec: of one
    part.
    """

    of: str
    queue: str
    within: float
    time_limit: float
    codec: Codec


def part_of(text: str) -> Part | None:
    """Read the innermost part of a header; None if there is none."""
    try:
        job, number, total = text.rpartition("\n")[2].rsplit("/", 2)
        return Part(job, int(number), int(total))
    except ValueError:
        return None
