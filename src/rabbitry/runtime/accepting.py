"""Accepting connections on listening sockets while some file descriptors are reserved for everything else.

A program that accepts connections until it has no file descriptor left can't open files any more, and asyncio's servers
then log every attempt. Here some descriptors are reserved. When the others are used up, connections without a login are
closed first, oldest first, and after them the newest connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from rabbitry.runtime.resources import descriptor_limit, free_descriptors

_logger = logging.getLogger(__name__)
KEPT: Final = 32
"""File descriptors kept for files, threads and connections to elsewhere; a quarter of them all if that is less."""
_AT_ONCE: Final = 4
"""Connections that a socket accepts in one turn of the event loop; fewer than half of what is kept."""
_LOOK_AGAIN: Final = 1.0
"""Seconds between two checks whether descriptors have become free."""
_HANDSHAKE_WITHIN: Final = 10.0
"""Seconds that a client has for the TLS handshake."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NAME_DELETED: Final = 64
"""Windows' error of an accept whose client was gone before."""


class Visitor:
    """A connection that has shown no login yet."""

    def __init__(self, connection: socket.socket, waiting: dict[Visitor, None]) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self._connection = connection
        self._waiting = waiting
        waiting[self] = None

    def leave(self) -> None:
        """Stop counting this connection among those without a login; calling it twice is harmless."""
        self._waiting.pop(self, None)

    def come_back(self) -> None:
        """Count it again, as the newest, since it may be closed without harm: HTTP between two requests."""
        self.leave()
        self._waiting[self] = None

    def drop(self) -> None:
        """Close the connection at once, without sending what is buffered."""
        self.leave()
        if self.transport is not None:
            self.transport.abort()
        else:  # still in the TLS handshake, which fails once the socket is shut down
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)


Factory = Callable[[Visitor], asyncio.BaseProtocol]
"""Makes the protocol of a connection; it calls the visitor's `leave` at the login and when the connection is lost."""


class Acceptor:
    """Accepts the connections of a program's listening sockets, and reserves file descriptors for everything else.

    Args:
        kept: The number of reserved descriptors; None means 32, or a quarter of the process's limit if that is less.
            The limit is read again for each connection, since it may change while the process runs.
    """

    def __init__(self, kept: int | None = None) -> None:
        self.closed: int = 0
        """Connections that were closed for want of descriptors."""
        self.kept = kept
        self._waiting: dict[Visitor, None] = {}
        self._listeners: dict[socket.socket, tuple[Factory, ssl.SSLContext | None]] = {}
        self._accepting: dict[socket.socket, asyncio.Task[None]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None
        self._closed_before = 0

    @property
    def is_short(self) -> bool:
        """Whether connections are being closed because descriptors are used up."""
        return self._look is not None

    @property
    def without_login(self) -> int:
        """Number of connections that have shown no login yet."""
        return len(self._waiting)

    def add(self, listener: socket.socket, factory: Factory, tls: ssl.SSLContext | None = None) -> None:
        """Accept the connections of a socket that listens."""
        listener.setblocking(False)
        self._listeners[listener] = (factory, tls)
        self._accepting[listener] = asyncio.create_task(self._accept(listener), name="accept")

    def remove(self, listener: socket.socket) -> None:
        """Stop accepting on a listening socket and close it soon. Connections accepted before stay open."""
        self._listeners.pop(listener, None)
        accepting = self._accepting.get(listener)
        if accepting is None:
            listener.close()
            return

        def end(_: asyncio.Task[None]) -> None:
            self._accepting.pop(listener, None)
            listener.close()

        # Not before the event loop has stopped to watch it: a new socket with its number would not be watched then.
        accepting.add_done_callback(end)
        accepting.cancel()

    async def close(self) -> None:
        """Close every listening socket, and the connections whose handshake is not over."""
        for listener in list(self._listeners):
            self.remove(listener)
        if self._look is not None:
            self._look.cancel()
            self._look = None
        for visitor in list(self._waiting):
            if visitor.transport is None:
                visitor.drop()
        if ending := {*self._accepting.values(), *self._connecting}:
            await asyncio.wait(ending)

    async def _accept(self, listener: socket.socket) -> None:
        """Accept for ever. The event loop's `sock_accept` is the one way that Windows' loop has, too."""
        loop = asyncio.get_running_loop()
        reported = ""
        while True:
            for _ in range(_AT_ONCE):
                try:
                    connection, _address = await loop.sock_accept(listener)
                except Exception as error:  # of whatever kind, it must not end the listener
                    if isinstance(error, ConnectionError) or getattr(error, "winerror", None) == _NAME_DELETED:
                        continue  # the client was gone first
                    if isinstance(error, OSError) and error.errno in _EXHAUSTED:  # other code has used up the reserve
                        self._run_short(error.strerror or "no descriptors")
                    elif repr(error) != reported:
                        reported = repr(error)
                        trace = None if isinstance(error, OSError) else error  # the system's, not a defect
                        _logger.error("can't accept connections, trying again: %s", error, exc_info=trace)  # noqa: TRY400 # see above
                    await asyncio.sleep(_LOOK_AGAIN)
                    continue
                reported = ""
                if self._makes_room(connection.fileno()):
                    self._welcome(listener, connection)
                else:
                    self.closed += 1
                    connection.close()
            await asyncio.sleep(0)  # a connection that waits is accepted at once: others have their turn

    def _makes_room(self, number: int) -> bool:
        """Return whether a new connection may stay. If descriptors are short, drop one without a login for it.

        The system gives a new descriptor the lowest free number. A number below the reserve therefore proves that the
        reserve is untouched; from the first higher number on, free descriptors are counted, up to the reserve. A
        dropped connection frees its descriptor only in the next turn of the loop, so new ones may use half of the
        reserve until then.

        Args:
            number: the descriptor of the new connection.
        """
        limit, kept = self._limits()
        if number < limit - kept and not self.is_short:
            return True
        free = free_descriptors(kept)
        self._run_short(f"the limit is {limit}")
        if free >= kept:
            return True
        if free < kept // 2 or not self._waiting:
            return False
        self.closed += 1
        next(iter(self._waiting)).drop()
        return True

    def _limits(self) -> tuple[int, int]:
        """Return how many descriptors the process may have, and how many of them are kept."""
        limit = descriptor_limit()
        if limit is None:
            return 1 << 62, 0
        return limit, min(KEPT, limit // 4) if self.kept is None else self.kept

    def _welcome(self, listener: socket.socket, connection: socket.socket) -> None:
        factory, tls = self._listeners[listener]
        visitor = Visitor(connection, self._waiting)
        task = asyncio.create_task(self._connect(factory, tls, connection, visitor), name="accept")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(
        self, factory: Factory, tls: ssl.SSLContext | None, connection: socket.socket, visitor: Visitor
    ) -> None:
        within = _HANDSHAKE_WITHIN if tls is not None else None
        loop = asyncio.get_running_loop()
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # macOS refuses it if the client is gone
            transport, _ = await loop.connect_accepted_socket(
                lambda: factory(visitor), connection, ssl=tls, ssl_handshake_timeout=within
            )
            # A stream's transport can be aborted in every event loop; uvloop's is no subclass of it.
            visitor.transport = cast("asyncio.WriteTransport", transport)
        except (OSError, EOFError) as error:  # ssl.SSLError is an OSError
            _logger.debug("a connection ended in its handshake: %s", error)
            visitor.leave()
            connection.close()
        except Exception:  # of the factory
            _logger.exception("can't serve a connection: closed")
            visitor.leave()
            connection.close()

    def _run_short(self, why: str) -> None:
        if self._look is None:
            self._closed_before = self.closed
            _logger.error(
                "out of file descriptors for connections (%s, and some are kept for files): those without a login "
                "are closed, and then the newest, until others end; raise the limit (ulimit -n, LimitNOFILE=)",
                why,
            )
            self._look = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        _, kept = self._limits()
        enough = kept + kept // 2 + 1
        if free_descriptors(enough) == enough:
            self._look = None
            closed = self.closed - self._closed_before
            _logger.warning(
                "there are file descriptors for connections again; %d connections were closed meanwhile", closed
            )
        else:
            self._look = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look_again)
