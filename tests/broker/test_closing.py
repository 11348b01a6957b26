"""The end of a connection while the client still sends, in cases where RabbitMQ resets it, or can't be forced to."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

import rabbitry
from rabbitry.amqp import driver
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.methods import Method
from rabbitry.broker import Broker, BrokerConfig
from tests.support.steps import take_all
from tests.support.waiting import eventually

_MUCH = bytes(4 << 20)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0)) as broker:
        yield broker


class _Client:
    """A client that sends bytes and reads on demand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext | None = None) -> "_Client":
        """Connect and log in."""
        server_hostname = None if context is None else "localhost"
        client = cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_hostname))
        client.writer.write(PROTOCOL_HEADER)
        await client.method()
        client.send(m.ConnectionStartOk({}, "PLAIN", b"\0guest\0guest", "en_US"))
        await client.method()
        client.send(m.ConnectionTuneOk(2047, 131072, 0))
        client.send(m.ConnectionOpen("/"))
        await client.method()
        client.send(m.ChannelOpen(), 1)
        await client.method()
        return client

    def send(self, method: Method, channel: int = 0) -> None:
        self.writer.write(hot.encode_method_frame(channel, encode_method(method)))

    async def method(self) -> Method:
        """Read the next method."""
        async with asyncio.timeout(90):
            head = await self.reader.readexactly(7)
            payload = await self.reader.readexactly(int.from_bytes(head[3:], "big") + 1)
        return decode_method(payload[:-1])

    def go_on_sending(self) -> None:
        """Send messages of some megabytes in all."""
        publish = hot.encode_method_frame(1, encode_method(m.BasicPublish("", "nowhere")))
        message = publish + hot.encode_content(
            1, b"\0\x3c\0\0" + len(_MUCH).to_bytes(8, "big") + b"\0\0", _MUCH, 131064
        )
        self.writer.write(message)

    async def close(self) -> None:
        """Close the socket; raises ConnectionResetError if the broker has reset it."""
        await self.writer.drain()
        self.writer.close()
        await self.writer.wait_closed()


@pytest.mark.parametrize(
    "broken",
    [
        b"\x01\0\x01\0\0\0\x04\0\x14\0\x28!",
        b"\x03\0\x01\x7f\xff\xff\xff",
        b"\x09\0\x01\0\0\0\0\xce",
        b"GET / HTTP/1.1\r\n",
    ],
    ids=["wrong end", "too large", "unknown type", "HTTP"],
)
async def test_the_reason_of_a_frame_error_arrives(broker: Broker, broken: bytes) -> None:
    client = await _Client.open(broker.port)
    client.writer.write(broken)
    client.go_on_sending()
    method = await client.method()
    assert isinstance(method, m.ConnectionClose)
    assert method.reply_code == 501
    await client.close()
    await eventually(lambda: not broker.connections, "the connection is forgotten")


async def test_the_reason_of_a_refused_login_arrives(broker: Broker) -> None:
    client = _Client(*await asyncio.open_connection("127.0.0.1", broker.port))
    client.writer.write(PROTOCOL_HEADER)
    await client.method()
    capabilities = {"capabilities": {"authentication_failure_close": True}}
    client.send(m.ConnectionStartOk(capabilities, "PLAIN", b"\0guest\0wrong", "en_US"))
    client.go_on_sending()
    method = await client.method()
    assert isinstance(method, m.ConnectionClose)
    assert method.reply_code == 403
    await client.close()


async def test_the_answer_to_a_wrong_protocol_header_arrives(broker: Broker) -> None:
    client = _Client(*await asyncio.open_connection("127.0.0.1", broker.port))
    client.writer.write(b"GET / HTTP/1.1\r\n" + _MUCH)
    async with asyncio.timeout(90):
        assert await client.reader.read() == PROTOCOL_HEADER
    await client.close()


async def test_the_reason_arrives_when_the_broker_stops_or_deletes_the_virtual_host() -> None:
    async with Broker(BrokerConfig(port=0, vhosts=("/", "other"))) as broker:
        one = await _Client.open(broker.port)
        one.go_on_sending()
        take_all(broker.deleting_vhost("/"))
        one.go_on_sending()
        method = await one.method()
        assert isinstance(method, m.ConnectionClose)
        assert method.reply_text == "CONNECTION_FORCED - vhost '/' is deleted"
        one.send(m.ConnectionCloseOk())
        await one.close()
        await eventually(lambda: not broker.connections, "the connection is forgotten")


async def test_the_reason_arrives_when_the_broker_stops(broker: Broker) -> None:
    client = await _Client.open(broker.port)
    client.go_on_sending()
    stopping = asyncio.create_task(broker.__aexit__(None, None, None))
    client.go_on_sending()
    method = await client.method()
    assert isinstance(method, m.ConnectionClose)
    assert method.reply_code == 320
    client.send(m.ConnectionCloseOk())
    await client.close()
    await stopping


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_client_that_closes_with_the_broker_gets_close_ok(
    broker: Broker, is_busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its answer to the broker's close was read before its own close could be processed."""
    client = await _Client.open(broker.port)
    if is_busy:
        monkeypatch.setattr("rabbitry.broker._connection._TURN", -1.0)  # every piece waits for a later turn
    (connection,) = broker.connections
    connection.hang_up(320, "CONNECTION_FORCED - test")
    assert isinstance(await client.method(), m.ConnectionClose)
    both = (m.ConnectionClose(200, "bye"), m.ConnectionCloseOk())
    client.writer.write(b"".join(hot.encode_method_frame(0, encode_method(method)) for method in both))
    assert isinstance(await client.method(), m.ConnectionCloseOk)
    async with asyncio.timeout(90):
        assert await client.reader.read() == b""
    await client.close()
    await eventually(lambda: not broker.connections, "the connection is forgotten")


async def test_close_ok_and_a_reason_arrive_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(context)
    async with Broker(BrokerConfig(port=0, tls=server, tls_port=0)) as broker:
        for last, answer in (
            (m.ConnectionClose(200, "bye"), m.ConnectionCloseOk),
            (m.BasicGet("missing"), m.ConnectionClose),
        ):
            client = await _Client.open(broker.tls_port, context)
            client.send(last, 0)
            client.go_on_sending()
            assert isinstance(await client.method(), answer)
            await client.close()
        client = _Client(
            *await asyncio.open_connection("127.0.0.1", broker.tls_port, ssl=context, server_hostname="localhost")
        )
        client.writer.write(b"GET / HTTP/1.1\r\n" + _MUCH)
        async with asyncio.timeout(90):
            assert await client.reader.read() == PROTOCOL_HEADER  # to its end: it does not wait for the client
        await client.close()


async def test_a_client_that_never_stops_sending_is_cut_off(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_CLOSING_BYTES", 1 << 20)
    client = await _Client.open(broker.port)
    client.send(m.ConnectionClose(200, "bye"))

    async def send_for_ever() -> None:
        while True:
            client.go_on_sending()
            await client.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_for_ever(), 90)
    assert not broker.connections
    client.writer.close()


async def test_a_client_that_does_not_close_the_socket_is_cut_off(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver.Driver.expect_end, "__defaults__", (0.01,))
    monkeypatch.setattr(driver.Driver.finish, "__defaults__", (0.01,))
    client = await _Client.open(broker.port)
    client.send(m.ConnectionClose(200, "bye"))
    assert isinstance(await client.method(), m.ConnectionCloseOk)
    await eventually(lambda: not broker.connections, "the connection is forgotten")
    client.writer.close()


async def test_our_clients_close_reason_reaches_a_sending_broker() -> None:
    told: asyncio.Future[Method] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Client(reader, writer)
        await reader.readexactly(8)
        for method in (m.ConnectionStart(), m.ConnectionTune(2047, 131072, 0)):
            peer.send(method)
            await peer.method()
        await peer.method()
        peer.send(m.ConnectionOpenOk())
        writer.write(b"\x01\0\x01\0\0\0\x04\0\x14\0\x28!")
        writer.write(_MUCH)
        told.set_result(await peer.method())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(rabbitry.RabbitryError):
            async with rabbitry.connect(f"amqp://127.0.0.1:{port}/") as connection:
                await connection.channel()
        method = await asyncio.wait_for(told, 90)
    assert isinstance(method, m.ConnectionClose)
    assert method.reply_code == 501
