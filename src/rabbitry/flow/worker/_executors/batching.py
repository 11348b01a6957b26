"""Gathering single messages into the batches that a handler takes, and splitting a batch that failed.

A batch is handed over when it is full, by its messages or by its bytes, or `within` seconds after its first message
came; while all handlers are busy it continues to fill. A batch that fails as a whole is handled again at once in
halves, and these in halves again, until the message at fault fails alone. Only that message is charged an attempt. For
500 messages this takes about 18 calls. If the batch's time limit ends before that, the remaining messages go to the
queue of suspects and are handled alone. So do those of an idempotent stage whose process died: their claims stand, and
would hold up the halves.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._executors.executor import drop
from rabbitry.flow.worker._job import GIVEN_BACK, SUSPECT, BatchJob, Job, Result, Work

if TYPE_CHECKING:
    from rabbitry.flow.worker._executors.executor import Report, WorkExecutor

_logger = logging.getLogger(__name__)


class Batcher:
    """An executor of batches: takes single messages, and has another executor run the batches that it makes of them."""

    def __init__(self, stage: Stage, concurrency: int, report: Report, make: Callable[[Report], WorkExecutor]) -> None:
        """Create a batcher; `make` returns the executor that runs the batches, given the function it reports to."""
        assert stage.batch is not None  # noqa: S101 # narrows the type
        self._stage = stage
        self._size = stage.batch
        self._most_bytes = stage.batch_bytes
        self._concurrency = concurrency
        self._tell = report
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Job] = deque()
        self._bytes = 0
        """Of the bodies that wait."""
        self._lock = threading.Lock()
        self._running = 0
        """Batches, and parts of batches, that the executor has; under the lock."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._executor = make(self._report)

    async def start(self) -> None:
        """See Executor."""
        await self._executor.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take messages. A suspect, which may kill its worker, is a batch of its own."""
        for job in jobs:
            if job.is_suspect:
                self._run([job])
            else:
                self._waiting.append(job)
                self._bytes += len(job.body)
        self._hand_over()

    def give_back(self) -> None:
        """See Executor."""
        self._bytes = 0
        while self._waiting:
            self._tell(self._waiting.popleft(), GIVEN_BACK)
        self._executor.give_back()

    def cancel(self, cancelled: Container[bytes]) -> None:
        """See Executor. Messages of a batch that has begun stay in it."""
        drop(self._waiting, cancelled)

    async def stop(self, deadline: float) -> None:
        """See Executor."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.give_back()
        await self._executor.stop(deadline)

    def _hand_over(self) -> None:
        """Hand over the batches that are due while handlers are free."""
        while self._waiting and self._running < self._concurrency and not self._is_stopping:
            left = self._waiting[0].received + self._stage.within - time.monotonic()
            if len(self._waiting) < self._size and self._bytes < self._most_bytes and left > 0:
                if self._timer is None:
                    self._timer = self._loop.call_later(left, self._on_time)
                return
            taken = self._take()
            for job in taken:
                if job.is_stale or job.is_dropped:
                    self._tell(job, GIVEN_BACK)
            if current := [job for job in taken if not (job.is_stale or job.is_dropped)]:
                self._run(current)

    def _take(self) -> list[Job]:
        """Take out the messages of the next batch: as many as it may have, and no more bytes unless of the first."""
        taken: list[Job] = []
        size = 0
        while self._waiting and len(taken) < self._size:
            size += len(self._waiting[0].body)
            if taken and size > self._most_bytes:
                break
            self._bytes -= len(self._waiting[0].body)
            taken.append(self._waiting.popleft())
        return taken

    def _on_time(self) -> None:
        self._timer = None
        self._hand_over()

    def _run(self, jobs: list[Job]) -> None:
        with self._lock:
            self._running += 1
        self._executor.submit([BatchJob(jobs, time.monotonic() + self._stage.time_limit)])

    def _report(self, work: Work, result: Result) -> None:
        """Report the result of a batch, or split the batch; called in any thread."""
        assert isinstance(work, BatchJob)  # noqa: S101 # the executor has nothing else; narrows the type
        if result.kind == "yielded":
            self._tell(work, result)
            return
        for job in work.jobs:
            job.seconds = work.seconds / len(work.jobs)
        if result.kind == "done":
            self._tell(work, result)
        elif result.kind in ("given-back", "abandoned"):
            for job in work.jobs:
                self._tell(job, SUSPECT if work.is_overdue else result)
        elif len(work.jobs) == 1:
            work.jobs[0].stream = work.stream
            self._tell(work.jobs[0], result)
        elif time.monotonic() < work.until and not (work.is_killed and self._stage.takes is not None):
            _logger.warning("stage '%s': a batch of %d failed: %s", self._stage.name, len(work.jobs), result.error)
            with self._lock:
                self._running += 1  # two in place of one
            self._executor.submit_first(work.halves())
            return
        else:
            _logger.warning("stage '%s': a batch of %d failed: %s", self._stage.name, len(work.jobs), result.error)
            for job in work.jobs:
                self._tell(job, SUSPECT)
        with self._lock:
            self._running -= 1
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_over)
