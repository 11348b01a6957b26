"""A TCP proxy on the loopback interface that breaks connections in the ways that networks do.

Every fault is switched while the proxy runs and holds for all connections, those that exist and those
that come, until it is switched off. Nothing is buffered beyond one chunk in each direction: a
direction that does not flow stops reading, and the sender feels it, as it would over a real network.
"""

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

_CHUNK = 65536
# On, with a timeout of 0: close() then sends a reset in place of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Way(enum.Enum):
    """A direction through the proxy."""

    TO_SERVER = "client to server"
    TO_CLIENT = "server to client"


@dataclass
class Faults:
    """What happens to the bytes of one direction."""

    paused: bool = False
    """Nothing is read, so that the sender's buffers fill: a network that stands still."""
    swallowed: bool = False
    """Everything is read and discarded: a black hole. Swallowed data is lost for good."""
    delay: float = 0.0
    """Seconds by which each chunk is delayed."""
    chunk: int = _CHUNK
    """Bytes in one write at most; 1 passes the stream on byte by byte."""


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and passes connections on to a server. An async context manager."""

    def __init__(self, port: int, *, tap: Callable[[Way, bytes], None] | None = None) -> None:
        """`port` is the server's, on 127.0.0.1; `tap` is called with all that is passed on."""
        self._target = ("127.0.0.1", port)
        self._tap = tap
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._faults = {way: Faults() for way in Way}
        self._changed = asyncio.Event()
        self._silent: list[asyncio.StreamWriter] = []
        self._lingering: list[asyncio.StreamWriter] = []
        """Closed, with bytes that the other side has not taken."""
        self._accepting = True
        self.port = 0
        self.accepted = 0
        """Connections accepted so far."""
        self.lost = 0
        """Number of discarded bytes."""
        self.writes = 0
        """Chunks passed on so far, both ways."""

    async def __aenter__(self) -> "FaultProxy":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.refuse()  # a connection that was accepted just now has no link yet
        tasks = list(self._links)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._silent:
            writer.close()
        for writer in (*self._silent, *self._lingering):
            if writer.transport.get_write_buffer_size():  # else the garbage collector finds it open in another test
                writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # in the next turn they are closed

    @property
    def open_links(self) -> int:
        """Connections that pass through at this moment."""
        return len(self._links)

    def pause(self, *ways: Way) -> None:
        """Stop reading in these directions (both when none is named); one alone is a half-open link."""
        self._switch(ways, paused=True)

    def resume(self, *ways: Way) -> None:
        """Read on in these directions."""
        self._switch(ways, paused=False)

    def swallow(self, *ways: Way) -> None:
        """Discard data in these directions until `deliver`."""
        self._switch(ways, swallowed=True)

    def deliver(self, *ways: Way) -> None:
        """Forward data from now on."""
        self._switch(ways, swallowed=False)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Delay each chunk by `seconds`; 0 ends it."""
        self._switch(ways, delay=seconds)

    def chunk(self, size: int = _CHUNK, *ways: Way) -> None:
        """Write at most `size` bytes at a time; without arguments as they come again."""
        self._switch(ways, chunk=size)

    def refuse(self) -> None:
        """Reset every new connection, until `accept`."""
        self._accepting = False

    def accept(self) -> None:
        """Take connections again."""
        self._accepting = True

    async def cut(self) -> None:
        """End every connection in order (FIN) on both sides; new ones are taken."""
        await self._end(reset=False)

    async def reset(self) -> None:
        """Break every connection with a reset (RST) on both sides; new ones are taken."""
        await self._end(reset=True)

    async def vanish(self) -> None:
        """End every connection towards the client; towards the server it stays open and silent until the end.

        So a server sees a client whose machine lost its power.
        """
        await self._end(reset=False, vanished=True)

    async def _end(self, *, reset: bool, vanished: bool = False) -> None:
        tasks = list(self._links)
        for task in tasks:
            link = self._links[task]
            link.reset = reset
            if vanished and link.up_writer is not None:
                self._silent.append(link.up_writer)
                link.up_writer = None
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _switch(
        self,
        ways: tuple[Way, ...],
        *,
        paused: bool | None = None,
        swallowed: bool | None = None,
        delay: float | None = None,
        chunk: int | None = None,
    ) -> None:
        for way in ways or Way:
            faults = self._faults[way]
            faults.paused = faults.paused if paused is None else paused
            faults.swallowed = faults.swallowed if swallowed is None else swallowed
            faults.delay = faults.delay if delay is None else delay
            faults.chunk = faults.chunk if chunk is None else chunk
        self._changed.set()
        self._changed = asyncio.Event()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(reader, writer)
        if not self._accepting:
            link.reset = True
            link.close()
            return
        self.accepted += 1
        self._links[task] = link
        try:
            await self._carry(link)
        except asyncio.CancelledError:
            pass  # cut, reset and leaving the block end a link this way
        finally:
            self._lingering += link.close()
            del self._links[task]

    async def _carry(self, link: "_Link") -> None:
        try:
            link.up_reader, link.up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            link.reset = True
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(Way.TO_SERVER, link.reader, link.up_writer))
                both.create_task(self._pass_on(Way.TO_CLIENT, link.up_reader, link.writer))
        except* OSError:
            link.reset = True  # one side broke it; the other shall see that too

    async def _pass_on(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        faults = self._faults[way]
        while True:
            await self._flowing(faults)
            data = await source.read(_CHUNK)
            # A pause that started during the read holds back the data of that read.
            await self._flowing(faults)
            if not data:
                break
            if faults.delay:
                await asyncio.sleep(faults.delay)
            while data:
                if faults.swallowed:
                    self.lost += len(data)
                    break
                part, data = data[: faults.chunk], data[faults.chunk :]
                if self._tap is not None:
                    self._tap(way, part)
                sink.write(part)
                self.writes += 1
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()

    async def _flowing(self, faults: Faults) -> None:
        while faults.paused:
            await self._changed.wait()


class _Link:
    """One connection through the proxy: the client's side, and the server's once it is open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.up_reader: asyncio.StreamReader | None = None
        self.up_writer: asyncio.StreamWriter | None = None
        self.reset = False

    def close(self) -> list[asyncio.StreamWriter]:
        """Close both sides. Returns those that still have something to send."""
        writers = [writer for writer in (self.writer, self.up_writer) if writer is not None]
        for writer in writers:
            if self.reset:
                with contextlib.suppress(OSError):  # this side is closed already
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()
        return [writer for writer in writers if writer.transport.get_write_buffer_size()]
