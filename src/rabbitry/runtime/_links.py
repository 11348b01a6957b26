"""The socket between a program and a child process, as each system can make one, and how the child is told to end.

On POSIX systems the child inherits one end of a pair, and ends at SIGTERM. Windows has neither: there the child
connects to a port of this machine with a secret, and ends when the program closes its direction of the connection.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import sys
from typing import Any, Final, Protocol, TypeAlias

from rabbitry.runtime.parent import address_of

_NEW_GROUP: Final[int] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""Windows' flag for a process that gets no Ctrl-C of the console."""
_HOST: Final = "127.0.0.1"
_PATIENCE: Final = 30.0
"""Seconds that whoever connects has to send the secret."""

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link(Protocol):
    """The program's side, for one run of a child. name: the child's PARENT variable."""

    name: str

    def options(self, descriptors: tuple[int, ...]) -> dict[str, Any]:
        """Return arguments for starting the child, which is to inherit these descriptors."""

    def started(self) -> None:
        """Note that the child has its end, or could not be started."""

    async def open(self) -> Streams:
        """Wait until the child can be heard. The streams are the caller's to close."""

    def end(self, process: asyncio.subprocess.Process) -> None:
        """Tell the child to end. Raises ProcessLookupError if it is gone."""

    def close(self) -> None:
        """Close what is left open once the child is gone, or could not be started."""


class Pair:
    """A pair of sockets, one of which the child inherits. See Link."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.name: str = str(self._theirs.fileno())

    def options(self, descriptors: tuple[int, ...]) -> dict[str, Any]:
        """See Link. The child has a session of its own, and gets no Ctrl-C of the terminal."""
        return {"pass_fds": (*descriptors, self._theirs.fileno()), "start_new_session": True}

    def started(self) -> None:
        """See Link."""
        self._theirs.close()

    async def open(self) -> Streams:
        """See Link."""
        return await asyncio.open_connection(sock=self._ours)

    def end(self, process: asyncio.subprocess.Process) -> None:
        """See Link."""
        process.terminate()

    def close(self) -> None:
        """See Link."""
        self._ours.close()


class Port:
    """A port of this machine, to which the child connects. See Link."""

    def __init__(self) -> None:
        self._listener = socket.create_server((_HOST, 0))
        self._listener.setblocking(False)
        self._secret = secrets.token_hex(16)
        self.name: str = address_of(self._listener.getsockname()[1], self._secret)
        self._writer: asyncio.StreamWriter | None = None
        self._is_ended = False

    def options(self, descriptors: tuple[int, ...]) -> dict[str, Any]:
        """See Link. Descriptors can't be inherited here."""
        if descriptors:
            raise NotImplementedError("child processes inherit no sockets on this system")
        return {"creationflags": _NEW_GROUP}

    def started(self) -> None:
        """See Link."""

    async def open(self) -> Streams:
        """See Link. Whoever connects without the secret is not heard."""
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                accepted, _ = await loop.sock_accept(self._listener)
                reader, writer = await asyncio.open_connection(sock=accepted)
                is_child = False
                try:
                    async with asyncio.timeout(_PATIENCE):
                        is_child = secrets.compare_digest((await reader.readline()).strip(), self._secret.encode())
                except (OSError, ValueError, TimeoutError):
                    pass  # ValueError: of a line that is too long
                finally:  # also if this is cancelled
                    if not is_child:
                        writer.close()
                if is_child:
                    break
        self._writer = writer
        if self._is_ended:
            writer.write_eof()
        return reader, writer

    def end(self, process: asyncio.subprocess.Process) -> None:
        """See Link. A child that has not connected yet is told when it does."""
        self._is_ended = True
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write_eof()

    def close(self) -> None:
        """See Link."""
        self._listener.close()


def new_link() -> Link:
    """Return the link for one run of a child."""
    return Port() if sys.platform == "win32" else Pair()
