"""Peers that are slow, silent or many do not shut out the others."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from rabbitry.runtime.http import connections as limits
from rabbitry.runtime.http.guard import Guard
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from tests.support.waiting import eventually

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
BODY = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345"


@dataclass
class Served:
    """A service over real sockets. `held` are requests that it answers when `go_on` is set."""

    port: int
    held: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self, sent: bytes = b"", address: str = "127.0.0.1") -> Stream:
        """Connect from an address of this machine."""
        stream = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        stream[1].write(sent)
        self.streams.append(stream[1])
        return stream

    async def get(self, path: str = "/", address: str = "127.0.0.1") -> str:
        """Return what a new request is answered with."""
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(transport=transport, timeout=50) as client:
            return (await client.get(f"http://127.0.0.1:{self.port}{path}")).text


def _app(served: Served) -> ASGIApp:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await request.body()).decode())

    async def hold(request: Request) -> PlainTextResponse:
        served.held.append(request.url.path)
        await served.go_on.wait()
        return PlainTextResponse("held")

    async def much(request: Request) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield bytes(100_000)

        return StreamingResponse(chunks())

    routes = [Route("/", hello), Route("/echo", echo, methods=["POST"]), Route("/hold", hold), Route("/much", much)]
    return Guard(Starlette(routes=[*routes, WebSocketRoute("/ws", _hang_up)]))


async def _hang_up(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(1013, "no room")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> limits.Connections:
    """The connections of the server that is started after it."""
    connections = limits.Connections()
    monkeypatch.setattr("rabbitry.runtime.http.serving.Connections", lambda: connections)
    return connections


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    (listener,) = listen("127.0.0.1", 0)
    served = Served(listener.getsockname()[1])
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(_app(served), [listener], stop))
    try:
        yield served
    finally:
        served.go_on.set()
        for writer in served.streams:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        stop.set()
        await serving


async def _rest(stream: Stream) -> bytes:
    """Return what comes until the connection is closed or reset."""
    try:
        async with asyncio.timeout(50):
            return await stream[0].read()
    except ConnectionError:
        return b""


async def test_a_missing_header_times_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_WITHIN", 0.1)
    for sent in (b"", b"GET", HEAD, HEAD + b"X: y\r\n"):
        answer = await _rest(await served.open(sent))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b"the request took too long\n")


async def test_a_dripping_header_times_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_WITHIN", 0.2)
    reader, writer = await served.open(HEAD)
    answer = asyncio.create_task(_rest((reader, writer)))
    while not answer.done():
        writer.write(b"X-More: y\r\n")
        await asyncio.wait([answer], timeout=0.01)
    assert b" 408 " in answer.result()


async def test_a_missing_body_times_out(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "REQUEST_WITHIN", 0.1)
    assert (await _rest(await served.open(BODY))).startswith(b"HTTP/1.1 408 ")
    assert "Traceback" not in caplog.text


async def test_an_unread_answer_is_abandoned(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_WITHIN", 0.1)
    monkeypatch.setattr(limits, "LINGER", 0.1)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.setblocking(False)

        def is_reset() -> bool:
            try:
                client.send(b"x")
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            return False

        await eventually(is_reset, "the server resets the connection")


async def test_slow_headers_from_the_same_address_do_not_shut_it_out(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_WITHIN", 1000.0)
    slow = [await served.open(HEAD) for _ in range(limits.PEER_CONNECTIONS)]
    oldest = asyncio.create_task(_rest(slow[0]))
    assert await served.get() == "hello"
    assert b"newer connection" in await oldest
    for _ in range(limits.CONNECTIONS):
        await served.open(HEAD)
    assert await served.get() == "hello"


async def test_slow_bodies_from_the_same_address_do_not_shut_it_out(served: Served) -> None:
    for _ in range(limits.PEER_CONNECTIONS + 10):
        await served.open(BODY)
    assert await served.get() == "hello"


async def test_many_connections_of_many_addresses_leave_room_for_the_next(served: Served) -> None:
    for number in range(limits.CONNECTIONS + 10):
        await served.open(HEAD, f"127.0.0.{2 + number // 40}")
    assert await served.get(address="127.0.0.99") == "hello"


async def test_an_address_at_its_limit_is_refused_and_others_are_served(served: Served) -> None:
    busy = b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"
    held = [await served.open(busy) for _ in range(limits.PEER_CONNECTIONS)]
    await eventually(lambda: len(served.held) == len(held), "all of them are being answered")
    refused = await _rest(await served.open(HEAD))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"too many connections from your address" in refused
    assert await served.get(address="127.0.0.2") == "hello"
    served.go_on.set()
    assert b"held" in await held[0][0].readuntil(b"held")


async def test_websockets_whose_peer_does_not_answer_their_closing_make_room(
    connections: limits.Connections, served: Served
) -> None:
    handshake = (
        HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    ).replace(b"GET /", b"GET /ws")
    first = await served.open(handshake)
    assert b"no room" in await first[0].readuntil(b"no room")
    for _ in range(limits.PEER_CONNECTIONS):
        later = await served.open(handshake)
        assert b"no room" in await later[0].readuntil(b"no room")
    assert len(connections) == limits.PEER_CONNECTIONS  # uvicorn waits for their peer still
    assert await _rest(first) == b""
    assert await served.get() == "hello"


async def test_a_refused_websocket_gets_the_reason_and_is_not_logged_as_error(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    handshake = (
        HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n\r\n"
    )
    answer = await _rest(await served.open(handshake))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"Another site's page asked" in answer
    assert await served.get() == "hello"  # the refused task is done by now
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_connection_that_is_kept_serves_one_request_after_the_other(served: Served) -> None:
    reader, writer = await served.open()
    for _ in range(3):
        writer.write(HEAD[:20])
        await writer.drain()
        writer.write(HEAD[20:] + b"\r\n")
        assert b"hello" in await reader.readuntil(b"hello")
    writer.write((HEAD + b"\r\n") * 20)  # all at once
    for _ in range(20):
        assert b"hello" in await reader.readuntil(b"hello")
    writer.write(BODY)
    await writer.drain()
    writer.write(b"67890")
    assert b"1234567890" in await reader.readuntil(b"1234567890")
