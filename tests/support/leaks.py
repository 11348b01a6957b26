"""Counting what a test leaves behind: asyncio tasks, threads and file descriptors."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rabbitry.runtime.io_thread import new_event_loop

# With its first loop uvloop opens a pipe for signals, and keeps it for the life of the process.
new_event_loop().close()


@asynccontextmanager
async def no_leaks_in_block(within: float = 30.0) -> AsyncIterator[None]:
    """Raise AssertionError when the block leaves tasks of this loop, threads or file descriptors behind.

    What is on its way out gets `within` seconds to go. Threads of asyncio's own executor don't count: they
    live as long as the loop.
    """
    tasks, threads, descriptors = asyncio.all_tasks(), _threads(), _descriptors()

    def left() -> list[str]:
        return [
            *(f"task {task!r}" for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task()),
            *(f"thread {thread!r}" for thread in _threads() - threads),
            *(f"file descriptor {number} -> {target}" for number, target in _descriptors() - descriptors),
        ]

    yield
    deadline = time.monotonic() + within
    while remains := left():
        if time.monotonic() > deadline:
            raise AssertionError("left behind:\n" + "\n".join(remains))
        await asyncio.sleep(0.01)


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
        except FileNotFoundError:
            continue  # the one that listed the folder
    return found
