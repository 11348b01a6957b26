"""The HTTP server of the management API, on the broker's own event loop."""

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from rabbitry._accepting import Visitor
from rabbitry._connections import Connections, LimitedProtocol
from rabbitry.broker.management.app import make_app
from rabbitry.broker.management.pace import Pace
from rabbitry.broker.management.rates import Rates

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker

_STOP_TIMEOUT = 3
_CONNECTIONS: Final = 512
"""Connections at once, of one address or of many: programs that watch a broker are often on one machine."""


class ManagementServer:
    """The HTTP server of a broker's management API, on sockets that listen already."""

    def __init__(self, broker: "Broker", listeners: list[socket.socket]) -> None:
        pace = Pace()
        connections = Connections(_CONNECTIONS, _CONNECTIONS)

        class Http(LimitedProtocol):
            connections_in_use = connections
            visitor: Visitor

            def connection_lost(self, exc: Exception | None) -> None:
                self.visitor.leave()
                super().connection_lost(exc)

        self._protocol = Http
        self._broker = broker
        self._rates = Rates(broker, pace)
        self._config = uvicorn.Config(
            make_app(broker, self._rates, pace),
            http=Http,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_STOP_TIMEOUT,
            ws="none",
        )
        self._server = uvicorn.Server(self._config)
        self._listeners = listeners
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        self._rates.start()
        self._config.load()
        for listener in self._listeners:
            self._broker.acceptor.add(listener, self._make)
        self._task = asyncio.create_task(self._serve(), name="management")

    def _make(self, visitor: Visitor) -> asyncio.Protocol:
        """Return the protocol of a connection, which always counts as one without a login: requests can be repeated."""
        protocol = self._protocol(self._config, self._server.server_state, {})
        protocol.visitor = visitor
        return protocol

    async def _serve(self) -> None:
        # `serve` would take over the process's signals. Its connections come from the broker's acceptor.
        await self._server._serve([])

    async def stop(self) -> None:
        """Finish what is in hand, within a few seconds, and stop."""
        try:
            await self._rates.stop()
        finally:
            for listener in self._listeners:
                self._broker.acceptor.remove(listener)
            self._server.should_exit = True
            if self._task is not None:
                await self._task
