"""Counting what a test leaves behind: asyncio tasks, threads and file descriptors."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_DEADLINE = 5.0


@asynccontextmanager
async def no_leaks_in_block() -> AsyncIterator[None]:
    """Raise AssertionError when the block leaves tasks of this loop, threads or file descriptors behind.

    What is on its way out gets five seconds to go. Threads of asyncio's own executor don't count: they
    live as long as the loop.
    """
    tasks, threads, descriptors = asyncio.all_tasks(), _threads(), _descriptors()

    def left() -> list[str]:
        return [
            *(f"task {task!r}" for task in asyncio.all_tasks() - tasks),
            *(f"thread {thread!r}" for thread in _threads() - threads),
            *(f"file descriptor {number} -> {target}" for number, target in _descriptors() - descriptors),
        ]

    yield
    try:
        async with asyncio.timeout(_DEADLINE):
            while left():
                await asyncio.sleep(0.01)
    except TimeoutError:
        remains = "\n".join(left())
        raise AssertionError(f"left behind:\n{remains}") from None


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
