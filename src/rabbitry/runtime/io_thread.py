"""A thread that runs an event loop, and ways into it for other threads.

What others hand over is gathered: however many calls come while the loop is on its way, it is woken once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rabbitry.exceptions import ConnectionClosed, RabbitryError, UsageError, UsedAfterFork

_T = TypeVar("_T")
_STOP_TIMEOUT = 10.0


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: uvloop's if it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class IOThread:
    """An event loop in a thread of its own. The thread ends with `stop`, and does not keep a process from ending."""

    def __init__(self, name: str = "rabbitry-io") -> None:
        self.loop: asyncio.AbstractEventLoop = new_event_loop()
        self._pid = os.getpid()
        self._posted: deque[Callable[[], None]] = deque()
        self._is_woken = False
        # Held while handing over and while stopping: what is handed over comes before the loop's end, or is refused.
        self._gate = threading.Lock()
        self._stopped = False
        self._last: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the thread and wait for what it gives or raises.

        An exception that interrupts the waiting (Ctrl-C) cancels it. Raises UsedAfterFork in a child process,
        ConnectionClosed if the thread was stopped, also meanwhile, and UsageError in the thread itself.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def run_at_end(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine at the end of a block. If the thread was stopped, also meanwhile, the block ended with it."""
        if not self.is_running:
            coroutine.close()
            return
        try:
            self.run(coroutine)
        except ConnectionClosed:
            if self.is_running:
                raise

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Begin to run a coroutine in the thread; the future has what it gives or raises.

        The future is cancelled if the thread is stopped meanwhile. Raises as `run` does, and closes the coroutine.
        """
        try:
            self._check_process()
            with self._gate:
                self._check()
                return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RabbitryError:
            coroutine.close()
            raise

    def post(self, call: Callable[[], None]) -> None:
        """Have something called in the thread, after what was posted before. Raises as `run` does."""
        self.check()
        self._posted.append(call)
        # The loop clears the flag before it takes what was posted, so a call that sees it set is taken.
        if not self._is_woken:
            with self._gate:
                self._check()
                self._is_woken = True
                self.loop.call_soon_threadsafe(self._take_posted)

    def stop(self) -> None:
        """Cancel what still runs, close the loop and wait for the thread. Does nothing the second time."""
        if os.getpid() != self._pid:
            return
        with self._gate:
            if self._stopped:
                return
            self._stopped = True
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_TIMEOUT)

    def end_soon(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `last` in the thread and then end it, without waiting: for a finalizer, in whatever thread it runs.

        Takes no lock, which that thread may be holding. Does nothing if `is_running` is false.
        """
        if self.is_running:
            self._stopped = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the interpreter is ending
                self.loop.call_soon_threadsafe(self._end_after, last)

    def _end_after(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._last = self.loop.create_task(last())
        self._last.add_done_callback(lambda done: self.loop.stop())

    @property
    def is_running(self) -> bool:
        """Whether the thread takes calls: it was not stopped, and is this process's."""
        return not self._stopped and os.getpid() == self._pid

    def check(self) -> None:
        """Raise what `run` and `post` raise if they can't be used."""
        self._check_process()
        self._check()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # before the gate, which the parent may have held
            raise UsedAfterFork.here(self._pid)

    def _check(self) -> None:
        if self._stopped:
            raise _closed()
        if threading.get_ident() == self._thread.ident:
            raise UsageError("this is the I/O thread itself: what waits for it here would wait for ever")

    def _take_posted(self) -> None:
        self._is_woken = False
        posted = self._posted
        for _ in range(len(posted)):
            posted.popleft()()
        if posted and not self._is_woken:
            self._is_woken = True
            self.loop.call_soon(self._take_posted)

    def _serve(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


def _closed() -> ConnectionClosed:
    return ConnectionClosed(0, "the connection was closed by this program")
