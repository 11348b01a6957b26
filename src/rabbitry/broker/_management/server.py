"""The HTTP server of the management API, on the broker's own event loop."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from rabbitry.broker._management.app import make_app
from rabbitry.broker._management.changes import Changes
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.rates import Rates
from rabbitry.broker.broker import Broker
from rabbitry.runtime.http.connections import Connections
from rabbitry.runtime.http.serving import Server

_GRACE: Final = 3
"""Seconds that open requests have to finish when the server stops."""
_CONNECTIONS: Final = 512
"""Most simultaneous connections, in total and of one address: programs that watch a broker often share a machine."""


class ManagementServer:
    """The HTTP server of a broker's management API, on listening sockets."""

    def __init__(self, broker: Broker, listeners: list[socket.socket]) -> None:
        pace = Pace()
        self._rates = Rates(broker, pace)
        self._changes = Changes(broker, pace)
        self._acceptor = broker.acceptor
        self._server = Server(
            make_app(broker, self._rates, pace, self._changes),
            connections=Connections(_CONNECTIONS, _CONNECTIONS),
            websockets=False,
            grace=_GRACE,
        )
        self._listeners = listeners
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to serve."""
        self._rates.start()
        for listener in self._listeners:
            self._acceptor.add(listener, self._server.accept)
        # It listens on no socket itself: its connections come from the broker's acceptor.
        self._task = asyncio.create_task(self._server.serve(sockets=[]), name="management")

    async def stop(self) -> None:
        """Finish the requests in progress, within a few seconds, and stop."""
        self._changes.end()
        try:
            await self._rates.stop()
        finally:
            for listener in self._listeners:
                self._acceptor.remove(listener)
            self._server.should_exit = True
            if self._task is not None:
                await self._task
