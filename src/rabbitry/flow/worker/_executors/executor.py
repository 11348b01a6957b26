"""The interface of executors, and what all kinds of them share."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, Protocol, TypeAlias

from rabbitry.flow.exceptions import TimeLimitExceeded
from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._job import Job, Result, Work

Report: TypeAlias = Callable[[Work, Result], None]
LOOK: Final = 0.1
"""Seconds between two looks at the time limits, at most."""


class Executor(Protocol):
    """Runs the handler of one stage."""

    async def start(self) -> None:
        """Prepare for the first job. Raises AppError if the handler can't be run."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs to run."""

    def give_back(self) -> None:
        """Return jobs that have not begun. More may be submitted."""

    def cancel(self, cancelled: Container[bytes]) -> None:
        """Cancel the running and waiting messages of cancelled jobs. Called in the loop. Batches go on."""

    async def stop(self, deadline: float) -> None:
        """Return jobs that have not begun, wait for the others until `deadline` (the loop's clock), and end."""


class WorkExecutor(Protocol):
    """An executor of messages or batches, one for each call of the handler. See Executor."""

    async def start(self) -> None:
        """See Executor."""

    def submit(self, works: Sequence[Work]) -> None:
        """Take work to run."""

    def submit_first(self, works: Sequence[Work]) -> None:
        """Take work to run before all other waiting work. To be called in the thread that reports a result."""

    def give_back(self) -> None:
        """See Executor."""

    def cancel(self, cancelled: Container[bytes]) -> None:
        """See Executor."""

    async def stop(self, deadline: float) -> None:
        """See Executor."""


def drop(works: Iterable[Work], cancelled: Container[bytes]) -> list[Job]:
    """Mark the messages of cancelled jobs among works, and return those that were not marked before."""
    found = []
    for work in works:
        if isinstance(work, Job) and not work.is_dropped and work.trail.correlation in cancelled:
            work.is_cancelled = work.is_dropped = True
            found.append(work)
    return found


def too_long(stage: Stage, cause: BaseException | None) -> TimeLimitExceeded:
    """Return the error of a handler that took longer than its stage's time limit."""
    error = TimeLimitExceeded(f"not done within the stage's time limit of {stage.time_limit:g} s")
    error.__cause__ = cause
    return error
