"""Listening sockets, and the name of the program that holds a port that is taken. Imports nothing heavy."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from pathlib import Path
from typing import Final

from rabbitry.exceptions import UsageError
from rabbitry.runtime.parent import LISTENER

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
_TRIES: Final = 20


class PortTaken(UsageError):
    """Another program listens on the port; the text names the port and, if it can be seen, the program."""


def open_listeners(host: str, port: int, backlog: int = 1024) -> list[socket.socket]:
    """Return sockets that listen on a port. For `localhost` these are 127.0.0.1 and ::1, if the machine has both.

    Port 0 takes a free port, the same for both.

    Raises:
        OSError: The port can't be listened on.
    """
    if host != "localhost":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return [socket.create_server((host, port), family=family, backlog=backlog)]
    for tries_left in reversed(range(_TRIES)):
        first = socket.create_server(("127.0.0.1", port), backlog=backlog)
        try:
            return [first, socket.create_server(("::1", first.getsockname()[1]), family=socket.AF_INET6)]
        except OSError as error:
            if error.errno in _NO_IPV6:
                return [first]
            first.close()
            if port or not tries_left or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("the last try returns or raises")


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen: for `localhost` one for each family; port 0 takes a free one.

    Raises:
        PortTaken: Another program listens there.
        UsageError: The address is not this machine's, or only root may use the port.
    """
    try:
        return open_listeners(host, port, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port} is taken{by_whom(port)}: end that, or choose another port") from error
        why = (error.strerror or str(error)).partition(" (while")[0]  # `socket` adds the address once more
        raise UsageError(f"can't listen on {host} port {port}: {why}") from error


def inherit_or_listen(host: str, port: int, variable: str = LISTENER) -> list[socket.socket]:
    """Return the socket that `rabbitry up` opened for this process, or else sockets as `listen` does.

    Args:
        host: The address to listen on.
        port: The port.
        variable: The environment variable that names the inherited socket.

    Raises:
        PortTaken: Another program listens there.
        UsageError: The address is not this machine's, or only root may use the port.
    """
    inherited = os.environ.pop(variable, None)
    return listen(host, port) if inherited is None else [socket.socket(fileno=int(inherited))]


def by_whom(port: int) -> str:
    """Return ` by COMMAND (process ID)` if this user may see which process listens on a port, or else an empty text."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f" by {command(process.cmdline(), process.name())} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass  # not for this user's eyes
    return ""


def command(words: list[str], name: str) -> str:
    """Return a process's command without possible secrets, such as `rabbitry broker`, `python3 serve.py`, `beam.smp`.

    Args:
        words: The process's command line; empty if it can't be seen.
        name: The system's name of the process.
    """
    if not words:
        return name
    shown, rest = [Path(words[0]).name], words[1:]
    if shown[0].startswith("python"):
        if "-m" in rest[:-1]:
            place = rest.index("-m") + 1
        else:
            place = next((index for index, word in enumerate(rest) if not word.startswith("-")), len(rest))
        shown += [Path(word).name for word in rest[place : place + 1]]
        rest = rest[place + 1 :]
    if shown[-1] != "rabbitry":
        return " ".join(shown)
    subcommand = list(itertools.takewhile(str.isalpha, rest))
    return " ".join(["rabbitry", *subcommand])
