"""A server that answers with bytes set by the test, and a fetcher that may connect to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from rabbitry.apps.crawl.crawler.budgets import Bandwidth, Room
from rabbitry.apps.crawl.crawler.fetching import Fetcher, Page
from rabbitry.apps.crawl.crawler.networks import Networks
from rabbitry.apps.crawl.crawler.resolving import NoSuchHost
from rabbitry.apps.crawl.messages import Address, Batch, Outcome, Purpose

Reply: TypeAlias = "bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]"
"""What is sent for a request; a function writes it itself, and the connection is closed at its end."""
LOOPBACK = ("127.0.0.0/8",)
PAGE = b"<title>A page</title><p>" + b"words and words " * 200


@dataclass
class Server:
    """A listening server. asked: the heads of all requests. connections: the number of accepted ones."""

    replies: Mapping[str, Reply]
    port: int = 0
    asked: list[str] = field(default_factory=list)
    connections: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection; an unknown path gets 404, a reply of bytes keeps the connection open."""
        self.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.asked.append(head)
            reply = self.replies.get(head.split(" ")[1], answer(b"", "404 Not Found"))
            if not isinstance(reply, bytes):
                await reply(writer)
                return
            writer.write(reply)
            await writer.drain()

    def headers(self, place: int = -1) -> dict[str, str]:
        """Return the headers of a request, names in lower case."""
        lines = self.asked[place].split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}


def answer(body: bytes, status: str = "200 OK", *headers: str, kind: str | None = "text/html") -> bytes:
    """Return a complete response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def writes(*pieces: bytes, then_wait: bool = False) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Return a reply that writes pieces, then closes the connection or leaves it open and silent."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then_wait:
            await asyncio.Event().wait()

    return write


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
    while True:
        writer.write(b"and so on " * 1000)
        await writer.drain()


@asynccontextmanager
async def serving(
    replies: Mapping[str, Reply], host: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Serve replies by path until the block is left."""
    server = Server(replies)
    async with listening(server.talk, host, port=port, tls=tls) as server.port:
        yield server


@asynccontextmanager
async def listening(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    host: str = "127.0.0.1",
    *,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Accept connections until the block is left, and yield the port. talk serves each of them."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the crawler closed or the test is over; asyncio's callback rejects a cancelled task
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=tls, limit=1 << 20)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


class Names:
    """A resolver with answers set by the test: a list of them for each name, used in turn; the last one stays."""

    def __init__(self, names: Mapping[str, Sequence[list[str]]] | None = None) -> None:
        self.names = {name: list(lists) for name, lists in (names or {}).items()}
        self.asked: list[str] = []

    async def addresses(self, host: str) -> list[str]:
        """See Resolver."""
        self.asked.append(host)
        lists = self.names.get(host)
        if not lists:
            raise NoSuchHost("no such name")
        return lists.pop(0) if len(lists) > 1 else lists[0]


@dataclass
class Hand:
    """A fetcher with its parts."""

    fetcher: Fetcher
    names: Names
    room: Room

    async def fetch(
        self,
        url: str,
        purpose: Purpose = "page",
        *,
        etag: str | None = None,
        modified: str | None = None,
        contact: str | None = None,
        largest: int = 100_000,
        time_limit: float = 20.0,
    ) -> Page | Outcome:
        """Fetch one address as a batch of one."""
        address = Address(url, purpose, etag, modified)
        batch = Batch("b1", url, [address], 0.0, time.time() + 60, contact, 1, largest, time_limit)
        return await self.fetcher.fetch(address, batch, self.fetcher.host(batch))

    async def outcome(self, url: str, purpose: Purpose = "page", **options: object) -> Outcome:
        """Fetch an address that must not give a page; return its outcome."""
        item = await self.fetch(url, purpose, **options)  # type: ignore[arg-type] # those of fetch
        assert isinstance(item, Outcome), item
        assert item.url == url
        assert self.room.total == 0
        return item

    async def page(self, url: str, purpose: Purpose = "page", **options: object) -> Page:
        """Fetch an address that must give a page; release its bytes from the memory budget."""
        item = await self.fetch(url, purpose, **options)  # type: ignore[arg-type] # those of fetch
        assert isinstance(item, Page), item
        self.room.release(item)
        assert self.room.total == 0
        return item


@contextlib.contextmanager
def fetching(
    allowed: Sequence[str] = LOOPBACK,
    names: Mapping[str, Sequence[list[str]]] | None = None,
    *,
    room: int = 1 << 24,
    bandwidth: Bandwidth | None = None,
    is_packing: bool = True,
) -> Iterator[Hand]:
    """Make a fetcher; close its connections after the block."""
    resolver, held = Names(names), Room(room)
    fetcher = Fetcher(
        "c1",
        "9.9",
        Networks(allowed),
        resolver,
        held,
        bandwidth or Bandwidth(None),
        connections=20,
        is_packing=is_packing,
    )
    try:
        yield Hand(fetcher, resolver, held)
    finally:
        fetcher.close()
