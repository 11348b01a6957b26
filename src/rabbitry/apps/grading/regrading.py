"""Doing a run of marking again, one submission after another: by the command, or by a coordinator for the page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from rabbitry._words import counted
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.exceptions import FileLost
from rabbitry.runtime.tasks import until

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Fetcher, Files
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Submission
    from rabbitry.apps.grading.records.regrading import Run

MOST_WAITING: Final = 50
"""Messages in the outbox, each with its file, before the next submission is reopened."""
_LOOK: Final = 0.1
"""Seconds between two looks whether the outbox has room."""
PAUSE: Final = 1.0
"""Seconds between two looks for a run that was begun on the page."""
_PATIENCE: Final = 5.0
"""Seconds without progress before it is told what a run waits for."""
_LATER: Final = 5.0
"""Seconds until a run that failed goes on."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One submission of a run. is_reopened: false if it was before, or can't be. lost: why its file can't be had."""

    submission: Submission
    is_reopened: bool
    lost: FileLost | None = None


class Patience:
    """The wait of a run for room in the outbox: reports once if the messages there do not become fewer.

    tell: called with their number.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._least: int | None = None
        self._since = time.monotonic()
        self._is_told = False

    def goes_on(self, waiting: int) -> bool:
        """Return true: the run waits for as long as it takes. waiting: the messages in the outbox."""
        if self._least is None or waiting < self._least:
            self._least, self._since = waiting, time.monotonic()
        elif not self._is_told and time.monotonic() > self._since + _PATIENCE:
            self._tell(waiting)
            self._is_told = True
        return True


def reopened(
    records: Database, files: Files, run: Run, course: Course, exchange: str, *, has_room: Callable[[int], bool]
) -> Iterator[Step]:
    """Reopen what is left of a run, and end the run. Blocks.

    Args:
        records: The open records.
        files: The kept files.
        run: The run.
        course: The course.
        exchange: The roles' exchange.
        has_room: Called with the number of messages in the outbox while that is MOST_WAITING or more, several times a
            second, since each holds a whole file. If it returns False, the iteration ends, and the run does not.

    Yields:
        Each submission, after it was reopened.

    Raises:
        FilesError: The files can't be read for the moment.
        RecordsError: Nor the records.
    """
    from rabbitry.apps.grading.records.course import submission_of
    from rabbitry.apps.grading.records.outbox import count
    from rabbitry.apps.grading.records.regrading import end, reopen

    for identity in run.left:
        found = records.read_now(partial(submission_of, given=identity))
        data = file_of(files, found)
        while (waiting := records.read_now(count)) >= MOST_WAITING:
            if not has_room(waiting):
                return
            time.sleep(_LOOK)
        content, lost = (data, None) if isinstance(data, bytes) else (None, data)
        work = partial(reopen, run=run, identity=found.id, data=content, course=course, exchange=exchange)
        yield Step(found, records.write_now(work) is not None, lost)
    records.write_now(partial(end, run=run))


def file_of(files: Fetcher, found: Submission) -> bytes | FileLost:
    """Return a submission's file, or why it can't be had. Blocks. Raises FilesError while the store can't be read."""
    if found.kept is None:
        return FileLost("its file is not kept")
    try:
        return files.fetch(found.kept)
    except FileLost as error:
        return error


async def reopen_begun(records: Database, files: Files, course: Course, exchange: str, stop: asyncio.Event) -> None:
    """Do the runs that were begun on the page, until `stop` is set. A run that was cut off goes on at the next start.

    Several coordinators share a run: each submission is reopened once.
    """
    from rabbitry.apps.grading.records.regrading import begun

    def tell(waiting: int) -> None:
        _logger.warning(
            "marking again waits: %s of all roles not published; run each role with --person that has decided",
            counted(waiting, "message"),
        )

    def work() -> bool:
        run = records.read_now(begun)
        if run is None:
            return False
        patience = Patience(tell)

        def has_room(waiting: int) -> bool:
            return not stop.is_set() and patience.goes_on(waiting)  # only read, which is safe in another thread

        steps = reopened(records, files, run, course, exchange, has_room=has_room)
        for step in steps:
            _logger.info("regrade %s: %s %s", run.id, step.submission.id, step.lost or "submitted again")
            if stop.is_set():
                return False
        return True

    while not stop.is_set():
        pause = PAUSE
        try:
            if await asyncio.to_thread(work):
                continue
        except RecordsError as error:
            _logger.warning("marking again: %s; trying again in %g s", error, _LATER)
            pause = _LATER
        await until(stop, asyncio.sleep(pause))
