"""An endpoint for orchestrators and Prometheus: one HTTP request, one answer, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from rabbitry._errors import described
from rabbitry.exceptions import UsageError

Describe: TypeAlias = Callable[[], tuple[bool, dict[str, object]]]
Expose: TypeAlias = Callable[[], Awaitable[tuple[str, bytes]]]
_PATHS: Final = "GET /health, /live or /metrics"
_TIMEOUT: Final = 5.0
_LONGEST_REQUEST: Final = 8192

_logger = logging.getLogger(__name__)


class Health:
    """Serves `GET /health` (is it ready?), `GET /live` (need it not be restarted?) and `GET /metrics`."""

    def __init__(self, describe: Describe, is_alive: Callable[[], bool], expose: Expose) -> None:
        """Create an endpoint.

        Args:
            describe: Returns whether the worker is healthy, and details as plain data.
            is_alive: Returns whether it has not failed for good.
            expose: Returns the media type and the text of the metrics; raises UsageError without prometheus_client, and
                errors of the program's own collectors.
        """
        self._describe = describe
        self._is_alive = is_alive
        self._expose = expose
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port. Raises UsageError if it can't listen there."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_LONGEST_REQUEST)
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            why = "another program listens there" if is_taken else error.strerror or str(error)
            raise UsageError(f"can't serve /health on {host} port {port}: {why}; choose another port") from error
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # no HTTP, or nobody there any more
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] != b"GET":
            return _json("405 Method Not Allowed", {"error": _PATHS})
        path = words[1].partition(b"?")[0]
        if path == b"/metrics":
            return await self._metrics()
        if path == b"/live":
            is_alive = self._is_alive()
            return _json(_STATUS[is_alive], {"status": "alive" if is_alive else "failed"})
        if path not in (b"/health", b"/"):
            return _json("404 Not Found", {"error": _PATHS})
        is_healthy, data = self._describe()
        return _json(_STATUS[is_healthy], {"status": "healthy" if is_healthy else "unhealthy", **data})

    async def _metrics(self) -> bytes:
        try:
            return _response("200 OK", *await self._expose())
        except UsageError as error:
            return _json("501 Not Implemented", {"error": str(error)})
        except Exception as error:
            _logger.exception("can't answer GET /metrics: a collector of this program failed")
            return _json("500 Internal Server Error", {"error": f"a collector failed: {described(error)}"})


_STATUS: Final = {True: "200 OK", False: "503 Service Unavailable"}


def _json(status: str, data: dict[str, object]) -> bytes:
    return _response(status, "application/json", json.dumps(data).encode())


def _response(status: str, media: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return head.encode() + b"\r\n" + body
