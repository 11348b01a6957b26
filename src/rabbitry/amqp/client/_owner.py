"""The process and the event loop that a connection belongs to.

A forked child must not write to its parent's socket, and writes from another event loop would race.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from rabbitry.exceptions import UsageError

if TYPE_CHECKING:

    class Owned(Protocol):
        """A connection of one process and one event loop."""

        def on_fork(self, parent: int) -> None:
            """Abandon the connection in a child of the process that opened it."""

        def check_process(self) -> None:
            """Raise UsedAfterFork if the connection belongs to the parent process."""


_connections: Final[weakref.WeakSet[Owned]] = weakref.WeakSet()


def note(connection: Owned) -> None:
    """Register a connection, which is then told when it is in a child process."""
    _connections.add(connection)


def _in_the_child() -> None:
    for connection in list(_connections):
        connection.on_fork(os.getppid())


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_the_child)


_NO_LOOP: Final = (
    "no asyncio event loop is running: the client works on asyncio only (not on trio), in the loop that it was "
    "connected in; use rabbitry.connect_blocking, or asyncio.run_coroutine_threadsafe"
)


def check_asyncio() -> None:
    """Raise UsageError if no asyncio event loop is running, as under trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise UsageError(_NO_LOOP) from error


def check_loop(loop: asyncio.AbstractEventLoop, connection: Owned | None = None) -> None:
    """Raise UsageError unless `loop` is the running one; UsedAfterFork for a connection of the parent process.

    Python 3.11 makes a system call for the process id, which costs 0.3 µs: a consumer checks once per batch.
    """
    try:
        if asyncio.get_running_loop() is loop:
            return
    except RuntimeError as error:
        if connection is not None:
            connection.check_process()
        raise UsageError(_NO_LOOP) from error
    raise UsageError(
        "this connection belongs to another event loop, and nothing was sent: connect in this loop, "
        "use rabbitry.connect_blocking, or asyncio.run_coroutine_threadsafe"
    )
