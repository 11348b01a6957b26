"""Running a service until it is told to stop: by a signal, or because the process that started it is gone.

The first SIGINT or SIGTERM asks the service to finish, within a deadline; the second ends the process at
once. The end of the process that started it (`_parent`) counts as SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
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

log = logging.getLogger("rabbitry.cli")


def run_service(
    service: Callable[[asyncio.Event], Coroutine[Any, Any, int]],
    *,
    deadline: float = DEADLINE,
    give_up: Callable[[], Coroutine[Any, Any, None]] | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run `service(stop)` in an event loop of its own and return its exit code.

    new_loop: makes the event loop; None for asyncio's own.

    `stop` is set by the first SIGINT or SIGTERM. A service that has not returned `deadline` seconds later is
    cancelled, which counts as failed (1). The second signal ends the process at once with 130, also while it waits
    for threads that do not end; `give_up` is awaited before, for HURRY seconds at most, or until a third one.
    """
    above = parent()
    if above is not None:
        above.watch(deadline + 2 * GRACE)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_supervise(service, deadline, give_up))
    finally:
        # Closing the loop took its handlers away.
        for number in SIGNALS:
            signal.signal(number, lambda *_: _exit_at_once(ExitCode.INTERRUPTED))


def run_once(work: Coroutine[Any, Any, int], *, is_endless: bool = False) -> int:
    """Run `work` in an event loop of its own and return its exit code.

    The first SIGINT or SIGTERM cancels it and ends the process, with 130 since the work is left undone; where it
    `is_endless`, as what follows or watches something, with 0. It has GRACE seconds to close what it opened.
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


async def _supervise(
    service: Callable[[asyncio.Event], Coroutine[Any, Any, int]],
    deadline: float,
    give_up: Callable[[], Coroutine[Any, Any, None]] | None,
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.ensure_future(service(stop))
    giving_up: asyncio.Task[None] | None = None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        log.error("not finished %g s after the signal: cancelled", deadline)
        task.cancel()
        loop.call_later(GRACE, _exit_at_once, ExitCode.FAILED)

    def on_signal() -> None:
        nonlocal giving_up
        if not stop.is_set():
            stop.set()
            loop.call_later(deadline, expire)
        elif give_up is None or giving_up is not None or task.done():
            _exit_at_once(ExitCode.INTERRUPTED)
        else:
            giving_up = asyncio.create_task(give_up())
            giving_up.add_done_callback(lambda _: _exit_at_once(ExitCode.INTERRUPTED))
            loop.call_later(HURRY, _exit_at_once, ExitCode.INTERRUPTED)

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        code = await task
        if giving_up is not None:
            await giving_up  # which ends the process
        return code  # closing the loop, which may wait for threads, takes the handlers away
    except asyncio.CancelledError:
        if not expired:
            raise
        return ExitCode.FAILED


def _exit_at_once(code: int) -> NoReturn:
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")  # a table that updates in place had hidden the cursor
    sys.stdout.flush()
    os._exit(code)
