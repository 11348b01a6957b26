"""Connecting and closing on both brokers, and every way to be refused."""

import asyncio
import socket

import pytest

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.exceptions import (
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    RequestTimeout,
    UsageError,
    VirtualHostRefused,
)
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually


def _changed(url: str, *, password: str = "guest", virtual_host: str = "/") -> BrokerURL:
    return parse_url(url)._replace(password=password, virtual_host=virtual_host)


async def test_a_connection_opens_and_closes_in_order(broker_url: str, no_leaks: None) -> None:
    connection = await rabbitry.connect(broker_url, name="a test")
    was_open = connection.is_open
    assert connection.server_properties["product"] == "RabbitMQ"
    assert connection.close_reason is None
    channel = await connection.channel()
    await connection.close()
    await connection.wait_closed()
    assert (was_open, connection.is_open) == (True, False)
    assert not channel.is_open
    with pytest.raises(ConnectionClosed, match="closed by this program"):
        await connection.channel()
    await connection.close()


async def test_a_result_of_connect_is_awaited_or_entered_once(broker_url: str, no_leaks: None) -> None:
    awaited = rabbitry.connect(broker_url)
    connection = await awaited
    with pytest.raises(UsageError, match=r"call rabbitry\.connect again"):
        await awaited
    with pytest.raises(UsageError, match=r"call rabbitry\.connect again"):
        async with awaited:
            pass
    await connection.close()
    entered = rabbitry.connect(broker_url)
    async with entered as connection:
        with pytest.raises(UsageError, match=r"call rabbitry\.connect again"):
            await entered
        assert connection.is_open
    with pytest.raises(UsageError, match=r"call rabbitry\.connect again"):
        async with entered:
            pass
    with pytest.raises(ConnectionClosed, match="closed by this program"):
        async with connection:
            pass


def test_connect_can_be_called_before_there_is_an_event_loop(embedded_url: str) -> None:
    connecting = rabbitry.connect(embedded_url)

    async def main() -> bool:
        async with connecting as connection:
            return connection.is_open

    assert asyncio.run(main())


async def test_a_wrong_password_is_a_refused_login_without_the_password(broker_url: str) -> None:
    with pytest.raises(LoginRefused, match="guest") as error:
        await rabbitry.connect(_changed(broker_url, password="not-the-one"))
    assert "not-the-one" not in str(error.value)


async def test_an_unknown_virtual_host_is_refused(broker_url: str) -> None:
    with pytest.raises(VirtualHostRefused, match="no-such-vhost"):
        await rabbitry.connect(_changed(broker_url, virtual_host="no-such-vhost"))


async def test_a_port_without_a_listener_is_named() -> None:
    port = free_port()
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
        await rabbitry.connect(f"amqp://127.0.0.1:{port}/")


async def test_the_next_host_is_tried(broker_url: str) -> None:
    url = parse_url(broker_url)
    several = BrokerURL(
        hosts=(("127.0.0.1", free_port()), *url.hosts),
        user=url.user,
        password=url.password,
        virtual_host=url.virtual_host,
    )
    async with rabbitry.connect(several) as connection:
        assert connection.is_open


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x02"])
async def test_a_server_without_amqp_is_named(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ConnectFailed, match="AMQP"):
            await rabbitry.connect(f"amqp://127.0.0.1:{port}/")


async def test_a_silent_host_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConnectFailed, match=r"within 0\.2 s"):
            await rabbitry.connect(f"amqp://127.0.0.1:{port}/", timeout=0.2)


async def test_a_timeout_on_a_request_leaves_the_channel_in_order(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        with pytest.raises(RequestTimeout):
            await channel.declare_queue("q", timeout=0)
        assert (await channel.declare_queue("q")).name == "q"
        await channel.delete_queue("q")


async def test_channel_numbers_are_used_again(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        for _ in range(5):
            async with await connection.channel() as channel:
                assert channel.number == 1


async def test_a_lost_broker_fails_all_waiters_with_the_cause(broker_url: str) -> None:
    async with rabbitry.connect(broker_url, recover=False) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        async with channel.consume(queue) as deliveries:
            assert connection._session.link is not None
            connection._session.link.driver.abort(ConnectionResetError("cut by the test"))
            with pytest.raises(ConnectionClosed, match="cut by the test"):
                await anext(deliveries)
        await connection.wait_closed()
        assert isinstance(connection.close_reason, ConnectionClosed)
        with pytest.raises(ConnectionClosed):
            await channel.publish(b"x", routing_key=queue)


async def test_exchanges_are_bound_to_each_other(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("source", "topic", durable=True)
        await channel.declare_exchange("destination", "fanout")
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.bind_exchange("destination", "source", "a.*")
        await channel.bind_queue(queue, "destination")
        await channel.publish(b"through both", exchange="source", routing_key="a.b")
        assert await channel.purge_queue(queue) == 1
        await channel.unbind_exchange("destination", "source", "a.*")
        with pytest.raises(rabbitry.PublishReturned):
            await channel.publish(b"x", exchange="source", routing_key="a.b")
        await channel.unbind_queue(queue, "destination")
        await channel.delete_exchange("source")
        await channel.delete_exchange("destination")


async def test_a_socket_closed_after_the_login_is_not_a_refusal(broker_url: str) -> None:
    """RabbitMQ refuses a login with 403; a socket that just closes is a broker that is shutting down."""
    heard = 0

    def count(way: Way, data: bytes) -> None:
        nonlocal heard
        heard += way is Way.TO_SERVER
        if heard == 2:
            proxy.pause(Way.TO_CLIENT)  # the login is not answered any more

    async with FaultProxy(parse_url(broker_url).hosts[0][1], tap=count) as proxy:
        url = parse_url(broker_url)._replace(hosts=(("127.0.0.1", proxy.port),))

        async def connect() -> None:
            await rabbitry.connect(url)

        connecting = asyncio.create_task(connect())
        await eventually(lambda: heard >= 2, "protocol header and login")
        await proxy.cut()
        with pytest.raises(ConnectFailed, match="closed the socket") as error:
            await connecting
        assert not isinstance(error.value, LoginRefused)


async def test_channels_can_end_while_the_connection_closes(broker_url: str) -> None:
    connection = await rabbitry.connect(broker_url)
    channel = await connection.channel()
    consumer = channel.consume((await channel.declare_queue("", exclusive=True)).name)
    await consumer.start()
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)  # connection.close is sent, the answer is not here yet
    with pytest.raises(rabbitry.ConnectionClosed):
        await channel.declare_queue("", exclusive=True)
    await consumer.cancel()
    await channel.close()
    await closing
    await consumer.cancel()
    await channel.close()
