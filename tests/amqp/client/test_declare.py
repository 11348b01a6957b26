"""The `declare` function of `connect`, and limits of attempts, on both brokers."""

import asyncio
import logging
from collections.abc import Callable

import pytest

import rabbitry
from rabbitry.amqp.client import BlockingConnection, BrokerURL, Channel, Connection, RecoveryEvent, parse_url
from rabbitry.exceptions import (
    ConnectFailed,
    ConnectionClosed,
    LoginRefused,
    NotFound,
    PreconditionFailed,
    PublishReturned,
    RabbitryError,
    RequestTimeout,
    VirtualHostRefused,
)
from rabbitry.runtime import backoff
from rabbitry.runtime.backoff import Backoff
from tests.support.logs import messages
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "AT_START", Backoff(0.01, 0.01))
    monkeypatch.setattr(backoff, "AGAIN", Backoff(0.01, 0.01))


class Events:
    """The events of a connection, and waiting for them."""

    def __init__(self) -> None:
        self.seen: list[RecoveryEvent] = []

    def __call__(self, event: RecoveryEvent) -> None:
        self.seen.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen]

    async def until(self, kind: str, count: int = 1) -> None:
        await eventually(lambda: self.kinds.count(kind) >= count, f"{count} × {kind}")


async def test_declare_runs_before_the_first_use_and_after_each_loss(
    url: BrokerURL, proxy: FaultProxy, no_leaks: None
) -> None:
    calls: list[Connection] = []
    events = Events()

    async def declare(connection: Connection) -> None:
        calls.append(connection)
        async with await connection.channel() as channel:
            await channel.declare_queue("declared", auto_delete=True)
            await channel.declare_exchange("declared", "fanout", auto_delete=True)
            await channel.bind_queue("declared", "declared")

    async with rabbitry.connect(url, declare=declare, on_recovery=events) as connection:
        channel = await connection.channel()
        async with channel.consume("declared") as deliveries:
            for number in range(3):
                await channel.publish(b"%d" % number, exchange="declared")
                delivery = await anext(deliveries)
                while delivery.body != b"%d" % number:
                    delivery = await anext(deliveries)
                delivery.ack()
                # RabbitMQ keeps an auto-delete queue until it has noticed that the connection is gone.
                await (proxy.cut if number else proxy.reset)()
                await events.until("recovered", number + 1)
    assert calls == [connection] * 4


async def test_declare_decides_about_queues_with_other_flags(
    broker_url: str, url: BrokerURL, proxy: FaultProxy
) -> None:
    """The queue is redeclared with other flags while the connection is down: it is used as it is."""
    decided: list[str] = []
    events = Events()

    async def declare(connection: Connection) -> None:
        channel = await connection.channel()
        try:
            await channel.declare_queue("changed", durable=True)
        except PreconditionFailed:
            decided.append("used as it is")
        else:
            decided.append("declared")
            await channel.close()

    async with (
        rabbitry.connect(broker_url) as stranger,
        rabbitry.connect(url, declare=declare, on_recovery=events) as connection,
    ):
        channel = await connection.channel()
        proxy.refuse()
        await proxy.cut()
        await events.until("lost")
        meanwhile = await stranger.channel()
        await meanwhile.delete_queue("changed")
        await meanwhile.declare_queue("changed", durable=True, arguments={"x-max-length": 5})
        proxy.accept()
        await channel.publish(b"x", routing_key="changed")
        assert await meanwhile.delete_queue("changed") == 1
    assert decided == ["declared", "used as it is"]


async def test_recovery_redeclares_only_what_declare_does_not(
    url: BrokerURL, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Each recovery declares one server-named queue, not two; the other one gets a new name too."""
    names: list[str] = []
    events = Events()

    async def declare(connection: Connection) -> None:
        async with await connection.channel() as channel:
            names.append((await channel.declare_queue(exclusive=True)).name)

    async with rabbitry.connect(url, declare=declare, on_recovery=events) as connection:
        channel = await connection.channel()
        other = (await channel.declare_queue(exclusive=True)).name
        await proxy.cut()
        await events.until("recovered")
        assert connection._session.topology.queues.keys() == {other}
        assert len(set(names)) == 2
        await channel.publish(b"x", routing_key=names[1])
        assert await channel.purge_queue(names[1]) == 1
        async with channel.consume(other) as deliveries:
            await channel.publish(b"y", routing_key=other)
            assert (await anext(deliveries)).body == b"y"
    assert not any("not restored" in text for text in messages(caplog))


async def test_a_consumer_with_restore_gets_its_queue_from_declare(broker_url: str) -> None:
    async def declare(connection: Connection) -> None:
        async with await connection.channel() as channel:
            await channel.declare_queue("restored", durable=True)

    async with rabbitry.connect(broker_url, declare=declare) as connection:
        channel, other = await connection.channel(), await connection.channel()
        async with channel.consume("restored", restore=True) as deliveries, asyncio.TaskGroup() as group:
            await other.delete_queue("restored")
            group.create_task(_publish_until_routed(other, b"again", "restored"))
            delivery = await anext(deliveries)
            assert delivery.body == b"again"
            delivery.ack()
        await other.delete_queue("restored")


async def _publish_until_routed(channel: Channel, body: bytes, queue: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await channel.publish(body, routing_key=queue)
            except PublishReturned:
                await asyncio.sleep(0.01)  # until the queue is there again


@pytest.mark.parametrize(
    ("error", "is_tried_again"),
    [
        (NotFound(404, "its node is down"), True),
        (RequestTimeout("no answer"), True),
        (TimeoutError(), True),
        (PreconditionFailed(406, "inequivalent arg 'durable'"), False),
        (ValueError("a mistake of the program"), False),
    ],
)
async def test_errors_of_declare_are_retried_or_raised_by_connect(
    broker_url: str, no_leaks: None, error: Exception, is_tried_again: bool
) -> None:
    calls = 0

    async def declare(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise error

    if is_tried_again:
        async with rabbitry.connect(broker_url, declare=declare, connect_attempts=3) as connection:
            assert connection.is_open
        assert calls == 3
        calls = 0
        with pytest.raises(TimeoutError if isinstance(error, TimeoutError) else type(error)):
            await rabbitry.connect(broker_url, declare=declare, connect_attempts=2)
    else:
        with pytest.raises(type(error)):
            await rabbitry.connect(broker_url, declare=declare, connect_attempts=3)
        assert calls == 1


@pytest.mark.parametrize("error", [PreconditionFailed(406, "inequivalent arg 'durable'"), ValueError("mistake")])
async def test_an_error_of_declare_after_a_loss_ends_the_connection(
    url: BrokerURL, proxy: FaultProxy, no_leaks: None, error: Exception
) -> None:
    calls = 0

    async def declare(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise error

    connection = await rabbitry.connect(url, declare=declare)
    channel = await connection.channel()
    queue = (await channel.declare_queue(exclusive=True)).name
    async with connection, channel.consume(queue) as deliveries:
        await proxy.cut()
        with pytest.raises(ConnectionClosed, match=str(error.args[-1])) as raised:
            await anext(deliveries)
        assert raised.value.__cause__ is error


async def test_a_loss_within_declare_is_a_failed_attempt(url: BrokerURL, proxy: FaultProxy, no_leaks: None) -> None:
    calls = 0

    async def declare(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        channel = await connection.channel()
        if calls in (1, 3, 4):
            await proxy.cut()
        await channel.declare_queue(exclusive=True)
        await channel.close()

    with pytest.raises(ConnectFailed, match="before the connection could be used"):
        await rabbitry.connect(url, declare=declare)
    assert calls == 1
    events = Events()
    async with rabbitry.connect(url, declare=declare, connect_attempts=None, on_recovery=events) as connection:
        await proxy.cut()
        await events.until("recovered")
        assert connection.is_open
    assert calls == 5
    assert events.kinds == ["lost", "recovering", "recovering", "recovering", "recovered"]


async def test_closing_within_declare_ends_the_connection(broker_url: str, no_leaks: None) -> None:
    async def close(connection: Connection) -> None:
        await connection.close()

    with pytest.raises(RabbitryError, match="closed by this program"):
        await rabbitry.connect(broker_url, declare=close)

    given: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def wait(connection: Connection) -> None:
        given.set_result(connection)
        await asyncio.Event().wait()

    async def connect() -> None:
        await rabbitry.connect(broker_url, declare=wait)

    connecting = asyncio.create_task(connect())
    connection = await given
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    with pytest.raises(ConnectionClosed):
        await connection.channel()


@pytest.mark.parametrize(
    ("changes", "error"), [({"password": "wrong"}, LoginRefused), ({"virtual_host": "nowhere"}, VirtualHostRefused)]
)
async def test_a_refused_login_or_virtual_host_is_not_retried(
    broker_url: str, no_leaks: None, changes: dict[str, str], error: type[Exception]
) -> None:
    events = Events()
    url = parse_url(broker_url)._replace(**changes)  # type: ignore[arg-type] # names of string fields only
    with pytest.raises(error):
        await rabbitry.connect(url, connect_attempts=None, on_recovery=events)
    assert events.seen == []


async def test_first_attempts_are_reported_and_counted(no_leaks: None, caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    port = free_port()
    with pytest.raises(ConnectFailed):
        await rabbitry.connect(f"amqp://127.0.0.1:{port}", connect_attempts=3, on_recovery=events)
    assert [(event.kind, event.attempt) for event in events.seen] == [("connecting", 2), ("connecting", 3)]
    assert all(isinstance(event.error, ConnectFailed) for event in events.seen)
    warned = [text for text in messages(caplog) if "trying again in" in text]
    assert len(warned) == 2
    assert all(str(port) in text for text in warned)
    assert "(attempt 1 of 3)" in warned[0]


async def test_without_a_limit_connect_waits_for_the_broker(
    url: BrokerURL, proxy: FaultProxy, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events = Events()
    proxy.refuse()

    async def connect() -> Connection:
        return await rabbitry.connect(url, connect_attempts=None, on_recovery=events, log_level=logging.DEBUG)

    connecting = asyncio.create_task(connect())
    await events.until("connecting", 5)
    proxy.accept()
    async with await connecting as connection:
        assert connection.is_open
    assert {record.levelno for record in caplog.records if "trying again" in record.getMessage()} == {logging.DEBUG}


async def test_a_recovery_ends_after_as_many_attempts_as_asked_for(
    url: BrokerURL, proxy: FaultProxy, no_leaks: None
) -> None:
    events = Events()
    async with rabbitry.connect(url, recovery_attempts=3, on_recovery=events) as connection:
        proxy.refuse()
        await proxy.cut()
        await connection.wait_closed()
        assert connection.close_reason is not None
        assert isinstance(connection.close_reason.__cause__, ConnectFailed)
    assert events.kinds == ["lost", "recovering", "recovering", "recovering", "failed"]


def test_declare_of_a_script_gets_the_blocking_connection(broker_url: str) -> None:
    given: list[BlockingConnection] = []

    def declare(connection: BlockingConnection) -> None:
        given.append(connection)
        with connection.channel() as channel:
            channel.declare_queue("scripted", auto_delete=True)

    with rabbitry.connect_blocking(broker_url, declare=declare) as connection:
        channel = connection.channel()
        channel.publish(b"x", routing_key="scripted")
        assert channel.delete_queue("scripted") == 1
    assert given == [connection]


@pytest.mark.parametrize("error", [PreconditionFailed(406, "otherwise"), ValueError("mistake")])
def test_an_error_of_declare_is_raised_in_a_script(broker_url: str, no_leaks: None, error: Exception) -> None:
    def declare(connection: BlockingConnection) -> None:
        raise error

    with pytest.raises(type(error)):
        rabbitry.connect_blocking(broker_url, declare=declare)


async def test_declare_of_a_script_runs_after_a_loss(url: BrokerURL, proxy: FaultProxy) -> None:
    events = Events()

    def declare(connection: BlockingConnection) -> None:
        with connection.channel() as channel:
            channel.declare_queue("scripted", durable=True)

    def script(lost: Callable[[], None]) -> int:
        with rabbitry.connect_blocking(url, declare=declare, on_recovery=events) as connection:
            channel = connection.channel()
            with channel.consume("scripted") as deliveries:
                lost()
                channel.publish(b"x", routing_key="scripted")
                deliveries.next().ack()
            return channel.delete_queue("scripted")

    loop = asyncio.get_running_loop()

    def lose() -> None:
        asyncio.run_coroutine_threadsafe(proxy.cut(), loop).result()

    assert await asyncio.to_thread(script, lose) == 0
    assert events.kinds[-1] == "recovered"
