"""A test server that speaks only HTTP/2."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from tests.apps.crawl.crawler._fetching import listening


@dataclass
class Server2:
    """A listening server. paths: those of all requests. connections: the number of accepted ones."""

    bodies: Mapping[str, bytes]
    port: int = 0
    paths: list[str] = field(default_factory=list)
    connections: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection; an unknown path gets 404, an empty body resets the stream."""
        self.connections += 1
        talk = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        talk.initiate_connection()
        writer.write(talk.data_to_send())
        while data := await reader.read(65_536):
            for event in talk.receive_data(data):
                if isinstance(event, RequestReceived):
                    self._answer(talk, event)
            writer.write(talk.data_to_send())
            await writer.drain()

    def _answer(self, talk: H2Connection, event: RequestReceived) -> None:
        stream = event.stream_id
        path = next(str(value) for name, value in event.headers if str(name) == ":path")
        self.paths.append(path)
        body = self.bodies.get(path)
        if body is None:
            talk.send_headers(stream, [(":status", "404")], end_stream=True)
        elif not body:
            talk.reset_stream(stream, 2)
        else:
            talk.send_headers(stream, [(":status", "200"), ("content-type", "text/html"), ("etag", '"two"')])
            talk.send_data(stream, body, end_stream=True)


@asynccontextmanager
async def serving_http2(bodies: Mapping[str, bytes], tls: ssl.SSLContext) -> AsyncIterator[Server2]:
    """Serve bodies by path over TLS until the block is left."""
    tls.set_alpn_protocols(["h2"])
    server = Server2(bodies)
    async with listening(server.talk, tls=tls) as server.port:
        yield server
