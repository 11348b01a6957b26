"""IP addresses of hosts, resolved without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Final, Protocol

from rabbitry.exceptions import RabbitryError

LOOKUPS: Final = 32
"""Parallel lookups, each in a thread. One that hangs keeps its place until the system ends it."""
WITHIN: Final = 20.0
"""Seconds for a lookup."""


class NoSuchHost(RabbitryError):
    """A name does not resolve. The text is the resolver's reason."""


class Resolver(Protocol):
    """Resolves host names."""

    async def addresses(self, host: str) -> list[str]:
        """Return the IP addresses of a host in the order to try them. Raises NoSuchHost."""


class SystemResolver:
    """Asks the operating system, in separate threads because it may wait half a minute for a name server."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(LOOKUPS)

    async def addresses(self, host: str) -> list[str]:
        """See Resolver. After cancelling, the lookup ends in its thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str], error: str) -> None:
            self._places.release()
            if future.done():
                return  # the caller has left
            if error:
                future.set_exception(NoSuchHost(error))
            else:
                future.set_result(found)

        def look_up() -> None:
            found, error = _look_up(host)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(settle, found, error)

        try:
            async with asyncio.timeout(WITHIN):
                await self._places.acquire()
                # Not a thread pool: the interpreter would wait for its threads at exit.
                threading.Thread(target=look_up, name=f"look up {host[:60]}", daemon=True).start()
                return await future
        except TimeoutError as error:
            raise NoSuchHost(f"the name server did not answer within {WITHIN:g} s") from error


def _look_up(host: str) -> tuple[list[str], str]:
    """Return the addresses of a host, or the reason for none."""
    try:
        # As bytes, because Python's codec for international names follows an old standard.
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], getattr(error, "strerror", None) or str(error)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found)), ""
