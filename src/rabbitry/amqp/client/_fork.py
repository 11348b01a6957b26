"""The rule that a connection belongs to its process: a forked child must not write to its parent's socket."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Owned(Protocol):
    """A connection of one process."""

    def on_fork(self, parent: int) -> None:
        """Abandon the connection in a child of the process that opened it."""


_connections: Final[weakref.WeakSet[Owned]] = weakref.WeakSet()


def note(connection: Owned) -> None:
    """Register a connection, which is then told when it is in a child process."""
    _connections.add(connection)


def _in_the_child() -> None:
    for connection in list(_connections):
        connection.on_fork(os.getppid())


os.register_at_fork(after_in_child=_in_the_child)
