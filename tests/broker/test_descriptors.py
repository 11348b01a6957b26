"""A broker that runs out of file descriptors: it keeps serving, logs it once, and recovers."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.runtime.accepting import Acceptor, Visitor
from rabbitry.runtime.http import connections as limits
from rabbitry.runtime.listening import open_listeners
from tests.support.embedded import BrokerProcess
from tests.support.waiting import eventually

_MOST = 96


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


async def test_clients_that_never_log_in_do_not_shut_out_others(tmp_path: Path) -> None:
    with BrokerProcess("--data", str(tmp_path)) as broker:
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (_MOST, _MOST))
        async with rabbitry.connect(broker.url) as before:
            channel = await before.channel()
            await channel.declare_queue("kept", durable=True)
            with contextlib.ExitStack() as idle:
                for _ in range(2 * _MOST):
                    idle.enter_context(contextlib.closing(_connect(broker.port)))
                for number in range(3):
                    async with rabbitry.connect(broker.url) as later:
                        other = await later.channel()
                        await other.publish(str(number).encode(), routing_key="kept")
                await channel.publish(b"stored", routing_key="kept")
                assert (await channel.declare_queue("kept", passive=True)).message_count == 4
                assert broker.output().count("out of file descriptors") == 1
            await eventually(lambda: "there are file descriptors" in broker.output(), "it says that it is over")
            assert broker.output().count("out of file descriptors") == 1
            assert "Traceback" not in broker.output()
        assert broker.stop() == 0


async def test_the_newest_connections_are_closed_if_all_have_logged_in(tmp_path: Path) -> None:
    with BrokerProcess("--data", str(tmp_path)) as broker:
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (_MOST, _MOST))
        async with contextlib.AsyncExitStack() as stack:
            channels = []
            for _ in range(_MOST):
                try:
                    connection = await stack.enter_async_context(rabbitry.connect(broker.url))
                except rabbitry.RabbitryError:
                    break
                channels.append(await connection.channel())
            else:
                pytest.fail("no connection was refused")
            for channel in channels:
                queue = await channel.declare_queue("", exclusive=True, durable=False)
                await channel.publish(b"still here", routing_key=queue.name)
        assert broker.stop() == 0


class _Silent(asyncio.Protocol):
    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor

    def connection_lost(self, exc: Exception | None) -> None:
        self.visitor.leave()


async def test_the_oldest_connection_without_a_login_is_closed_first() -> None:
    acceptor = Acceptor(kept=30)
    (listener,) = open_listeners("127.0.0.1", 0)
    port = listener.getsockname()[1]
    acceptor.add(listener, _Silent)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: acceptor.without_login == 1, "the first is there")
    with _free(22):  # fewer than are kept, and more than half of them
        _, second_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        await eventually(lambda: acceptor.without_login == 1 and acceptor.closed == 1, "the second took its place")
        assert acceptor.is_short
    await eventually(lambda: not acceptor.is_short, "there are descriptors again")
    for each in (writer, second_writer):
        each.close()
    await eventually(lambda: acceptor.without_login == 0, "a connection that is gone counts no longer")
    await acceptor.close()


@contextlib.contextmanager
def _free(count: int) -> Iterator[None]:
    """Leave this process so many file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Failing(socket.socket):
    """A listening socket whose first accepts fail in a way that is no OSError."""

    failures = 2

    def accept(self) -> tuple[socket.socket, Any]:
        if _Failing.failures:
            _Failing.failures -= 1
            raise ValueError("not this time")
        return super().accept()


async def test_no_error_ends_a_listener(caplog: pytest.LogCaptureFixture) -> None:
    acceptor = Acceptor()
    (opened,) = open_listeners("127.0.0.1", 0)
    listener = _Failing(fileno=opened.detach())
    made = 0

    def make(visitor: Visitor) -> asyncio.Protocol:
        nonlocal made
        made += 1
        if made == 1:
            raise LookupError("no protocol")
        return _Silent(visitor)

    acceptor.add(listener, make)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    assert await reader.read() == b"", "nobody serves it"
    writer.close()
    _, second = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    await eventually(lambda: made == 2 and acceptor.without_login == 1, "the next one is served")
    second.close()
    await eventually(lambda: acceptor.without_login == 0, "none is counted any more")
    await acceptor.close()
    assert caplog.text.count("can't accept connections, trying again: not this time") == 1
    assert "can't serve a connection: closed" in caplog.text


async def test_an_unfinished_tls_handshake_counts_and_ends_with_the_acceptor() -> None:
    acceptor = Acceptor()
    (listener,) = open_listeners("127.0.0.1", 0)
    acceptor.add(listener, _Silent, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    await eventually(lambda: acceptor.without_login == 1, "it is accepted")
    await acceptor.close()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert acceptor.without_login == 0


def test_localhost_listens_on_both_families_with_one_port() -> None:
    sockets = open_listeners("localhost", 0)
    try:
        addresses = [each.getsockname()[:2] for each in sockets]
        assert addresses[0][0] == "127.0.0.1"
        assert len({port for _, port in addresses}) == 1
        assert [host for host, _ in addresses[1:]] == (["::1"] if _has_ipv6() else [])
    finally:
        for each in sockets:
            each.close()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_localhost_listens_on_ipv4_alone_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], *, family: int = socket.AF_INET, backlog: int = 5) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return create(address, backlog=backlog)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    (listener,) = open_listeners("localhost", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


async def test_the_management_api_waits_ten_seconds_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_WITHIN", 0.1)
    monkeypatch.setattr(limits, "LINGER", 0.1)
    async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
        for sent in (b"", b"GET /api/overview HTT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.management_port)
            writer.write(sent)
            assert b"408" in await reader.read()
            writer.close()
        await eventually(lambda: broker.acceptor.without_login == 0, "they count no longer")
