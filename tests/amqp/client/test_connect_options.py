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


_URL = "amqp://127.0.0.1:1/"  # nothing listens there, nor is it tried


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": 5}, "a broker URL must be text, not int"),
        ({"url": b"amqp://localhost"}, "a broker URL must be text, not bytes"),
        ({"name": 5}, "name= must be text, not int"),
        ({"timeout": "10"}, "timeout= must be a number of seconds, not str"),
        ({"timeout": 0}, "timeout=0 is no time limit: pass seconds above 0"),
        ({"request_timeout": -1.5}, "request_timeout=-1.5 is no time limit"),
        ({"publish_timeout": "60"}, "publish_timeout= must be a number"),
        ({"recovery_timeout": float("nan")}, "recovery_timeout=nan is no time limit"),
        ({"recover": "no"}, "recover= must be True or False, not str"),
        ({"connect_attempts": "3"}, "connect_attempts= must be a whole number, or None"),
        ({"recovery_attempts": 2.5}, "recovery_attempts= must be a whole number, or None"),
        ({"log_level": "INFO"}, r"log_level= must be a number such as logging\.INFO, not str"),
        ({"heartbeat": "5"}, "heartbeat= must be a whole number of seconds, not str"),
        ({"client_properties": ["a"]}, "client_properties= must be a dict, not list"),
        ({"on_recovery": "f"}, "on_recovery= must be a function, not str"),
        ({"on_blocked": 3}, "on_blocked= must be a function, not int"),
        ({"declare": 3}, "declare= must be a function, not int"),
        ({"credentials": ("user", "secret")}, "credentials= must be a function, not tuple$"),
        ({"url": "amqps://127.0.0.1:1/", "ssl": True}, r"ssl= must be an ssl\.SSLContext, not bool"),
    ],
)
@pytest.mark.parametrize("connect", [rabbitry.connect, rabbitry.connect_blocking])
def test_an_option_of_a_wrong_type_is_named(
    connect: Callable[..., object], options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        connect(**{"url": _URL} | options)
    assert "\n" not in str(raised.value)


def test_wrong_arguments_of_channels_and_deliveries_are_named(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection:
        with pytest.raises(UsageError, match="prefetch=70000 is out of range: pass a whole number from 0"):
            connection.channel(prefetch=70_000)
        with pytest.raises(UsageError, match="a secret must be text, not int"):
            connection.update_secret(5)  # type: ignore[arg-type] # the mistake that is tested
        channel = connection.channel()
        with pytest.raises(UsageError, match="prefetch='5' is out of range"):
            channel.qos("5")  # type: ignore[arg-type] # the mistake that is tested
        queue = channel.declare_queue("", exclusive=True).name
        with pytest.raises(UsageError, match="consume takes the name of a queue, not list; consume_all takes a list"):
            channel.consume([queue])  # type: ignore[arg-type] # the mistake that is tested
        with pytest.raises(UsageError, match="consume_all takes a list of queues, not one name: pass"):
            channel.consume_all(queue)
        for other in (channel, connection.channel(confirms=False)):
            with pytest.raises(UsageError, match=r"properties= must be rabbitry.Properties\(…\), not dict"):
                other.publish(b"x", routing_key=queue, properties={"priority": 1})  # type: ignore[arg-type] # the same
        channel.publish(b"x", routing_key=queue)
        delivery = channel.get(queue)
        assert delivery is not None
        for requeue in ("yes", ("yes",)):
            with pytest.raises(UsageError, match=r"requeue=.*: pass True, False, an exception class or a tuple"):
                delivery.process(requeue=requeue)  # type: ignore[arg-type] # the mistake that is tested
        delivery.ack()


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
