"""Running `def` handlers in threads, each of which may have a process that does the work."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Final

from rabbitry.amqp.client.url import current
from rabbitry.flow.exceptions import WorkerStuck
from rabbitry.flow.worker._executors import handling
from rabbitry.flow.worker._executors.executor import LOOK, Report, drop, too_long
from rabbitry.flow.worker._executors.invoker import Invoker
from rabbitry.flow.worker._executors.processes import ProcessSlot
from rabbitry.flow.worker._executors.results import failed
from rabbitry.flow.worker._executors.streams import Bound, ThreadStream
from rabbitry.flow.worker._job import ABANDONED, GIVEN_BACK, Result, Work
from rabbitry.runtime.loop_watchdog import stack_of

_CANCELLING: Final = 0.5
"""Seconds that a generator which is closed has to end, and a killed process."""

_logger = logging.getLogger(__name__)


class ThreadExecutor:
    """Runs a `def` handler in threads, each of which may have a process that does the work.

    A thread can't be killed. A thread whose handler exceeds the time limit is abandoned: its message fails, and another
    thread takes its place. With more than `concurrency` abandoned threads the worker ends with WorkerStuck.
    """

    def __init__(
        self, invoker: Invoker, concurrency: int, report: Report, on_failed: Callable[[Exception], None]
    ) -> None:
        self._invoker = invoker
        self._stage = invoker.stage
        self._concurrency = concurrency
        self._report = report
        self._bound = Bound()
        self._on_failed = on_failed
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
        self._watch = asyncio.create_task(self._watch_limits(), name=f"time limits of {self._stage.name}")

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

    def give_back(self) -> None:
        """See Executor."""
        while (work := self._next()) is not None:
            self._report(work, GIVEN_BACK)

    def cancel(self, cancelled: Container[bytes]) -> None:
        """See Executor. A process is killed, and a generator closed at its next value; a thread can't be ended."""
        with self._lock:
            drop(self._waiting, cancelled)
            dropped = drop([work for work, _ in self._running.values()], cancelled)
        for work in dropped:
            if work.stream is not None:
                work.stream.close()
            else:
                for slot in list(self._slots):
                    slot.interrupt(work)

    async def stop(self, deadline: float) -> None:
        """See Executor. What runs past the deadline is left; its process, if it has one, is killed."""
        with self._lock:
            self._is_stopping = True
        self.give_back()
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
            work.is_cancelled = True
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
                work = self._begin(me)
                if work is None:
                    continue
                if slot is None and self._stage.kind == "process":
                    slot = self._take_slot()
                if self._stage.yields:
                    work.stream = ThreadStream(self._bound)
                    if work.is_dropped:  # its job was cancelled since it was taken
                        work.stream.close()
                if slot is not None:
                    slot.start_again()
                began = time.monotonic()
                with self._lock:
                    if me not in self._running:
                        return  # `stop` gave it back meanwhile
                    self._running[me] = (work, began)
                put = partial(self._put, work)
                if slot is None:
                    result = self._context.copy().run(handling.call, self._invoker, work, put)
                else:
                    result = slot.call(work, put)
                with self._lock:
                    mine = self._running.pop(me, None)
                if mine is None:
                    return  # given up: another thread has this one's place, or `stop` gave the message back
                work.seconds = time.monotonic() - began
                if work.is_dropped:
                    result = ABANDONED  # whatever the handler returned
                elif result.kind == "abandoned" and not work.is_stale:
                    result = failed(too_long(self._stage, None))
                self._report(work, result)
        finally:
            if slot is not None:
                slot.close()
                self._slots.discard(slot)

    def _begin(self, me: threading.Thread) -> Work | None:
        """Return the next work, noted as running; None if none waits, or if it must not begin any more."""
        with self._lock:  # `cancel` finds it where it waits, or where it runs
            work = self._next()
            if work is None:
                return None  # it was given back
            if not (work.is_stale or work.is_overdue or work.is_dropped):
                self._running[me] = (work, math.inf)  # the time to start a process does not count
                return work
        self._report(work, GIVEN_BACK)
        return None

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
            await asyncio.sleep(min(LOOK, self._stage.time_limit / 4))
            now = time.monotonic()
            for thread, (job, began) in list(self._running.items()):
                late = now - began - self._stage.time_limit
                if late > 0 and job.stream is not None:
                    job.is_cancelled = True
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
        job.is_cancelled = True
        self._threads.remove(thread)
        self._stuck += 1
        job.seconds = seconds
        error = too_long(self._stage, None)
        _logger.error(
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
            self._on_failed(WorkerStuck(text))
        else:
            self._start_thread()
