"""A connection belongs to the process that made it: a child made by fork must not write to its socket."""

import os
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry.amqp.client.connection import Connection

_connections: "Final[weakref.WeakSet[Connection]]" = weakref.WeakSet()


def note(connection: "Connection") -> None:
    """Register a connection, so that it knows when it is in a child process."""
    _connections.add(connection)


def _in_the_child() -> None:
    for connection in list(_connections):
        connection.on_fork(os.getppid())


os.register_at_fork(after_in_child=_in_the_child)
