"""The socket between `rabbitry up`, or `rabbitry worker --processes`, and each of its children, in RABBITRY_PARENT.

Over it the child reports that it is ready, or why it ends. However the parent ends, even by SIGKILL, the kernel closes
the parent's end, and the child then stops as if it had got SIGTERM. This works even if the parent dies before the child
looks.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from rabbitry.runtime.interrupt import signal_self

PARENT: Final = "RABBITRY_PARENT"
"""Environment variable with the number of the child's end of the socket; on Windows, with what `address_of` returns."""
LISTENER: Final = "RABBITRY_LISTENER"
"""Environment variable with the number of a socket that listens already; `rabbitry up` hands it over."""
MANAGEMENT_LISTENER: Final = "RABBITRY_MANAGEMENT_LISTENER"
"""The same for a second socket of the broker, that of its management API."""
DATABASE: Final = "RABBITRY_DATABASE"
"""Environment variable with the URL of the apps' records, which may share a database."""
RECORDS_FOLDER: Final = "RABBITRY_RECORDS_FOLDER"
"""Environment variable with the folder of the apps' records, in which each has a file; `rabbitry up` sets it."""


@dataclass(frozen=True, slots=True)
class Report:
    """A child's report: it is ready, or the error that ends it and whether a restart could help."""

    error: str | None = None
    is_transient: bool = False


_logger = logging.getLogger(__name__)
_PORT: Final = "port "
_LONGEST: Final = 8000
"""Letters of an error that are reported; a line has to fit the parent's buffer (64 KiB)."""


class Parent:
    """The child's side."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def report(self, report: Report) -> None:
        """Send a report. A parent that is gone misses it."""
        error = report.error and report.error[:_LONGEST]
        line = json.dumps({"error": error, "is_transient": report.is_transient}) + "\n"
        with contextlib.suppress(OSError):
            self._end.sendall(line.encode())

    def watch(self, patience: float) -> None:
        """Stop this process with SIGTERM when the parent ends, and with exit code 1 `patience` seconds later."""

        def watch() -> None:
            with contextlib.suppress(OSError):
                self._end.recv(1)  # the parent writes nothing: it returns when the other end is closed
            signal_self(signal.SIGTERM)
            time.sleep(patience)
            os._exit(1)

        # A thread, so that it works even if the event loop hangs; daemon, since it waits for ever.
        threading.Thread(target=watch, name="parent", daemon=True).start()


@functools.cache
def parent() -> Parent | None:
    """Return this process's parent if RABBITRY_PARENT names one. Processes that it starts do not inherit the socket."""
    name = os.environ.pop(PARENT, None)
    if name is None:
        return None
    port, _, secret = name.removeprefix(_PORT).partition(" ")
    if not secret:
        end = socket.socket(fileno=int(name))
        end.set_inheritable(False)
        return Parent(end)
    try:
        end = socket.create_connection(("127.0.0.1", int(port)))
        end.sendall(f"{secret}\n".encode())
    except OSError:  # it is gone already
        end, other = socket.socketpair()
        other.close()
    return Parent(end)


def address_of(port: int, secret: str) -> str:
    """Return the value of RABBITRY_PARENT for a child that is to connect to a port of this machine."""
    return f"{_PORT}{port} {secret}"


def ready(what: str = "") -> None:
    """Report that this process has started well: if it fails from now on, a restart may help.

    Args:
        what: A line for the log. It is logged at debug level if `rabbitry up` started this process, which logs itself.
    """
    found = parent()
    if found is not None:
        found.report(Report())
    if what:
        _logger.log(logging.INFO if found is None else logging.DEBUG, "%s", what)


def read_report(line: bytes) -> Report:
    """Read a line that a child sent."""
    return Report(**json.loads(line))
