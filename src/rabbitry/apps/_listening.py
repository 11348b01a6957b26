"""Taking a port, and saying who has it where it is taken. Imports nothing heavy."""

from __future__ import annotations

import errno
import socket

from rabbitry.exceptions import UsageError


class PortTaken(UsageError):
    """Another program listens on the port; the text names the port and, where it can be seen, the program."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        PortTaken: another program listens there.
        UsageError: the address is not this machine's, or the port is for root alone.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port} is taken{by_whom(port)}: end that, or choose another port") from error
        why = (error.strerror or str(error)).partition(" (while")[0]  # `socket` adds the address once more
        raise UsageError(f"can't listen on {host} port {port}: {why}") from error


def by_whom(port: int) -> str:
    """` by NAME (process ID)` where this user may see who listens on a port, else nothing."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass  # not for this user's eyes
    return ""
