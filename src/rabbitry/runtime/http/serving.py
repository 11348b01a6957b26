"""Serving HTTP inside a process that does other work, too, and handles its signals itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from rabbitry.runtime.accepting import Acceptor, Visitor
from rabbitry.runtime.http.connections import Connections, LimitedProtocol

GRACE = 5
"""Seconds that open requests have to finish at the end."""


class Server(uvicorn.Server):
    """An HTTP server that limits its connections and does not handle signals.

    It listens on no socket itself: its connections come from an `Acceptor`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        connections: Connections | None = None,
        websockets: bool = True,
        grace: int = GRACE,
        started: Callable[[], None] | None = None,
    ) -> None:
        """Load everything that the server needs.

        Args:
            app: Answers the requests.
            connections: The limits of the connections; None for the usual ones.
            websockets: Whether `app` serves WebSockets; otherwise they are refused.
            grace: Seconds that open requests have to finish at the end.
            started: Called when requests are answered.

        Raises:
            SystemExit: a package that uvicorn loads fails.
        """
        limits = Connections() if connections is None else connections

        class Http(LimitedProtocol):
            connections_in_use = limits

        config = uvicorn.Config(
            app,
            http=Http,
            ws=_websocket(limits) if websockets else "none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=grace,
        )
        config.load()
        super().__init__(config)
        self._http = Http
        self._started = started

    def accept(self, visitor: Visitor) -> asyncio.Protocol:
        """Return the protocol of a connection that an `Acceptor` took."""
        protocol = self._http(self.config, self.server_state, self.lifespan.state)
        protocol.visitor = visitor
        return protocol

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application."""
        await super().startup(sockets)
        if self.started and self._started is not None:
            self._started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals: the program that runs the server does."""
        yield


def _websocket(limits: Connections) -> type[asyncio.Protocol]:
    """Return the protocol of a server's WebSockets."""
    from rabbitry.runtime.http._websockets import CountedWebSocket

    class WebSocket(CountedWebSocket):
        connections_in_use = limits

    return WebSocket


async def serve(
    app: ASGIApp, listeners: Sequence[socket.socket], stop: asyncio.Event, started: Callable[[], None] | None = None
) -> None:
    """Serve `app` until `stop` is set, then finish the requests in progress. Cancelling drops them.

    `started` is called once requests are answered.
    """
    acceptor = Acceptor()

    def accept() -> None:
        for listener in listeners:
            acceptor.add(listener, server.accept)
        if started is not None:
            started()

    server = Server(app, started=accept)
    serving = asyncio.create_task(server.serve(sockets=[]), name="http")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        await acceptor.close()
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        serving.cancel()
        await asyncio.wait((serving, stopping))
        for listener in listeners:
            acceptor.remove(listener)
        await acceptor.close()
