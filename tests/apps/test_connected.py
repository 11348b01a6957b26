"""Work over a connection that recovers, and the errors after which it begins anew or gives up."""

import asyncio

import pytest

from rabbitry.amqp.client import Connection, RecoveryEvent, parse_url
from rabbitry.apps._connected import run_connected
from rabbitry.exceptions import (
    AccessRefused,
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    LoginRefused,
    NotFound,
    PreconditionFailed,
    RabbitryError,
    RequestTimeout,
    ResourceLocked,
    VirtualHostRefused,
)
from rabbitry.runtime import backoff
from rabbitry.runtime.backoff import Backoff
from rabbitry.runtime.tasks import until
from tests.apps.monitor.wire import through
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "AT_START", Backoff(0.01, 0.01))
    monkeypatch.setattr(backoff, "AGAIN", Backoff(0.01, 0.01))


class Work:
    """Work that fails with each of the given errors in turn, then returns."""

    def __init__(self, *errors: RabbitryError) -> None:
        self._errors = list(errors)
        self.connections: list[Connection] = []
        self.events: list[RecoveryEvent] = []

    async def run(self, connection: Connection) -> None:
        assert connection.is_open
        self.connections.append(connection)
        if self._errors:
            raise self._errors.pop(0)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(320, "lost three times"),
        ConsumerCancelled("tag", "queue"),
        NotFound(404, "no exchange"),
        RequestTimeout("no answer"),
        ResourceLocked(405, "another connection has the queue"),
    ],
)
async def test_work_that_lost_what_it_needs_begins_anew(broker_url: str, no_leaks: None, error: RabbitryError) -> None:
    work = Work(error, error)
    await run_connected(broker_url, work.run, name="test", stop=asyncio.Event(), on_recovery=work.events.append)
    assert len(set(work.connections)) == 3
    assert not any(connection.is_open for connection in work.connections)
    assert [(event.kind, event.error) for event in work.events] == [("lost", error)] * 2


async def test_another_error_ends_it(broker_url: str, no_leaks: None) -> None:
    work = Work(AccessRefused(403, "not yours"))
    with pytest.raises(AccessRefused):
        await run_connected(broker_url, work.run, name="test", stop=asyncio.Event())
    assert not work.connections[0].is_open


@pytest.mark.parametrize(
    ("changes", "error"), [({"password": "wrong"}, LoginRefused), ({"virtual_host": "nowhere"}, VirtualHostRefused)]
)
async def test_a_refused_login_or_virtual_host_is_not_retried(
    broker_url: str, no_leaks: None, changes: dict[str, str], error: type[Exception]
) -> None:
    work = Work()
    url = parse_url(broker_url)._replace(**changes)  # type: ignore[arg-type] # names of string fields only
    with pytest.raises(error):
        await run_connected(url, work.run, name="test", stop=asyncio.Event(), on_recovery=work.events.append)
    assert work.events == []


async def test_attempts_at_the_start_are_counted(no_leaks: None) -> None:
    work = Work()
    with pytest.raises(ConnectFailed):
        await run_connected(
            f"amqp://127.0.0.1:{free_port()}",
            work.run,
            name="test",
            stop=asyncio.Event(),
            connect_attempts=3,
            on_recovery=work.events.append,
        )
    assert work.kinds == ["connecting", "connecting"]


async def test_the_work_goes_on_over_a_connection_that_came_back(broker_url: str, no_leaks: None) -> None:
    """A limit of first attempts does not apply after a loss."""
    runs = 0
    events: asyncio.Queue[RecoveryEvent] = asyncio.Queue()

    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:

        async def work(connection: Connection) -> None:
            nonlocal runs
            runs += 1
            channel = await connection.channel()
            queue = (await channel.declare_queue(exclusive=True)).name
            proxy.refuse()
            await proxy.cut()
            while (event := await events.get()).kind != "recovered":
                if event.attempt == 3:
                    proxy.accept()
            await channel.publish(b"x", routing_key=queue)

        await run_connected(
            through(proxy, broker_url),
            work,
            name="test",
            stop=asyncio.Event(),
            connect_attempts=1,
            on_recovery=events.put_nowait,
        )
    assert runs == 1


async def test_the_error_that_ends_a_recovery_is_raised(broker_url: str, no_leaks: None) -> None:
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:

        async def lose(connection: Connection) -> None:
            proxy.refuse()
            await proxy.cut()
            await asyncio.Event().wait()

        url = through(proxy, broker_url)
        with pytest.raises(ConnectFailed):
            await run_connected(url, lose, name="test", stop=asyncio.Event(), recovery_attempts=2)

        proxy.accept()
        calls = 0

        async def declare(connection: Connection) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise PreconditionFailed(406, "inequivalent arg")

        async def cut(connection: Connection) -> None:
            await proxy.cut()
            await asyncio.Event().wait()

        with pytest.raises(PreconditionFailed, match="inequivalent"):
            await run_connected(url, cut, name="test", stop=asyncio.Event(), declare=declare)
        assert calls == 2


async def test_a_connection_that_the_broker_closed_for_good_is_made_anew(broker_url: str, no_leaks: None) -> None:
    connections: list[Connection] = []

    async def work(connection: Connection) -> None:
        connections.append(connection)
        if len(connections) == 1:
            connection._session.end(ConnectionClosed(530, "NOT_ALLOWED"))
            await asyncio.Event().wait()

    await run_connected(broker_url, work, name="test", stop=asyncio.Event())
    assert len(set(connections)) == 2


@pytest.mark.parametrize("is_first", [True, False])
async def test_stop_ends_the_waiting_for_the_broker(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """Stop in the pause between two attempts, at the start and after a loss."""
    monkeypatch.setattr(backoff, "AT_START", Backoff(1000.0, 1000.0))
    monkeypatch.setattr(backoff, "AGAIN", Backoff(1000.0, 1000.0))
    stop, ended = asyncio.Event(), False

    def told(event: RecoveryEvent) -> None:
        if event.attempt == 2:
            stop.set()

    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:

        async def work(connection: Connection) -> None:
            nonlocal ended
            proxy.refuse()
            await proxy.cut()
            try:
                await asyncio.Event().wait()
            finally:
                ended = True

        if is_first:
            proxy.refuse()
        await run_connected(through(proxy, broker_url), work, name="test", stop=stop, on_recovery=told)
    assert ended is not is_first


async def test_stop_while_the_broker_is_there_is_left_to_the_work(broker_url: str, no_leaks: None) -> None:
    stop, finished = asyncio.Event(), False

    async def work(connection: Connection) -> None:
        nonlocal finished
        stop.set()
        await until(stop, asyncio.Event().wait())
        async with await connection.channel() as channel:
            await channel.declare_queue(exclusive=True)
        finished = True

    await run_connected(broker_url, work, name="test", stop=stop)
    assert finished
    await run_connected(broker_url, work, name="test", stop=stop)


async def test_a_loss_after_the_stop_ends_it(broker_url: str, no_leaks: None) -> None:
    stop = asyncio.Event()
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:

        async def work(connection: Connection) -> None:
            channel = await connection.channel()
            stop.set()
            proxy.refuse()
            await proxy.cut()
            await channel.get("no-such-queue")

        await run_connected(through(proxy, broker_url), work, name="test", stop=stop)
