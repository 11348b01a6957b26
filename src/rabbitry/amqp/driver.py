"""The asyncio transport of client and broker: moves bytes between a socket and the protocol core.

Everything written in one iteration of the event loop is sent together. Watermarks limit reading and writing, and
heartbeats are sent and expected (AMQP 0-9-1, section 4.2.7).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from rabbitry.amqp.protocol.connection import Connection
from rabbitry.amqp.protocol.constants import HEARTBEAT_FRAME
from rabbitry.amqp.protocol.contents import LONG_PART
from rabbitry.amqp.protocol.events import Event

WRITE_HIGH: Final = 1 << 18
"""High watermark of writing: with this many bytes waiting for the socket, `can_write` becomes false."""
WRITE_LOW: Final = 1 << 16
_MOST_AT_ONCE: Final = (1 << 17) + 64
"""Most bytes that several writes are joined into for one call of the transport: one frame of the largest size."""
_FLUSH_AT: Final = 1 << 17
"""Bytes gathered in one iteration of the loop that are handed to the socket before the iteration ends."""
_MOST_IN_PLACE: Final = 1 << 21
"""Bytes of large bodies that are read before the loop gets to anything else."""
_CLOSING_TIME: Final = 30.0
"""Seconds that a peer has to close the socket after the connection was closed; RabbitMQ's value."""
_CLOSING_BYTES: Final = 1 << 28
"""Bytes that the peer may send during that time: two messages of the largest size that a broker accepts."""
_SILENCE: Final = 0.5
"""Seconds of silence after which a TLS socket is closed, since its sending side can't be closed alone."""


class HeartbeatMissed(ConnectionError):
    """The peer was silent for two heartbeat intervals."""


if TYPE_CHECKING:

    class Handler(Protocol):
        """The user of a driver: a connection of the client or of the broker."""

        def on_events(self, events: list[Event]) -> None:
            """Process the events of one chunk from the socket, in wire order."""

        def on_lost(self, error: Exception | None) -> None:
            """Handle the end of the socket: None after our close or an end of file, else the error. Called once."""

        def on_writable(self) -> None:
            """Resume writing: the socket takes data again after `can_write` was false."""


class _Nobody:
    """The handler of a driver whose socket is closed: ignores every call."""

    def on_events(self, events: list[Event]) -> None:
        pass

    def on_lost(self, error: Exception | None) -> None:
        pass

    def on_writable(self) -> None:
        pass


_NOBODY: Final = _Nobody()


class Driver(asyncio.Protocol):
    """Moves bytes between one socket and one protocol core. Created by asyncio as a protocol factory.

    on_connected: called when the connection is made; over TLS after the handshake.
    """

    def __init__(self, core: Connection, handler: Handler, on_connected: Callable[[], None] | None = None) -> None:
        self.core = core
        self.can_write: bool = True
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self.unsent: int = 0
        """Bytes that wait for the end of this iteration of the loop, or for room in the socket's buffer."""
        self._handler = handler
        self._on_connected = on_connected
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        """The socket, to read large bodies from. -1 over TLS, where its data is encrypted, and on Windows."""
        self._out: list[bytes] = []
        self._drained: list[asyncio.Future[None]] = []
        self._heartbeat: asyncio.TimerHandle | None = None
        self.read_at: float = 0.0
        """When data was last read, from the socket or from the held-back bytes, on the event loop's clock."""
        self._written_at = 0.0
        self._error: Exception | None = None
        self._is_ending = False
        self._reads_up_to = 0
        """Value of the counter of received bytes at which a peer that does not close is cut off; 0 for no limit."""
        self._end: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None

    # -- asyncio.Protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, and report that the socket is connected."""
        # Every event loop's stream transport has these methods, but uvloop's is no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        if sys.platform != "win32" and transport.get_extra_info("sslcontext") is None:
            socket = transport.get_extra_info("socket")
            self._descriptor = -1 if socket is None else socket.fileno()
        if self._on_connected is not None:
            self._on_connected()

    def data_received(self, data: bytes) -> None:
        """Hand the events of a chunk to the handler."""
        if self._wants(len(data)):
            self._take(self.core.receive(data))
            if len(data) >= LONG_PART:  # a shorter chunk begins no large body
                self._read_in_place()

    def _read_in_place(self) -> None:
        """Read the rest of a large body into its own memory, and the large bodies that follow, while there is data.

        Another iteration of the loop would cost more than it does elsewhere: with 1 MiB between any two, the
        interpreter's code and data are in no cache. `benchmarks/client.py` measures it (consume, 1 MiB).
        """
        stop = self.bytes_received + _MOST_IN_PLACE
        while self._can_read_in_place and self.bytes_received < stop:
            room = self.core.room()
            if room is None:
                return
            if not (size := self._read_into(room)):
                room.clear()  # a view of it would make the body be copied once it is complete
                return
            if self._wants(size):
                self._take(self.core.receive_in_place(size))

    @property
    def _can_read_in_place(self) -> bool:
        # uvloop closes the descriptor within `close` and `abort`, where asyncio does it in the next iteration.
        transport = self._transport
        return (
            self._descriptor >= 0
            and transport is not None
            and not self._is_ending
            and transport.is_reading()
            and not transport.is_closing()
        )

    def _read_into(self, room: list[memoryview]) -> int:
        """Read from the socket, and return the number of bytes: 0 if there are none, or no more will come."""
        if sys.platform != "win32":  # which has no readv; there is no descriptor either
            try:
                return os.readv(self._descriptor, room)
            except BlockingIOError:
                pass  # there is no data
            except OSError as error:
                self.abort(error)  # the system reports it only once
        return 0

    def _wants(self, size: int) -> bool:
        """Count bytes that were read, and return whether they are to be processed."""
        self.read_at = self._loop.time()
        self.bytes_received += size
        if self._reads_up_to and self.bytes_received > self._reads_up_to:
            self.abort()
        elif self._is_ending:
            self._wait_for_silence()
        else:
            return True
        return False

    def _take(self, events: list[Event]) -> None:
        """Hand over `events` and those of the kept bytes until none is left or the handler pauses reading."""
        while events and not self._is_ending:
            self._handler.on_events(events)
            events = self.core.receive(b"") if self.is_reading else []

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, and report the loss to the handler."""
        self._transport = None
        for timer in (self._heartbeat, self._end, self._silence):
            if timer is not None:
                timer.cancel()
        self._out.clear()
        self._wake_drained()
        handler = self._handler
        # Handler and driver refer to each other. Breaking the reference cycle frees both without the garbage collector.
        self._handler, self._on_connected = _NOBODY, None
        handler.on_lost(self._error or exc)

    def pause_writing(self) -> None:
        """Note that the socket's buffer is full."""
        self.can_write = False

    def resume_writing(self) -> None:
        """Write the data that was kept while the socket's buffer was full."""
        self.can_write = True
        self.flush()
        if self.can_write:
            self._wake_drained()
            self._handler.on_writable()

    # -- writing ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send `data` together with all other data of this loop iteration. Ignored after `close`."""
        if not self._out:
            if self._transport is None or self._is_ending or self._transport.is_closing():
                return
            self._loop.call_soon(self.flush)
        self._out.append(data)
        self.unsent += len(data)
        if self.unsent >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Hand the gathered data to the socket."""
        if self._transport is None or self._transport.is_closing() or not self._out or not self.can_write:
            return
        self._written_at = self._loop.time()
        if self.unsent > _MOST_AT_ONCE:
            self._flush_in_pieces(self._transport)
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self.unsent = 0
        self.bytes_sent += len(data)
        self._transport.write(data)

    def _flush_in_pieces(self, transport: asyncio.Transport) -> None:
        """Hand over large data piece by piece, and stop at a full socket: the transport copies what it has to keep."""
        out = self._out
        end = 0
        while end < len(out) and self.can_write:
            begin, size = end, 0
            while end < len(out) and (end == begin or size + len(out[end]) <= _MOST_AT_ONCE):
                size += len(out[end])
                end += 1
            transport.write(out[begin] if end == begin + 1 else b"".join(out[begin:end]))
            self.bytes_sent += size
            self.unsent -= size
        del out[:end]

    async def drain(self) -> None:
        """Wait until the socket takes data again, or is closed. Cancelling only stops the waiting."""
        if self.can_write or self._transport is None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._drained.append(waiter)
        await waiter

    def _wake_drained(self) -> None:
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        self._drained.clear()

    # -- reading and closing ---------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Read nothing from the socket until `resume_reading`; meanwhile no heartbeat is expected.

        Ignored once the end of the connection is expected: everything that the peer still sends has to be read.
        """
        if self._transport is not None and self.is_reading and not self._reads_up_to:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the socket again."""
        if self._transport is not None and not self.is_reading:
            self.read_at = self._loop.time()
            self._transport.resume_reading()
            self._loop.call_soon(self._take_kept)  # not from inside the handler, which may have more to do first

    def _take_kept(self) -> None:
        if self.is_reading:
            self.read_at = self._loop.time()
            self._take(self.core.receive(b""))

    def close(self) -> None:
        """Send the gathered data, then close the socket. `on_lost` follows once the peer has received all of it.

        A peer that reads nothing is detected by its missing heartbeats, if heartbeats are on.
        """
        if self._transport is not None:
            self._flush_all(self._transport)
            self._transport.close()

    def _flush_all(self, transport: asyncio.Transport) -> None:
        self.can_write = True  # even if the socket is full: everything has to be sent before the end
        while self._out and not transport.is_closing():
            self.flush()
            self.can_write = True

    def expect_end(self, seconds: float = _CLOSING_TIME) -> None:
        """Keep reading, and abort a peer that has not closed the socket after `seconds` or has sent too many bytes.

        For the side that has sent connection.close-ok or its last close. Closing the socket while the peer still sends
        would reset it, and the peer could lose that last method with everything else that it has not read yet
        (RFC 1122, section 4.2.2.13).
        """
        if self._transport is not None and not self._reads_up_to:
            self._reads_up_to = self.bytes_received + _CLOSING_BYTES
            self._end = self._loop.call_later(seconds, self.abort)
            self.resume_reading()

    def finish(self, seconds: float = _CLOSING_TIME) -> None:
        """Send the gathered data and end of file, then discard all input until the peer closes the socket.

        Over TLS, where one direction can't be closed alone, the socket is closed after a short silence of the peer. The
        limits of `expect_end` apply. `on_lost` follows.
        """
        transport = self._transport
        if transport is None or self._is_ending:
            return
        self.start_heartbeat(0)
        self._flush_all(transport)
        self._is_ending = True
        self.expect_end(seconds)
        if transport.can_write_eof():
            transport.write_eof()
        else:
            self._wait_for_silence()

    def _wait_for_silence(self) -> None:
        if self._transport is not None and not self._transport.can_write_eof():
            if self._silence is not None:
                self._silence.cancel()
            self._silence = self._loop.call_later(_SILENCE, self.close)

    def abort(self, error: Exception | None = None) -> None:
        """Close the socket at once and drop unsent data. `on_lost` follows, with the first `error` given."""
        if self._transport is not None:
            self._error = self._error or error
            self._transport.abort()

    def detach(self) -> None:
        """Forget the socket without closing it: it belongs to the parent process (see `fork`)."""
        self._transport = None
        self._out.clear()

    @property
    def is_reading(self) -> bool:
        """Whether data is read from the socket."""
        return self._transport is not None and self._transport.is_reading()

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed, or was never opened."""
        return self._transport is None

    def get_extra_info(self, name: str) -> object:
        """Return asyncio's information on the socket (peername, sockname, ssl_object …), or None."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    # -- heartbeats ------------------------------------------------------------------------------------

    def start_heartbeat(self, interval: float) -> None:
        """Send a heartbeat in every half `interval` (seconds) without another frame, and expect the same of the peer.

        A peer that is silent for two intervals is considered dead: the socket is aborted with HeartbeatMissed.
        0 turns heartbeats off.
        """
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        if interval > 0:
            self.read_at = self._written_at = self._loop.time()
            self._heartbeat = self._loop.call_later(interval / 2, self._beat, interval)

    def _beat(self, interval: float) -> None:
        transport = self._transport
        if transport is None:
            return
        now = self._loop.time()
        if not transport.is_reading() and not transport.is_closing():
            self.read_at = now
        # After the loop was blocked, it reads the data that arrived meanwhile before it runs its timers (asyncio
        # processes ready sockets first). Silence seen here is therefore the peer's.
        if now - self.read_at > 2 * interval:
            self.abort(HeartbeatMissed(f"nothing came from the peer for {now - self.read_at:.1f} s"))
            return
        if now - self._written_at >= interval / 2:
            self.write(HEARTBEAT_FRAME)
        self._heartbeat = self._loop.call_later(interval / 2, self._beat, interval)
