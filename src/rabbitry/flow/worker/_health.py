"""A health endpoint for orchestrators: one HTTP request, one JSON answer, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final, TypeAlias

Describe: TypeAlias = Callable[[], tuple[bool, dict[str, object]]]
_TIMEOUT: Final = 5.0
_LONGEST_REQUEST: Final = 8192


class Health:
    """Serves `GET /health`. describe: returns whether the worker is healthy, and details as plain data."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_LONGEST_REQUEST)
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
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # no HTTP, or nobody there any more
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] != b"GET":
            return _response("405 Method Not Allowed", {"error": "GET /health"})
        if words[1] not in (b"/health", b"/"):
            return _response("404 Not Found", {"error": "GET /health"})
        is_healthy, data = self._describe()
        status = "200 OK" if is_healthy else "503 Service Unavailable"
        return _response(status, {"status": "healthy" if is_healthy else "unhealthy", **data})


def _response(status: str, data: dict[str, object]) -> bytes:
    body = json.dumps(data).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    )
    return head.encode() + b"\r\n" + body
