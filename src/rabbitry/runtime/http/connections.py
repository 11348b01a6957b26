"""Limits on HTTP connections that uvicorn lacks: on the time of a request, and on the connections of each peer.

Without them, a client that sends a header byte by byte, or nothing at all, holds a connection for as long as it likes,
and a few hundred such connections shut out everybody else. WebSockets count as connections, too; the code that accepts
WebSockets limits their number.
"""

from __future__ import annotations

import asyncio
import enum
from typing import ClassVar, Protocol

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rabbitry.runtime.accepting import Visitor
from rabbitry.runtime.addresses import network_of

CONNECTIONS = 256
"""Connections that are open at once."""
PEER_CONNECTIONS = 64
"""Connections that one address has at once."""
HEAD_WITHIN = 10.0
"""Seconds in which the next request's header must have come."""
REQUEST_WITHIN = 60.0
"""Seconds in which a request must have come, header and body."""
ANSWER_WITHIN = 120.0
"""Seconds in which a request is answered and its answer read."""
LINGER = 2.0
"""Seconds that a peer has to read the last words of a connection that is given up."""
LINGERING = 64
"""Connections that wait for that; beyond, the oldest of them is dropped."""


class Phase(enum.Enum):
    """The phases of a connection, by what it waits for."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()


class Connection(Protocol):
    """A connection, as far as its limits need to know it."""

    @property
    def phase(self) -> Phase:
        """What it waits for now."""

    def give_up(self, reason: str) -> None:
        """Close the connection, whatever the peer does."""


class Connections:
    """The connections of one server, from the oldest to the newest.

    Args:
        most: The most connections at once.
        most_of_peer: The most connections of one address.
    """

    def __init__(self, most: int = CONNECTIONS, most_of_peer: int = PEER_CONNECTIONS) -> None:
        self._most = most
        self._most_of_peer = most_of_peer
        self._open: dict[Connection, str] = {}
        self._lingering: dict[LimitedProtocol, None] = {}

    def add(self, connection: Connection, peer: str) -> None:
        """Add a connection that replaces an admitted one, such as a WebSocket."""
        self._open[connection] = peer

    def admit(self, connection: Connection, peer: str) -> bool:
        """Admit a new connection. If there are too many, close one that waits for its peer.

        The closed connection is the oldest one of this peer if the peer has too many, or else of the peer that has the
        most. Of that peer's connections, one without a request is closed before one whose body is still coming.
        Connections that are being answered stay; if there are no others, the new connection is refused.

        Returns:
            Whether the new connection was admitted.
        """
        of_peer = [other for other, owner in self._open.items() if owner == peer]
        if len(of_peer) >= self._most_of_peer:
            candidates = of_peer
        elif len(self._open) >= self._most:
            owners = list(self._open.values())
            most = max(dict.fromkeys(owners), key=owners.count)
            candidates = [other for other, owner in self._open.items() if owner == most]
        else:
            candidates = []
        if candidates:
            waiting = [other for phase in (Phase.HEAD, Phase.BODY) for other in candidates if other.phase is phase]
            if not waiting:
                return False
            self.leave(waiting[0])
            waiting[0].give_up("a newer connection from your address takes this one's place")
        self._open[connection] = peer
        return True

    def leave(self, connection: Connection) -> None:
        """Stop counting a connection; has no effect on one that is not counted."""
        self._open.pop(connection, None)

    def linger(self, connection: LimitedProtocol) -> None:
        """Note that a closed connection waits until its peer has read the last answer, or until `gone`."""
        self._lingering[connection] = None
        if len(self._lingering) > LINGERING:
            next(iter(self._lingering)).drop()

    def gone(self, connection: LimitedProtocol) -> None:
        """Forget a connection that has ended."""
        self.leave(connection)
        self._lingering.pop(connection, None)

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._open)


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol within these limits. A subclass for each server says which connections it is of.

    visitor: how the acceptor counts the connection. If file descriptors are short, the acceptor may close it, unless
    a request is being answered.
    """

    connections_in_use: ClassVar[Connections]
    visitor: Visitor
    phase: Phase = Phase.HEAD
    _begun = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Admit the connection, or refuse it."""
        super().connection_made(transport)
        self._enter(Phase.HEAD)
        if not self.connections_in_use.admit(self, peer_of(self.client)):
            self.give_up("too many connections from your address", status="503 Service Unavailable")

    def data_received(self, data: bytes) -> None:
        """Continue to read the request."""
        if self._timer is not None:  # else it is given up, and what still comes is thrown away
            super().data_received(data)
            self._look()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the connection to the WebSocket's protocol, which counts it from now on."""
        self.visitor.leave()
        self._forget()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be here already."""
        if self._timer is not None:
            self._enter(Phase.HEAD)
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        self.connections_in_use.gone(self)
        self.visitor.leave()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.connections_in_use.gone(self)
        self.transport.abort()

    def give_up(self, reason: str, status: str = "408 Request Timeout") -> None:
        """Close the connection; answer with an error unless an answer has begun. The peer can't keep it open."""
        self._forget()
        cycle = self.cycle
        begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # as connection_lost does: the application is told at once
            cycle.message_event.set()
        if not begun and not self.transport.is_closing():
            text = f"{reason}\n"
            self.transport.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(text)}\r\n"
                f"Connection: close\r\n\r\n{text}".encode("ascii")
            )
        # Closing at once, with bytes of the peer still on their way, would reset the connection and lose the answer.
        # Closing when everything is written would be put off for ever by a peer that reads nothing.
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()
        self.connections_in_use.linger(self)
        self.loop.call_later(LINGER, self.drop)

    def _look(self) -> None:
        """Note what the connection waits for now. Each change starts the time that the peer has for it."""
        cycle = self.cycle
        if self._timer is None:
            return  # given up, lost, or a WebSocket
        if cycle is None or cycle.response_complete:
            phase = Phase.HEAD
        else:
            phase = Phase.BODY if cycle.more_body else Phase.ANSWER
        if phase is not self.phase:
            self._enter(phase)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        if phase is Phase.ANSWER:
            self.visitor.leave()
        else:
            self.visitor.come_back()
        now = self.loop.time()
        if phase is Phase.HEAD:
            self._begun = now
        deadline = {
            Phase.HEAD: self._begun + HEAD_WITHIN,
            Phase.BODY: self._begun + REQUEST_WITHIN,
            Phase.ANSWER: now + ANSWER_WITHIN,
        }[phase]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(deadline, self.give_up, "the request took too long")

    def _forget(self) -> None:
        self.connections_in_use.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def peer_of(client: tuple[str, int] | None) -> str:
    """Return the name under which the connections of a client are counted."""
    return network_of(client[0]) if client else ""
