"""Options of `connect`: TLS, heartbeat, credentials, client properties, attempts, and `on_blocked`."""

import asyncio
import inspect
import ssl
from collections.abc import Callable

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, parse_url
from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client.connection import Connection
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.reading import Reason
from rabbitry.exceptions import ConnectFailed, LoginRefused, UsageError
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually


def _link(connection: Connection) -> Link:
    assert connection._session.link is not None
    return connection._session.link


async def test_the_heartbeat_option_overrides_the_url(broker_url: str) -> None:
    url = parse_url(broker_url)._replace(heartbeat=40)
    async with rabbitry.connect(url, heartbeat=7) as connection:
        assert _link(connection).heartbeat == 7
    async with rabbitry.connect(url) as connection:
        assert _link(connection).heartbeat == 40


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rabbitry.connect("amqp://localhost", heartbeat=-1), "heartbeat=-1 is out of range"),
        (lambda: rabbitry.connect("amqp://localhost", heartbeat=65536), "heartbeat=65536 is out of range"),
        (
            lambda: rabbitry.connect("amqp://localhost", connect_attempts=0),
            "connect_attempts=0 is too small: pass 1 or more",
        ),
        (
            lambda: rabbitry.connect("amqp://localhost", client_properties={"capabilities": {}}),
            "can't contain 'capabilities'",
        ),
        (lambda: rabbitry.connect("amqp://localhost", ssl=ssl.create_default_context()), "ssl= needs .* amqps://"),
    ],
)
def test_invalid_options_raise_a_usage_error(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


async def test_the_broker_gets_the_client_properties() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        mine = {"product": "shop", "commit": "4ab2"}
        async with rabbitry.connect(broker.url, name="the shop", client_properties=mine):
            (seen,) = [connection.client_properties for connection in broker.connections]
    assert (seen["product"], seen["commit"], seen["connection_name"]) == ("shop", "4ab2", "the shop")
    assert "capabilities" in seen


@pytest.mark.parametrize("is_async", [False, True])
async def test_credentials_are_asked_for_at_each_login(broker_url: str, is_async: bool) -> None:
    parsed = parse_url(broker_url)
    asked: list[str] = []

    def plain() -> tuple[str, str]:
        asked.append("now")
        return parsed.user, parsed.password

    async def awaited() -> tuple[str, str]:
        return plain()

    async with FaultProxy(parsed.hosts[0][1]) as proxy:
        url = parsed._replace(hosts=(("127.0.0.1", proxy.port),), user="nobody", password="expired")
        async with rabbitry.connect(url, credentials=awaited if is_async else plain) as connection:
            assert len(asked) == 1
            channel = await connection.channel()
            await channel.declare_queue("q", auto_delete=True)
            _link(connection).driver.abort()
            await eventually(lambda: len(asked) == 2 and connection.is_open, "it logged in again")
            await channel.publish(b"x", routing_key="q")


async def test_wrong_or_failing_credentials_raise_an_error(broker_url: str) -> None:
    with pytest.raises(LoginRefused):
        await rabbitry.connect(broker_url, credentials=lambda: ("nobody", "nothing"))

    def failing() -> tuple[str, str]:
        raise OSError("the token server is away")

    with pytest.raises(ConnectFailed, match="credentials function raised OSError: the token server is away"):
        await rabbitry.connect(broker_url, credentials=failing)


def test_connect_blocking_takes_the_same_options(broker_url: str) -> None:
    parsed = parse_url(broker_url)
    with rabbitry.connect_blocking(
        parsed._replace(password="expired"),
        heartbeat=9,
        credentials=lambda: (parsed.user, parsed.password),
        client_properties={"commit": "4ab2"},
        connect_attempts=2,
        on_blocked=print,
    ) as connection:
        connection.update_secret(parsed.password, reason="the token was renewed")
        assert connection.is_open
    names = list(inspect.signature(rabbitry.connect).parameters)
    assert list(inspect.signature(rabbitry.connect_blocking).parameters) == names


async def test_a_new_secret_is_taken_and_used_for_the_next_login(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        secret = connection.url.password
        await asyncio.gather(*(connection.update_secret(secret, reason="renewed") for _ in range(3)))
        channel = await connection.channel()
        await channel.declare_queue("", exclusive=True)
        await connection.update_secret("another")
        assert connection.url.password == "another"
        assert "another" not in repr(connection)
    with pytest.raises(rabbitry.ConnectionClosed):
        await connection.update_secret("late")


async def test_hosts_are_tried_as_often_as_asked_for() -> None:
    port = free_port()
    url = BrokerURL(hosts=(("127.0.0.1", port),))

    async def connect() -> Connection:
        return await rabbitry.connect(url, connect_attempts=100)

    connecting = asyncio.create_task(connect())
    async with Broker(BrokerConfig(port=port)), await connecting as connection:
        assert connection.is_open
    with pytest.raises(ConnectFailed, match="refused"):
        await rabbitry.connect(url, connect_attempts=2)


async def test_on_blocked_is_called_and_may_fail() -> None:
    told: list[str | None] = []

    def listen(reason: str | None) -> None:
        told.append(reason)
        raise ValueError("the program's own fault")

    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url, on_blocked=listen) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        await broker.alarms.stop()  # it would look at the memory that there is
        broker.alarms.set(Reason.MEMORY, is_on=True)
        await channel.send(b"x", routing_key="q")
        await eventually(lambda: len(told) == 1, "the block is told")
        broker.alarms.set(Reason.MEMORY, is_on=False)
        await eventually(lambda: len(told) == 2, "its end is told")
    assert "memory" in str(told[0])
    assert told[1] is None


def test_without_asyncio_connecting_names_the_reason() -> None:
    async def connect() -> None:
        await rabbitry.connect("amqp://localhost")

    with pytest.raises(UsageError, match=r"asyncio only \(not on trio\)"):
        connect().send(None)
