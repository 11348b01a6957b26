"""Running `async def` handlers in tasks of the worker's loop."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Container, Sequence
from functools import partial
from typing import Final

from rabbitry.flow.worker._executors import handling
from rabbitry.flow.worker._executors.executor import LOOK, Report, drop, too_long
from rabbitry.flow.worker._executors.in_context import InContext
from rabbitry.flow.worker._executors.invoker import Invoker
from rabbitry.flow.worker._executors.results import failed
from rabbitry.flow.worker._executors.streams import Bound, LoopStream
from rabbitry.flow.worker._job import ABANDONED, GIVEN_BACK, Result, Work

_LONGEST_TURN: Final = 0.01
"""Seconds that handlers which never wait may keep the loop, before others have their turn."""
_CANCELLING: Final = 0.5
"""Seconds that a cancelled handler has to end. One that goes on is left to itself, and its message comes again."""
_GATHERING: Final = 0.03
"""Seconds in which values that handlers yield are gathered. Each passed on by itself would wake the I/O thread, the
broker and whoever consumes it (`make bench-crawl`)."""
_MOST: Final = 64
_LARGEST: Final = 1 << 18
"""Values, and bytes of their bodies, from which on they are passed on at once: a quarter of a stream's bounds."""


class AsyncExecutor:
    """Runs an `async def` handler in tasks, at most `concurrency` at once.

    A task handles one job after the other. Before each job it makes another task ready, which runs as soon as this one
    waits. Handlers that never wait therefore need one task for a batch of jobs, not one for each message.

    Time limits are checked periodically for all tasks together: a timer for each message would cost a tenth of the time
    that a message takes (`make bench-flow`).
    """

    def __init__(self, invoker: Invoker, concurrency: int, report: Report) -> None:
        self._invoker = invoker
        self._stage = invoker.stage
        self._concurrency = concurrency
        self._report = report
        self._context = contextvars.copy_context()
        self._bound = Bound()
        self._waiting: deque[Work] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[None], tuple[Work, float]] = {}
        """The jobs that run now, and since when, oldest first. The code that removes a job reports its result."""
        self._late: set[asyncio.Task[None]] = set()
        """Tasks whose handler was cancelled because its time is up, its input comes again, or its job was cancelled."""
        self._look: asyncio.TimerHandle | None = None
        self._is_one_ready = False
        self._is_stopping = False
        self._turn = 0.0
        """When generators, which may never wait, last let others have their turn."""
        self._yielded: list[tuple[Work, Result]] = []
        """Values that are not passed on yet. Those of a handler are when it ends, before its result."""
        self._size = 0
        """Bytes of their bodies."""
        self._passed_on_at = 0.0
        self._passing_on: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """See Executor."""

    def submit(self, works: Sequence[Work]) -> None:
        """See WorkExecutor."""
        self._waiting.extend(works)
        self._ready_one()

    def submit_first(self, works: Sequence[Work]) -> None:
        """See WorkExecutor."""
        if self._is_stopping:
            for work in works:
                self._report(work, GIVEN_BACK)
        else:
            self._waiting.extendleft(reversed(works))
            self._ready_one()

    def give_back(self) -> None:
        """See Executor."""
        while self._waiting:
            self._report(self._waiting.popleft(), GIVEN_BACK)

    def cancel(self, cancelled: Container[bytes]) -> None:
        """See Executor. Waiting messages are returned when their turn comes."""
        drop(self._waiting, cancelled)
        tasks = {id(job): task for task, (job, _) in self._running.items()}
        for job in drop([job for job, _ in self._running.values()], cancelled):
            self._end_early(tasks[id(job)], job)

    async def stop(self, deadline: float) -> None:
        """See Executor. What runs past the deadline is cancelled and given back."""
        self._is_stopping = True
        self.give_back()
        if self._tasks:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait(set(self._tasks), timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_CANCELLING)
        self._pass_on()
        running, self._running = self._running, {}
        for job, _ in running.values():
            job.is_cancelled = True
            if job.stream is not None:
                job.stream.close()
            self._report(job, ABANDONED)
        if self._look is not None:
            self._look.cancel()

    def _ready_one(self) -> None:
        if self._waiting and not self._is_one_ready and len(self._tasks) < self._concurrency:
            self._is_one_ready = True
            task = asyncio.create_task(self._run(), name=f"stage {self._stage.name}")
            self._tasks.add(task)
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ready_one()  # one that a handler cancelled leaves its turn to another

    async def _run(self) -> None:
        self._is_one_ready = False
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 # this is a task; narrows the type
        monotonic = time.monotonic
        began = turn = monotonic()
        while self._waiting:
            job = self._waiting.popleft()
            self._ready_one()
            if job.is_stale or job.is_overdue or job.is_dropped:
                self._report(job, GIVEN_BACK)
                continue
            self._running[me] = (job, began)
            if self._look is None:
                self._look_later()
            result = await self._handle(me, job)
            if self._running.pop(me, None) is None:
                return  # given back by `stop`, which waited long enough
            ended = monotonic()
            job.seconds = ended - began
            self._pass_on()
            self._report(job, result)
            if me.cancelling():
                return  # cancelled by its handler, or to stop: the next message must not be
            began = ended
            if ended - turn > _LONGEST_TURN:
                await asyncio.sleep(0)
                began = turn = monotonic()

    async def _handle(self, me: asyncio.Task[None], job: Work) -> Result:
        """Run the handler. If it was cancelled, find out by whom: a handler that cancels itself fails its message."""
        stage = self._stage
        put = _goes_nowhere
        if stage.yields:
            job.stream = stream = LoopStream(self._bound)
            put = partial(self._put, job, stream)
        call = handling.call_async(self._invoker, job, put)
        try:
            result = await InContext(self._context.copy(), call)
        except asyncio.CancelledError as error:
            if self._is_only_late(me):
                return ABANDONED if job.is_stale or job.is_dropped else failed(too_long(stage, error))
            if self._is_stopping:
                return ABANDONED
            return failed(error)  # it raised that, cancelled its own task, or waited for what was cancelled
        if me in self._late:
            is_only_late = self._is_only_late(me)  # it made something else of it
            if job.is_dropped:
                return ABANDONED  # whatever the handler returned
            if result.kind == "abandoned" and is_only_late and not job.is_stale:
                return failed(too_long(stage, None))
        if self._is_stopping and me.cancelling() and result.kind in ("failed", "retry"):
            return ABANDONED  # what it raised when it was told to end
        return result

    async def _put(self, job: Work, stream: LoopStream, result: Result | None) -> bool:
        """Publish what a generator yielded; see `handling.PutAsync`."""
        if not await stream.wait() or job.is_stale:
            return False
        if result is not None:
            size = len(result.products[0].body)
            stream.add([size])
            self._gather(job, result, size)
        if time.monotonic() - self._turn > _LONGEST_TURN:
            await asyncio.sleep(0)
            self._turn = time.monotonic()
        return True

    def _gather(self, job: Work, result: Result, size: int) -> None:
        """Pass a value on: at once, unless others were a moment ago; those that follow so closely go together."""
        self._yielded.append((job, result))
        self._size += size
        left = self._passed_on_at + _GATHERING - time.monotonic()
        if left <= 0 or len(self._yielded) >= _MOST or self._size >= _LARGEST:
            self._pass_on()
        elif self._passing_on is None:
            self._passing_on = asyncio.get_running_loop().call_later(left, self._pass_on)

    def _pass_on(self) -> None:
        if self._passing_on is not None:
            self._passing_on.cancel()
            self._passing_on = None
        if self._yielded:
            self._passed_on_at = time.monotonic()
            yielded, self._yielded, self._size = self._yielded, [], 0
            for job, result in yielded:
                self._report(job, result)

    def _is_only_late(self, task: asyncio.Task[None]) -> bool:
        """Return whether a task was cancelled because its handler's time was up, and for nothing else."""
        if task not in self._late:
            return False
        self._late.discard(task)
        return task.uncancel() == 0

    def _look_later(self) -> None:
        pause = min(LOOK, self._stage.time_limit / 4)
        self._look = asyncio.get_running_loop().call_later(pause, self._cancel_late)

    def _cancel_late(self) -> None:
        now = time.monotonic()
        for task, (job, began) in self._running.items():
            # Nobody takes what a generator yields whose input comes again, and another worker may be at it by now.
            is_lost = self._stage.yields and job.is_stale
            if (is_lost or now - began > self._stage.time_limit) and task not in self._late:
                self._end_early(task, job)
        self._look = None
        if self._running:
            self._look_later()

    def _end_early(self, task: asyncio.Task[None], job: Work) -> None:
        self._late.add(task)
        job.is_cancelled = True
        if job.stream is not None:
            job.stream.close()  # one that goes on in spite of being cancelled ends at its next value
        task.cancel()


async def _goes_nowhere(result: Result | None) -> bool:
    """Take what no generator yields."""
    return True
