"""The store of joins: its bounds, and what it raises, whatever database it is in."""

from __future__ import annotations

from collections.abc import Set
from typing import Final, Protocol

from rabbitry._words import counted
from rabbitry.flow._parts import Late, Part
from rabbitry.flow.exceptions import Reject, Retry

MOST_BYTES: Final = 64 << 20
"""Bytes of the bodies of a job's parts. They are in memory at once when the join runs."""
KEPT: Final = 7 * 86400.0
"""Seconds after its limit of time for which a job is known, so that a part that comes again does not begin it anew."""
_MOST_NAMED: Final = 20


class JoinStore(Protocol):
    """The jobs of one join: which parts of each have arrived, and which message runs the join. Used from any thread.

    What is decided about a job is decided at once for all workers, so that of any number of them one runs the join.
    """

    def arrive(self, part: Part, message: str, run: str, body: bytes) -> list[bytes] | None:
        """Keep a part. Return the bodies of all in their order if this message is to run the join, and None if not.

        Args:
            part: The place of the part in its job.
            message: The message's id. The same one gets the same answer when it is delivered again.
            run: Counts its deliveries, as far as one was begun.
            body: The part.

        Raises:
            Reject: The job can't take the part.
            Retry: The store can't be reached; or this is a copy of the message that runs the join.
        """

    def end(self, part: Part, message: str, run: str, late: Late) -> list[bytes] | None:
        """End a job that has no parts, or whose time is over. Returns and raises as `arrive` does.

        With late="dead", Reject names the parts that are missing.
        """

    def release(self, job: str, run: str) -> None:
        """Note that a run of the join failed, so that its message runs it again however it comes."""

    def finish(self, job: str) -> None:
        """Note that the results of a join are confirmed, and drop what is not needed any more."""

    def close(self) -> None:
        """Close the connections."""


def came_late(part: Part) -> Reject:
    """Return the error of a part that came after its job was over."""
    return Reject(f"part {part.number} of job {part.job!r} came after the job's limit of time", reason="late")


def too_large(part: Part, most: int) -> Reject:
    """Return the error of a part with which its job would have too many bytes."""
    return Reject(f"the parts of job {part.job!r} have more than {most} bytes: publish where they are kept")


def split_otherwise(part: Part, total: int) -> Reject:
    """Return the error of a part of a job that was split in another number of parts before."""
    return Reject(
        f"job {part.job!r} was split in {total} parts, and in {part.total} when it was handled again: "
        "make the same parts of the same message"
    )


def being_joined(part: Part, time_limit: float) -> Retry:
    """Return the error of a copy of the delivery that runs the join.

    A worker that is killed while it publishes a redelivered message anew leaves two copies of it, and so does a client
    that publishes again what was not confirmed. They have equal counts, and what comes again because its worker died
    has a higher one. A copy waits until that run is over: then the results are confirmed, or it is the message's turn.
    """
    return Retry(f"job {part.job!r} is being joined", after=time_limit, count=False)


def incomplete(part: Part, numbers: Set[int], within: float) -> Reject:
    """Return the error of a job whose time is over, which names the missing parts. numbers: those that are there."""
    missing = sorted(set(range(part.total)) - numbers)
    names = ", ".join(str(number) for number in missing[:_MOST_NAMED])
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return Reject(
        f"job {part.job!r} has {counted(len(missing), 'part')} of {part.total} missing after {within:g} s: "
        f"{names}{more}",
        reason="late",
    )
