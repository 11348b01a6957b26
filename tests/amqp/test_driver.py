"""The driver over real sockets on loopback: batching, watermarks, heartbeats, closing."""

import asyncio
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from rabbitry.amqp.driver import WRITE_HIGH, Driver, HeartbeatMissed
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.constants import HEARTBEAT_FRAME, PROTOCOL_HEADER
from rabbitry.amqp.protocol.events import HEADER, Event
from tests.support.deliveries import delivery_frames, fill, open_core
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")


class _Recorder:
    """A handler that records its calls."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lost: list[Exception | None] = []
        self.writable = 0

    def on_events(self, events: list[Event]) -> None:
        self.events += events

    def on_lost(self, error: Exception | None) -> None:
        self.lost.append(error)

    def on_writable(self) -> None:
        self.writable += 1


@asynccontextmanager
async def _driver(handler: _Recorder, core: Connection | None = None) -> AsyncIterator[tuple[Driver, socket.socket]]:
    """A driver, of a broker unless `core` is given, on one end of a connection, and the bare socket on the other."""
    loop = asyncio.get_running_loop()
    core = core or Connection(Role.BROKER, frame_max=131072, channel_max=10, max_body_size=1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Small buffers of the kernel, so that a peer that does not read is noticed after little.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        peer.connect(listener.getsockname())
        peer.setblocking(False)
        accepted, _ = listener.accept()
    _, driver = await loop.connect_accepted_socket(lambda: Driver(core, handler), accepted)
    try:
        yield driver, peer
    finally:
        peer.close()
        driver.abort()
        await eventually(lambda: handler.lost, "on_lost")


async def _read_until(peer: socket.socket, done: Callable[[bytes], bool]) -> bytes:
    data = b""
    async with asyncio.timeout(90):
        while not done(data):
            piece = await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
            assert piece, f"the socket was closed after {len(data)} bytes"
            data += piece
    return data


async def _closed(peer: socket.socket) -> bytes:
    """Read `peer` to its end."""
    data = b""
    async with asyncio.timeout(90):
        while piece := await asyncio.get_running_loop().sock_recv(peer, 1 << 20):
            data += piece
    return data


class _CountingTransport:
    """Counts the writes to a transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.writes: list[bytes] = []
        self._transport = transport
        self._write = transport.write
        transport.write = self.write  # type: ignore[method-assign] # to see the calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        self._write(data)


def _fill(driver: Driver) -> int:
    """Write until the socket is full, and return the number of bytes."""
    size = 0
    while driver.can_write:
        driver.write(b"x" * (1 << 17))
        size += 1 << 17
        assert size < 20 * WRITE_HIGH
    return size


# -- writing -------------------------------------------------------------------------------------------


async def test_writes_of_one_loop_iteration_are_sent_together() -> None:
    async with _driver(_Recorder()) as (driver, peer):
        assert driver._transport is not None
        counting = _CountingTransport(driver._transport)
        for number in range(100):
            driver.write(b"%d," % number)
        assert counting.writes == []
        expected = b"".join(b"%d," % number for number in range(100))
        assert await _read_until(peer, lambda data: len(data) >= len(expected)) == expected
        assert counting.writes == [expected]
        driver.write(b"next")
        await _read_until(peer, lambda data: data == b"next")
        assert counting.writes == [expected, b"next"]
        assert driver.bytes_sent == len(expected) + 4


async def test_large_data_is_sent_before_the_iteration_ends_and_in_order() -> None:
    async with _driver(_Recorder()) as (driver, peer):
        pieces = [bytes((number,)) * 50_000 for number in range(10)]
        for piece in pieces:
            driver.write(piece)
        assert 0 < driver.bytes_sent < 500_000
        assert await _read_until(peer, lambda data: len(data) >= 500_000) == b"".join(pieces)


async def test_a_peer_that_does_not_read_pauses_the_writer() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        await driver.drain()  # nothing to wait for
        size = _fill(driver)
        waiting = [asyncio.create_task(driver.drain()) for _ in range(2)]
        cancelled = asyncio.create_task(driver.drain())
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        assert handler.writable == 0
        cancelled.cancel()
        await _read_until(peer, lambda data: len(data) >= size)
        await asyncio.wait_for(asyncio.gather(*waiting), 90)
        assert cancelled.cancelled()
        assert handler.writable == 1
        driver.write(b"more")
        await _read_until(peer, lambda data: data == b"more")


async def test_drain_returns_when_the_connection_ends() -> None:
    async with _driver(_Recorder()) as (driver, _):
        _fill(driver)
        waiting = asyncio.create_task(driver.drain())
        await asyncio.sleep(0)
        driver.abort()
        await asyncio.wait_for(waiting, 90)
        await driver.drain()


# -- reading -------------------------------------------------------------------------------------------


async def test_received_data_becomes_events() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        peer.send(PROTOCOL_HEADER[:3])
        await eventually(lambda: driver.bytes_received == 3, "three bytes")
        assert handler.events == []
        peer.send(PROTOCOL_HEADER[3:])
        await eventually(lambda: handler.events, "an event")
        assert handler.events == [(HEADER, 0, PROTOCOL_HEADER)]
        assert driver.bytes_received == 8


class _Stream:
    """What a socket returns to `os.readv`, and how many bytes it did; then an error, the end or nothing for now."""

    def __init__(self, data: bytes, at_end: OSError | None = None) -> None:
        self.data = data
        self.at_end = at_end
        self.read = 0

    def readv(self, _: int, room: list[memoryview]) -> int:
        size = fill(room, self.data[self.read :])
        self.read += size
        if not size and self.at_end is not None:
            raise self.at_end
        return size


async def test_a_large_body_is_read_into_its_own_memory() -> None:
    handler = _Recorder()
    large, small = b"".join(delivery_frames(1, 3_000_000)), b"".join(delivery_frames(2, 100))
    begin, rest = large[:700_000], large[700_000:]  # within a frame
    async with _driver(handler, open_core()) as (driver, peer):
        loop = asyncio.get_running_loop()
        for number in range(2):
            await loop.sock_sendall(peer, begin)
            received = number * len(large + small) + len(begin)
            await eventually(lambda received=received: driver.bytes_received == received, "the beginning")  # type: ignore[misc] # of this round
            size = _fill(driver)  # the socket's buffer is full, and has room again, meanwhile
            driver.pause_reading()
            await _read_until(peer, lambda data, size=size: len(data) >= size)  # type: ignore[misc] # of this round
            driver.resume_reading()
            await loop.sock_sendall(peer, rest + small)
            await eventually(lambda: len(handler.events) == 2, "both deliveries")
            for event, sent in zip(handler.events, (large, small), strict=True):
                assert event == open_core().receive(sent)[0]
            handler.events.clear()
        assert handler.writable == 2
        await loop.sock_sendall(peer, begin)
        peer.close()
        await eventually(lambda: handler.lost, "on_lost")
    assert handler.events == []
    assert handler.lost == [None]


async def test_large_bodies_are_read_one_after_the_other_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = _Recorder()
    messages = [b"".join(delivery_frames(1, 700_000)), b"".join(delivery_frames(1, 600_000))]
    stream = _Stream(b"".join(messages)[262_144:-400_000], BlockingIOError())
    monkeypatch.setattr(os, "readv", stream.readv)
    async with _driver(handler, open_core()) as (driver, _):
        driver.data_received(messages[0][:262_144])
        assert stream.read == len(stream.data)
        assert handler.events == open_core().receive(messages[0])
        tracemalloc.start()
        try:
            driver.data_received(messages[1][-400_000:])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 600_000
        assert handler.events[1] == open_core().receive(messages[1])[0]


async def test_the_loop_has_its_turn_between_many_large_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    message = b"".join(delivery_frames(1, 1 << 20))
    stream = _Stream(message[262_144:] + message * 10, BlockingIOError())
    monkeypatch.setattr(os, "readv", stream.readv)
    async with _driver(_Recorder(), open_core()) as (driver, _):
        driver.data_received(message[:262_144])
        assert len(message) < driver.bytes_received < 4 * len(message)


@pytest.mark.parametrize("stop", [Driver.pause_reading, Driver.close, Driver.abort, Driver.finish])
async def test_no_more_is_read_once_the_handler_stops_it(
    stop: Callable[[Driver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class _Stopping(_Recorder):
        def on_events(self, events: list[Event]) -> None:
            super().on_events(events)
            stop(driver)

    handler = _Stopping()
    message = b"".join(delivery_frames(1, 300_000))
    stream = _Stream(message[100_000:] + message * 10, BlockingIOError())
    monkeypatch.setattr(os, "readv", stream.readv)
    async with _driver(handler, open_core()) as (driver, _):
        driver.data_received(message[:100_000])
        assert len(handler.events) == 1
        assert stream.read < 2 * len(message)
        driver.data_received(message[-10_000:])
        assert stream.read < 2 * len(message)


async def test_an_error_within_a_large_body_is_the_cause_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = _Recorder()
    error = ConnectionResetError("of the peer")
    monkeypatch.setattr(os, "readv", _Stream(b"", error).readv)
    async with _driver(handler, open_core()) as (driver, _):
        driver.data_received(b"".join(delivery_frames(1, 700_000))[:262_144])
        await eventually(lambda: handler.lost, "on_lost")
    assert handler.lost == [error]


async def test_what_follows_the_end_of_a_connection_within_a_large_body_is_discarded() -> None:
    handler = _Recorder()
    large = b"".join(delivery_frames(1, 3_000_000))
    async with _driver(handler, open_core()) as (driver, peer):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(peer, large[:700_000])
        await eventually(lambda: driver.bytes_received == 700_000, "the beginning")
        driver.finish()
        await loop.sock_sendall(peer, large[700_000:])
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda: handler.lost, "on_lost")
    assert handler.events == []


async def test_reading_pauses_and_resumes() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        driver.pause_reading()
        driver.pause_reading()
        peer.send(PROTOCOL_HEADER)
        for _ in range(20):
            await asyncio.sleep(0)
        assert driver.bytes_received == 0
        driver.resume_reading()
        driver.resume_reading()
        await eventually(lambda: handler.events, "an event")


# -- ending --------------------------------------------------------------------------------------------


async def test_close_sends_gathered_data_and_ends_once_without_an_error() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        driver.write(b"last words")
        driver.close()
        driver.write(b"too late")
        driver.close()
        assert await _closed(peer) == b"last words"
        await eventually(lambda: handler.lost, "on_lost")
        assert driver.is_closed
        assert driver.get_extra_info("peername") is None
        driver.write(b"much too late")
        driver.flush()
        driver.pause_reading()
        driver.resume_reading()
        driver.close()
        driver.abort(OSError("not the cause"))
        await asyncio.sleep(0)
    assert handler.lost == [None]


async def test_abort_ends_once_with_the_first_cause() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, _):
        cause = OSError("the cause")
        driver.write(b"never sent")
        driver.abort(cause)
        driver.abort()
        driver.abort(OSError("another"))
        await eventually(lambda: handler.lost, "on_lost")
        assert driver.bytes_sent == 0
    assert handler.lost == [cause]


async def test_end_of_file_ends_the_connection_without_an_error() -> None:
    handler = _Recorder()
    async with _driver(handler) as (_, peer):
        peer.close()
        await eventually(lambda: handler.lost, "on_lost")
    assert handler.lost == [None]


async def test_a_reset_is_reported_as_the_cause() -> None:
    handler = _Recorder()
    async with _driver(handler) as (_, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
        await eventually(lambda: handler.lost, "on_lost")
    assert len(handler.lost) == 1
    assert isinstance(handler.lost[0], ConnectionResetError)


# -- heartbeats ----------------------------------------------------------------------------------------


async def test_heartbeats_are_sent_when_the_connection_is_idle() -> None:
    async with _driver(_Recorder()) as (driver, peer):
        driver.start_heartbeat(0.1)
        peer.send(PROTOCOL_HEADER)
        beats = await _read_until(peer, lambda data: len(data) >= 2 * len(HEARTBEAT_FRAME))
        assert {beats[at : at + 8] for at in range(0, len(beats), 8)} == {HEARTBEAT_FRAME}


async def test_a_silent_peer_is_disconnected() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, _):
        driver.start_heartbeat(0.05)
        await eventually(lambda: handler.lost, "on_lost")
    assert len(handler.lost) == 1
    assert isinstance(handler.lost[0], HeartbeatMissed)
    assert "nothing came from the peer" in str(handler.lost[0])


async def test_a_sending_peer_is_not_disconnected() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        peer.send(PROTOCOL_HEADER)
        await eventually(lambda: handler.events, "an event")
        driver.start_heartbeat(0.5)
        loop = asyncio.get_running_loop()
        sent, longest = loop.time(), 0.0
        until = sent + 1.6  # more than three intervals
        while sent < until:
            peer.send(HEARTBEAT_FRAME)
            await asyncio.sleep(0.05)
            longest, sent = max(longest, loop.time() - sent), loop.time()
        assert handler.lost == [] or longest > 0.9  # a busy machine may have stopped the peer too


async def test_while_reading_is_paused_no_heartbeat_is_expected() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        driver.start_heartbeat(0.05)
        driver.pause_reading()
        await _read_until(peer, lambda data: len(data) >= 8 * len(HEARTBEAT_FRAME))  # four intervals
        assert handler.lost == []
        driver.resume_reading()
        await eventually(lambda: handler.lost, "on_lost")


async def test_an_interval_of_zero_turns_heartbeats_off() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, peer):
        driver.start_heartbeat(0.05)
        driver.start_heartbeat(0)
        await asyncio.sleep(0.2)
        assert handler.lost == []
        driver.write(hot.encode_ack(1, 1, multiple=False))
        assert await _read_until(peer, bool) == hot.encode_ack(1, 1, multiple=False)


async def test_closing_to_a_peer_that_reads_nothing_ends_by_heartbeat() -> None:
    handler = _Recorder()
    async with _driver(handler) as (driver, _):
        driver.start_heartbeat(0.05)
        _fill(driver)
        driver.close()
        await eventually(lambda: handler.lost, "on_lost")
    assert isinstance(handler.lost[0], HeartbeatMissed)
