"""Serving HTTP inside a process that also does other things, and that minds its signals itself."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from warren.exceptions import UsageError

CONCURRENCY = 256
"""Connections and requests that are served at once; more get 503."""
GRACE = 5
"""Seconds that open requests have to finish at the end."""


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
            raise PortTaken(f"port {port} is taken{_by_whom(port)}: end that, or choose another port") from error
        raise UsageError(f"can't listen on {host} port {port}: {error.strerror or error}") from error


async def serve(app: ASGIApp, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve `app` until `stop` is set, then finish the requests in hand. Cancelling drops them."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONCURRENCY,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        serving.cancel()
        listener.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs this process."""
        yield


def _by_whom(port: int) -> str:
    """` by NAME (process ID)` where this user may see who listens on a port."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass  # not for this user's eyes
    return ""
