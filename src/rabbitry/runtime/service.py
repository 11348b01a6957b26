"""Running a service until a signal stops it, or until the process that started it is gone.

The first SIGINT or SIGTERM asks the service to finish within a deadline; the second ends the process at once. The end
of the process that started it (`parent`) counts as SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn

from rabbitry.runtime.interrupt import SIGNALS
from rabbitry.runtime.output import ExitCode, say
from rabbitry.runtime.parent import parent

DEADLINE = 10.0
"""Seconds that a service has to finish what is in hand."""
GRACE = 2.0
"""Seconds beyond the deadline that it has to clean up once it was cancelled."""
HURRY = 1.0
"""Seconds that it has to give up what is in hand after a second signal."""

_logger = logging.getLogger(__name__)


def run_service(
    service: Callable[[asyncio.Event], Coroutine[Any, Any, int]],
    *,
    deadline: float = DEADLINE,
    give_up: Callable[[], Coroutine[Any, Any, None]] | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run `service(stop)` in a new event loop and return its exit code.

    `stop` is set by the first SIGINT or SIGTERM. A service that has not returned `deadline` seconds later is cancelled,
    which counts as failed (1). The second signal ends the process at once with 130, also while it waits for threads
    that do not end; `give_up` is awaited before, for HURRY seconds at most, or until a third one.

    Args:
        service: The service, called with the event that tells it to stop.
        deadline: Seconds after the first signal at which the service is cancelled.
        give_up: Called at the second signal, to return unfinished work to the broker.
        new_loop: Makes the event loop; None for asyncio's own.
    """
    above = parent()
    if above is not None:
        above.watch(deadline + 2 * GRACE)
    gc.freeze()  # what is imported stays: keep the garbage collector from scanning it again and again
    with _wakeups() as wakeups, asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        supervisor = _Supervisor(loop, wakeups, deadline, give_up)
        for number in SIGNALS:
            # Before the loop runs, which would log and drop an Interrupted that is raised in one of its callbacks; and
            # not by the loop's add_signal_handler: uvloop's works in a loop that runs alone, and asyncio's goes with
            # the loop, while Python may still wait for a thread.
            signal.signal(number, supervisor.on_signal)
        return runner.run(supervisor.run(service))


@contextlib.contextmanager
def _wakeups() -> Iterator[socket.socket]:
    """Make each signal send a byte to a socket.

    It wakes up the loop that reads there, also if the kernel has given the signal to another thread.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(-1)


def run_once(work: Coroutine[Any, Any, int], *, is_endless: bool = False) -> int:
    """Run `work` in a new event loop and return its exit code.

    The first SIGINT or SIGTERM cancels the work and ends the process. The exit code is then 130, since the work is
    unfinished, or 0 if the work `is_endless`, such as following or watching something. The work has GRACE seconds to
    clean up.
    """

    async def service(stop: asyncio.Event) -> int:
        task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait((task,), timeout=GRACE)
        if not is_endless:
            say("interrupted")
        # A thread that reads stdin would keep the process until a line comes.
        _exit_at_once(ExitCode.DONE if is_endless else ExitCode.INTERRUPTED)

    return run_service(service, deadline=2 * GRACE)


class _Supervisor:
    """A service and the signals that end it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wakeups: socket.socket,
        deadline: float,
        give_up: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> None:
        self._loop = loop
        self._wakeups = wakeups
        self._deadline = deadline
        self._give_up = give_up
        self._stop = asyncio.Event()
        self._task: asyncio.Task[int] | None = None
        self._giving_up: asyncio.Task[None] | None = None
        self._is_expired = False

    async def run(self, service: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
        """Run the service and return its exit code."""
        self._task = asyncio.ensure_future(service(self._stop))
        draining = asyncio.create_task(self._drain(), name="wakeups")
        try:
            code = await self._task
            if self._giving_up is not None:
                await self._giving_up  # which ends the process
            return code
        except asyncio.CancelledError:
            if not self._is_expired:
                raise
            return ExitCode.FAILED
        finally:
            draining.cancel()

    async def _drain(self) -> None:
        """Read what signals send, so that each wakes up the loop. Windows' loop gets them itself, and reads nothing."""
        while True:
            await self._loop.sock_recv(self._wakeups, 4096)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal: in the loop, and at once if the loop has been closed."""
        if self._loop.is_closed():  # and Python waits for a thread
            _exit_at_once(ExitCode.INTERRUPTED)
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        """Ask the service to finish; the second time, end the process at once."""
        if not self._stop.is_set():
            self._stop.set()
            self._loop.call_later(self._deadline, self._expire)
        elif self._give_up is None or self._giving_up is not None or self._is_done():
            _exit_at_once(ExitCode.INTERRUPTED)
        else:
            self._giving_up = asyncio.create_task(self._give_up())
            self._giving_up.add_done_callback(self._gave_up)
            self._loop.call_later(HURRY, _exit_at_once, ExitCode.INTERRUPTED)

    def _gave_up(self, giving_up: asyncio.Task[None]) -> None:
        if not giving_up.cancelled() and (error := giving_up.exception()) is not None:
            _logger.error("not everything in hand was given back", exc_info=error)
        _exit_at_once(ExitCode.INTERRUPTED)

    def _is_done(self) -> bool:
        return self._task is not None and self._task.done()

    def _expire(self) -> None:
        self._is_expired = True
        _logger.error("not finished %g s after the signal: cancelled", self._deadline)
        if self._task is not None:
            self._task.cancel()
        self._loop.call_later(GRACE, _exit_at_once, ExitCode.FAILED)


def _exit_at_once(code: int) -> NoReturn:
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")  # a table that updates in place had hidden the cursor
    sys.stdout.flush()
    os._exit(code)
