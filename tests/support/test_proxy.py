"""The fault proxy: each fault works, and ends when it is switched off."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.leaks import no_leaks_in_block
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class EchoServer:
    """Sends back its input, and records how each connection ended."""

    def __init__(self) -> None:
        self.received = b""
        self.chunks: list[int] = []
        self.endings: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                self.chunks.append(len(data))
                writer.write(data)
                await writer.drain()
            self.endings.append("end of stream")
        except ConnectionResetError:
            self.endings.append("reset")
        finally:
            writer.close()


@pytest.fixture
def echo() -> EchoServer:
    return EchoServer()


@pytest.fixture
async def proxy(no_leaks: None, echo: EchoServer) -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@pytest.fixture
async def stream(proxy: FaultProxy) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    writer.close()


async def _echoed(stream: Stream, data: bytes) -> bytes:
    stream[1].write(data)
    async with asyncio.timeout(90):
        return await stream[0].readexactly(len(data))


async def test_the_proxy_forwards_in_both_directions(stream: Stream) -> None:
    data = bytes(range(256)) * 4000
    assert await _echoed(stream, data) == data


async def test_the_proxy_forwards_end_of_file(stream: Stream, echo: EchoServer) -> None:
    reader, writer = stream
    writer.write(b"last words")
    writer.write_eof()
    assert await reader.read() == b"last words"
    assert echo.endings == ["end of stream"]


async def test_cut_ends_both_sides_in_order(proxy: FaultProxy, stream: Stream, echo: EchoServer) -> None:
    await _echoed(stream, b"x")
    await proxy.cut()
    assert await stream[0].read() == b""
    await eventually(lambda: echo.endings == ["end of stream"], "the server sees the end")
    assert proxy.open_links == 0


async def test_reset_breaks_both_sides(proxy: FaultProxy, stream: Stream, echo: EchoServer) -> None:
    await _echoed(stream, b"x")
    await proxy.reset()
    with pytest.raises(ConnectionResetError):
        await stream[0].read()
    await eventually(lambda: echo.endings == ["reset"], "the server sees the reset")


async def test_the_server_does_not_notice_a_vanished_client(
    proxy: FaultProxy, stream: Stream, echo: EchoServer
) -> None:
    await _echoed(stream, b"x")
    await proxy.vanish()
    assert await stream[0].read() == b""
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await _echoed(again, b"y") == b"y"
    assert echo.endings == []
    again[1].close()


async def test_new_connections_are_accepted_after_a_reset(proxy: FaultProxy, stream: Stream) -> None:
    await _echoed(stream, b"x")
    await proxy.reset()
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await _echoed(again, b"y") == b"y"
    assert proxy.accepted == 2
    again[1].close()


async def test_refuse_resets_new_connections_until_accept(proxy: FaultProxy) -> None:
    proxy.refuse()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    proxy.accept()
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await _echoed(again, b"y") == b"y"
    again[1].close()


async def test_pause_holds_bytes_back_and_resume_delivers_them(
    proxy: FaultProxy, stream: Stream, echo: EchoServer
) -> None:
    await _echoed(stream, b"x")
    proxy.pause(Way.TO_SERVER)
    stream[1].write(b"held")
    await asyncio.sleep(0.05)  # time in which it would have come
    assert echo.received == b"x"
    proxy.resume()
    assert await stream[0].readexactly(4) == b"held"


async def test_a_paused_direction_blocks_the_sender(proxy: FaultProxy, stream: Stream) -> None:
    proxy.pause(Way.TO_SERVER)
    writer = stream[1]
    writer.write(bytes(100_000_000))  # beyond any buffer of a socket
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.2)
    writer.transport.abort()
    proxy.resume()


async def test_a_half_open_link_still_flows_in_one_direction(
    proxy: FaultProxy, stream: Stream, echo: EchoServer
) -> None:
    proxy.pause(Way.TO_CLIENT)
    stream[1].write(b"heard")
    await eventually(lambda: echo.received == b"heard", "the server hears")
    proxy.resume(Way.TO_CLIENT)
    assert await stream[0].readexactly(5) == b"heard"


async def test_a_black_hole_drops_data(proxy: FaultProxy, stream: Stream, echo: EchoServer) -> None:
    await _echoed(stream, b"before")
    proxy.swallow(Way.TO_CLIENT)
    stream[1].write(b"lost")
    await eventually(lambda: echo.received == b"beforelost", "the server hears")
    await eventually(lambda: proxy.lost == 4, "the echo is lost")
    proxy.deliver()
    assert await _echoed(stream, b"after") == b"after"


async def test_one_byte_at_a_time(proxy: FaultProxy, stream: Stream) -> None:
    proxy.chunk(1, Way.TO_SERVER)
    assert await _echoed(stream, b"byte by byte") == b"byte by byte"
    assert proxy.writes > len(b"byte by byte")
    proxy.chunk()
    assert await _echoed(stream, b"whole") == b"whole"


async def test_delay_keeps_order(proxy: FaultProxy, stream: Stream) -> None:
    proxy.delay(0.05)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    assert await _echoed(stream, b"slow") == b"slow"
    assert loop.time() - begin >= 0.1  # a lower bound: sleep never returns early
    proxy.delay(0)
    assert await _echoed(stream, b"quick") == b"quick"


async def test_an_unreachable_server_resets_the_client(no_leaks: None) -> None:
    async with FaultProxy(free_port()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_leaks_are_found() -> None:
    leaked = asyncio.Event()
    with pytest.raises(AssertionError, match="task"):
        async with no_leaks_in_block(within=0.1):
            task = asyncio.create_task(leaked.wait())
    leaked.set()
    await task
