"""Running handlers: `async def` in the worker's loop, `def` in threads, `processes=True` behind such threads.

Each executor takes jobs from the loop that the worker lives in, and gives a result for each of them, once; before it, a
result "yielded" for each value that a generator made. Each message, or batch, is handled in a fresh copy of the context
that the executor was made in, so that none sees the variables of another. `Batcher` makes batches of single jobs first.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias

from rabbitry.amqp.client.default import current
from rabbitry.flow import handling
from rabbitry.flow.batching import Batcher
from rabbitry.flow.exceptions import TimeLimitExceeded, WorkerStuck
from rabbitry.flow.job import ABANDONED, GIVEN_BACK, Job, Result, Work
from rabbitry.flow.processes import ProcessSlot
from rabbitry.flow.stage import Stage
from rabbitry.flow.stream import Bound, LoopStream, ThreadStream
from rabbitry.runtime.loop_watchdog import stack_of

Report: TypeAlias = Callable[[Work, Result], None]
_LONGEST_TURN: Final = 0.01
"""Seconds that handlers which never wait may keep the loop, before others have their turn."""
_LOOK: Final = 0.1
_CANCELLING: Final = 0.5
"""Seconds that a cancelled handler has to end. One that goes on is left to itself, and its message comes again."""

log = logging.getLogger("rabbitry.flow")


class Executor(Protocol):
    """Runs the handler of one stage."""

    async def start(self) -> None:
        """Make ready; before the first job. Raises AppError where the handler can't be run."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs to run."""

    async def stop(self, deadline: float) -> None:
        """Return to the broker what has not begun, wait for the rest until `deadline` (the loop's clock), and end."""


class WorkExecutor(Protocol):
    """An executor that takes whatever one call of a handler gets. See Executor."""

    async def start(self) -> None:
        """See Executor."""

    def submit(self, works: Sequence[Work]) -> None:
        """Take what is to be run."""

    def submit_first(self, works: Sequence[Work]) -> None:
        """Take what is to be run before all else that waits; for who is told a result, in that thread."""

    async def stop(self, deadline: float) -> None:
        """See Executor."""


class AsyncExecutor:
    """Runs an `async def` handler in tasks, at most `concurrency` at once.

    A task goes from job to job. Before each it sees to it that another one is ready to begin, which has its
    turn as soon as this one waits; so handlers that never wait cost one task a batch, not one a message.

    Time limits are looked at every now and then, for all tasks at once: a timer for each message would cost a
    tenth of what it takes (`make bench-flow`).
    """

    def __init__(self, stage: Stage, concurrency: int, report: Report) -> None:
        self._stage = stage
        self._concurrency = concurrency
        self._report = report
        self._context = contextvars.copy_context()
        self._bound = Bound()
        self._waiting: deque[Work] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[None], tuple[Work, float]] = {}
        """What runs now, and since when, oldest first. Whoever takes a job out reports it."""
        self._late: set[asyncio.Task[None]] = set()
        """Tasks whose handler was cancelled because its time is up, or its input comes again."""
        self._look: asyncio.TimerHandle | None = None
        self._is_one_ready = False
        self._is_stopping = False
        self._turn = 0.0
        """When generators, which may never wait, last let others have their turn."""

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

    async def stop(self, deadline: float) -> None:
        """See Executor. What runs past the deadline is cancelled and given back."""
        self._is_stopping = True
        while self._waiting:
            self._report(self._waiting.popleft(), GIVEN_BACK)
        if self._tasks:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait(set(self._tasks), timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_CANCELLING)
        running, self._running = self._running, {}
        for job, _ in running.values():
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
            if job.is_stale or job.is_overdue:
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
            self._report(job, result)
            if me.cancelling():
                return  # cancelled by its handler, or to stop: the next message must not be
            began = ended
            if ended - turn > _LONGEST_TURN:
                await asyncio.sleep(0)
                began = turn = monotonic()

    async def _handle(self, me: asyncio.Task[None], job: Work) -> Result:
        """Run the handler, and tell by whom it was cancelled where it was: what a handler does costs its message."""
        stage = self._stage
        put = _goes_nowhere
        if stage.yields:
            job.stream = stream = LoopStream(self._bound)
            put = partial(self._put, job, stream)
        call = handling.call_async(stage, job.body, job.message, put)
        try:
            result = await handling.InContext(self._context.copy(), call)
        except asyncio.CancelledError as error:
            if self._is_only_late(me):
                return ABANDONED if job.is_stale else handling.failed(_too_long(stage, error))
            if self._is_stopping:
                return ABANDONED
            return handling.failed(error)  # it raised that, cancelled its own task, or waited for what was cancelled
        if me in self._late:
            is_only_late = self._is_only_late(me)  # it made something else of it
            if result.kind == "abandoned" and is_only_late and not job.is_stale:
                return handling.failed(_too_long(stage, None))
        if self._is_stopping and me.cancelling() and result.kind in ("failed", "retry"):
            return ABANDONED  # what it raised when it was told to end
        return result

    async def _put(self, job: Work, stream: LoopStream, result: Result | None) -> bool:
        """Publish what a generator yielded; see `handling.PutAsync`."""
        if not await stream.wait() or job.is_stale:
            return False
        if result is not None:
            stream.add([len(result.products[0].body)])
            self._report(job, result)
        if time.monotonic() - self._turn > _LONGEST_TURN:
            await asyncio.sleep(0)
            self._turn = time.monotonic()
        return True

    def _is_only_late(self, task: asyncio.Task[None]) -> bool:
        """Return whether a task was cancelled because its handler's time was up, and for nothing else."""
        if task not in self._late:
            return False
        self._late.discard(task)
        return task.uncancel() == 0

    def _look_later(self) -> None:
        pause = min(_LOOK, self._stage.time_limit / 4)
        self._look = asyncio.get_running_loop().call_later(pause, self._cancel_late)

    def _cancel_late(self) -> None:
        now = time.monotonic()
        for task, (job, began) in self._running.items():
            # Nobody takes what a generator yields whose input comes again, and another worker may be at it by now.
            is_lost = self._stage.yields and job.is_stale
            if (is_lost or now - began > self._stage.time_limit) and task not in self._late:
                self._late.add(task)
                if job.stream is not None:
                    job.stream.close()  # one that goes on in spite of being cancelled ends at its next value
                task.cancel()
        self._look = None
        if self._running:
            self._look_later()


class ThreadExecutor:
    """Runs a `def` handler in threads, each of which may have a process that does the work.

    A thread can't be ended. One whose handler is past its time limit is left to itself, its message fails, and
    another thread takes its place; past `concurrency` of these the worker ends with WorkerStuck.
    """

    def __init__(self, stage: Stage, concurrency: int, report: Report, failed: Callable[[Exception], None]) -> None:
        self._stage = stage
        self._concurrency = concurrency
        self._report = report
        self._bound = Bound()
        self._failed = failed
        self._waiting: deque[Work] = deque()
        self._turns: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """True for each that waits; False has one thread end."""
        self._lock = threading.Lock()
        self._running: dict[threading.Thread, tuple[Work, float]] = {}
        self._threads: list[threading.Thread] = []
        self._slots: set[ProcessSlot] = set()
        """The processes, each of one thread; those that no thread has taken yet are in `_ready`."""
        self._ready: deque[ProcessSlot] = deque()
        self._stuck = 0
        self._is_stopping = False
        self._context = contextvars.copy_context()
        self._broker = current.get()
        for _ in range(concurrency):
            self._start_thread()
        self._watch = asyncio.create_task(self._watch_limits(), name=f"time limits of {stage.name}")

    async def start(self) -> None:
        """See Executor. The first process is started, to see that it can import the handler."""
        if self._stage.kind == "process":
            slot = ProcessSlot(self._stage, self._broker)
            self._slots.add(slot)
            await asyncio.get_running_loop().run_in_executor(None, slot.start)
            self._ready.append(slot)

    def submit(self, works: Sequence[Work]) -> None:
        """See WorkExecutor."""
        for work in works:
            self._waiting.append(work)
            self._turns.put(True)

    def submit_first(self, works: Sequence[Work]) -> None:
        """See WorkExecutor."""
        with self._lock:  # `stop` gives back what waits after it has set the flag
            is_stopping = self._is_stopping
            if not is_stopping:
                self._waiting.extendleft(reversed(works))
        for work in works:
            if is_stopping:
                self._report(work, GIVEN_BACK)
            else:
                self._turns.put(True)

    async def stop(self, deadline: float) -> None:
        """See Executor. What runs past the deadline is left; its process, where it has one, is killed."""
        with self._lock:
            self._is_stopping = True
        while (work := self._next()) is not None:
            self._report(work, GIVEN_BACK)
        for _ in self._threads:
            self._turns.put(False)
        loop = asyncio.get_running_loop()
        if (left := deadline - loop.time()) > 0:
            await loop.run_in_executor(None, self._join, time.monotonic() + left)
        self._watch.cancel()
        await asyncio.wait((self._watch,))
        # Before the processes are killed, which must not look like a failure of what they handle.
        with self._lock:
            running, self._running = self._running, {}
        for work, _ in running.values():
            if work.stream is not None:
                work.stream.close()
            self._report(work, ABANDONED)
        if self._stage.yields:  # closed at their next value
            await loop.run_in_executor(None, self._join, time.monotonic() + _CANCELLING)
        for slot in list(self._slots):
            slot.kill()
        if self._stage.kind == "process":
            await loop.run_in_executor(None, self._join, time.monotonic() + _CANCELLING)
            while self._ready:
                await loop.run_in_executor(None, self._ready.popleft().close)

    def _next(self) -> Work | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _join(self, until: float) -> None:
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"stage {self._stage.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        me = threading.current_thread()
        slot = None
        try:
            while self._turns.get():
                work = self._next()
                if work is None:
                    continue  # `stop` gave it back
                if work.is_stale or work.is_overdue:
                    self._report(work, GIVEN_BACK)
                    continue
                if slot is None and self._stage.kind == "process":
                    slot = self._take_slot()
                if self._stage.yields:
                    work.stream = ThreadStream(self._bound)
                # What starting a process takes is not the handler's.
                began = time.monotonic() if slot is None else math.inf
                with self._lock:
                    self._running[me] = (work, began)
                if slot is not None:
                    slot.start_again()
                    began = time.monotonic()
                    with self._lock:
                        if me in self._running:  # `stop` may have given it back meanwhile
                            self._running[me] = (work, began)
                put = partial(self._put, work)
                if slot is None:
                    result = self._context.copy().run(handling.call, self._stage, work.body, work.message, put)
                else:
                    result = slot.call(work, put)
                with self._lock:
                    mine = self._running.pop(me, None)
                if mine is None:
                    return  # given up: another thread has this one's place, or `stop` gave the message back
                work.seconds = time.monotonic() - began
                if result.kind == "abandoned" and not work.is_stale:
                    result = handling.failed(_too_long(self._stage, None))
                self._report(work, result)
        finally:
            if slot is not None:
                slot.close()
                self._slots.discard(slot)

    def _put(self, work: Work, result: Result | None) -> bool:
        """Publish what a generator yielded; see `handling.Put`."""
        stream = work.stream
        assert isinstance(stream, ThreadStream)  # noqa: S101 # `_serve` made it; narrows the type
        if not stream.wait() or work.is_stale:
            return False
        if result is not None:
            stream.add([len(product.body) for product in result.products])
            self._report(work, result)
        return True

    def _take_slot(self) -> ProcessSlot:
        try:
            return self._ready.popleft()
        except IndexError:
            slot = ProcessSlot(self._stage, self._broker)
            self._slots.add(slot)
            return slot

    async def _watch_limits(self) -> None:
        while self._stage.kind == "thread" or self._stage.yields:
            await asyncio.sleep(min(_LOOK, self._stage.time_limit / 4))
            now = time.monotonic()
            for thread, (job, began) in list(self._running.items()):
                late = now - began - self._stage.time_limit
                if late > 0 and job.stream is not None:
                    job.stream.close()
                    late -= _CANCELLING
                if late > 0 and self._stage.kind == "thread":
                    self._give_up(thread, job, now - began)

    def _give_up(self, thread: threading.Thread, job: Work, seconds: float) -> None:
        stack = stack_of(thread.ident)
        with self._lock:
            if self._running.get(thread, (None,))[0] is not job:
                return  # it has just ended
            del self._running[thread]
        self._threads.remove(thread)
        self._stuck += 1
        job.seconds = seconds
        error = _too_long(self._stage, None)
        log.error(
            "%s; its thread is left to itself: %d of %d that may hang, with one more the worker ends\n%s",
            error,
            self._stuck,
            self._concurrency,
            stack,
        )
        self._report(job, Result("failed", reason="failed", error=str(error), trace=stack))
        if self._stuck > self._concurrency:
            limit = "set a time limit in what they wait for, or run the stage with processes=True"
            text = f"stage '{self._stage.name}': {self._stuck} handlers hang ({self._stage.where}): {limit}"
            self._failed(WorkerStuck(text))
        else:
            self._start_thread()


def make_executor(stage: Stage, concurrency: int, report: Report, failed: Callable[[Exception], None]) -> Executor:
    """Make the executor that a stage's handler needs; `failed` is told of what ends the worker."""

    def make(report: Report) -> AsyncExecutor | ThreadExecutor:
        if stage.kind == "async":
            return AsyncExecutor(stage, concurrency, report)
        return ThreadExecutor(stage, concurrency, report, failed)

    return make(report) if stage.batch is None else Batcher(stage, concurrency, report, make)


async def _goes_nowhere(result: Result | None) -> bool:
    """Take what no generator yields."""
    return True


def _too_long(stage: Stage, cause: BaseException | None) -> TimeLimitExceeded:
    error = TimeLimitExceeded(f"stage '{stage.name}': not done within its time limit of {stage.time_limit:g} s")
    error.__cause__ = cause
    return error
