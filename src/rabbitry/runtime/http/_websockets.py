"""WebSockets within the limits of `connections`: a module of its own, since the package for them takes 0.6 MiB."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from rabbitry.runtime.http.connections import Connections, Phase, peer_of


class CountedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, counted as a connection until its last byte, since a peer may never answer the close."""

    connections_in_use: ClassVar[Connections]

    @property
    def phase(self) -> Phase:
        """The phase of the connection. One that is closed on this side waits only for its peer."""
        return Phase.BODY if self.close_sent else Phase.ANSWER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        super().connection_made(transport)
        self.connections_in_use.add(self, peer_of(self.client))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.connections_in_use.leave(self)
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:  # uvicorn's own type of it is private
        """Send a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # uvicorn leaves this out when a handshake is refused in words, and logs each such refusal as an error.
            self.handshake_complete = True

    def give_up(self, reason: str) -> None:
        """Drop the connection; its close frame has said why."""
        self.transport.abort()
