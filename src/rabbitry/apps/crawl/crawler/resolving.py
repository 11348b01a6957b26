"""Addresses of hosts, resolved without making the event loop wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Final, Protocol

from rabbitry.exceptions import RabbitryError

LOOKUPS: Final = 32
"""Lookups that run at once, each in a thread. One that hangs keeps its place until the system gives it up."""
WITHIN: Final = 20.0
"""Seconds for a lookup."""


class NoSuchHost(RabbitryError):
    """A name that does not resolve. The text says why, in the resolver's words."""


class Resolver(Protocol):
    """Finds the IP addresses of hosts."""

    async def addresses(self, host: str) -> list[str]:
        """Return the IP addresses of a host in the order in which to try them. Raises NoSuchHost."""


class SystemResolver:
    """Asks the operating system, which may wait for a name server for half a minute: in threads of its own."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(LOOKUPS)

    async def addresses(self, host: str) -> list[str]:
        """See Resolver. Cancelling leaves the lookup to its thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str], error: str) -> None:
            self._places.release()
            if future.done():
                return  # nobody waits any more
            if error:
                future.set_exception(NoSuchHost(error))
            else:
                future.set_result(found)

        def look_up() -> None:
            found, error = _look_up(host)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(settle, found, error)

        try:
            async with asyncio.timeout(WITHIN):
                await self._places.acquire()
                # Not a pool's thread: the interpreter would wait for it at its end.
                threading.Thread(target=look_up, name=f"look up {host[:60]}", daemon=True).start()
                return await future
        except TimeoutError as error:
            raise NoSuchHost(f"the name server did not answer within {WITHIN:g} s") from error


def _look_up(host: str) -> tuple[list[str], str]:
    """Return the addresses of a host, or why there are none."""
    try:
        # As bytes, so that Python's codec for international names, which knows an old standard, leaves it alone.
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], getattr(error, "strerror", None) or str(error)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found)), ""
