"""Serving HTTP inside a process that also does other things, and that minds its signals itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from rabbitry._connections import Connections, CountedWebSocket, LimitedProtocol

GRACE = 5
"""Seconds that open requests have to finish at the end."""


async def serve(
    app: ASGIApp, listeners: Sequence[socket.socket], stop: asyncio.Event, started: Callable[[], None] | None = None
) -> None:
    """Serve `app` until `stop` is set, then finish the requests in hand. Cancelling drops them.

    `started` is called when requests are answered.
    """

    connections = Connections()

    class Http(LimitedProtocol):
        connections_in_use = connections

    class WebSocket(CountedWebSocket):
        connections_in_use = connections

    config = uvicorn.Config(
        app,
        http=Http,
        ws=WebSocket,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    server.started_callback = started
    serving = asyncio.create_task(server.serve(sockets=list(listeners)), name="http")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        serving.cancel()
        for listener in listeners:
            listener.close()


class _Server(uvicorn.Server):
    started_callback: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.started_callback is not None:
            self.started_callback()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs this process."""
        yield
