"""A reverse proxy that serves a dashboard under a prefix, which it removes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def behind_a_prefix(web: str) -> AsyncIterator[str]:
    """Serve a dashboard under `/tools/rabbitry/`."""
    port = int(web.rstrip("/").rpartition(":")[2])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        if not head.split(b" ")[1].startswith(b"/tools/rabbitry/"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        # One request for each connection, so that only one line needs the change; a handshake says Upgrade.
        changed = head.replace(b" /tools/rabbitry/", b" /", 1).replace(b"keep-alive", b"close", 1)
        back.write(changed)
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/tools/rabbitry/"
