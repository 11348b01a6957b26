"""The children of a `rabbitry up` that the launcher has started, as forks of it.

With a Python of its own a child imports, for half a second of CPU, what `up` has imported already. Apart from that it
is as after `exec`: a process with its own session, environment, descriptors and signals. `ps` shows the launcher's
command line; `children_of` knows a child by the name that it has here.
"""

import asyncio
import contextlib
import functools
import gc
import os
import signal
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rabbitry.runtime.parent import parent

EXECUTED: Final = {"TESTS_EXECUTE_CHILDREN": "1"}
"""The environment of a `rabbitry up` that starts its children as it does for users."""
_START: Final = (sys.executable, "-P", "-m", "rabbitry")

Run = Callable[[Sequence[str], Mapping[str, str]], None]
"""Runs the command with these arguments in this environment, and ends the process."""


def fork_children(run: Run) -> None:
    """Have asyncio fork this process for each `rabbitry` that it is to start, unless its environment has EXECUTED.

    One with a PYTHONPATH still gets a Python of its own: tests put there what is to be imported at its start.
    """
    if EXECUTED.items() <= os.environ.items():
        return
    execute = asyncio.create_subprocess_exec

    @functools.wraps(execute)
    async def create(*command: str, **options: Any) -> asyncio.subprocess.Process:
        if command[: len(_START)] == _START and "PYTHONPATH" not in options["env"]:
            # Called in the child when all is as it should be for `exec`, to which it does not come.
            options["preexec_fn"] = functools.partial(
                _become, asyncio.current_task(), options["pass_fds"], run, command[len(_START) :], options["env"]
            )
        return await execute(*command, **options)

    asyncio.create_subprocess_exec = create  # type: ignore[assignment] # what the commands call, with fewer types


def _become(
    task: asyncio.Task[Any] | None,
    kept: Sequence[int],
    run: Run,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    """Leave the parent's event loop behind, and run the command."""
    Path("/proc/self/comm").write_text(f":{arguments[0]}")
    gc.freeze()  # the parent's objects are never freed: they would close descriptors that are this process's by then
    weakref.finalize._registry.clear()  # type: ignore[attr-defined] # or they would delete the parent's folders
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The parent forked in this task. From Python 3.14 on, a fork has left it already.
    if task is not None and asyncio.current_task(task.get_loop()) is task:
        asyncio.tasks._leave_task(task.get_loop(), task)
    asyncio._set_running_loop(None)
    parent.cache_clear()
    for descriptor in {int(number) for number in os.listdir("/proc/self/fd")} - {0, 1, 2, *kept}:
        with contextlib.suppress(OSError):  # the one that listed them is closed already
            os.close(descriptor)  # one of them tells the parent that the child has got this far
    run(arguments, environment)
