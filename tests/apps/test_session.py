"""Staying connected, and what makes it give up."""

import asyncio
from dataclasses import replace

import pytest

import rabbitry
from rabbitry.amqp.client import Connection, parse_url
from rabbitry.apps import _session
from rabbitry.apps._session import FOR_EVER, Patience, background, stay_connected, until
from rabbitry.exceptions import (
    AccessRefused,
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    LoginRefused,
    NotFound,
    RabbitryError,
    RequestTimeout,
    VirtualHostRefused,
)
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session, "FIRST_PAUSE", 0.01)


class Sessions:
    """Sessions that end, one after the other, with the errors given; the last one returns."""

    def __init__(self, *errors: RabbitryError) -> None:
        self._errors = list(errors)
        self.connections: list[Connection] = []
        self.lost: list[str] = []

    async def run(self, connection: Connection) -> None:
        assert connection.is_open
        self.connections.append(connection)
        if self._errors:
            raise self._errors.pop(0)

    async def note(self, reason: str) -> None:
        self.lost.append(reason)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(320, "the broker goes down"),
        ConsumerCancelled("tag", "queue"),
        NotFound(404, "no exchange"),
        RequestTimeout("no answer"),
    ],
)
async def test_a_loss_is_told_and_the_session_runs_anew(broker_url: str, no_leaks: None, error: RabbitryError) -> None:
    sessions = Sessions(error, error)
    await stay_connected(
        broker_url, sessions.run, name="test", stop=asyncio.Event(), patience=FOR_EVER, lost=sessions.note
    )
    assert len(set(sessions.connections)) == 3
    assert not any(connection.is_open for connection in sessions.connections)
    assert sessions.lost == [str(error), str(error)]


async def test_what_is_no_loss_ends_it(broker_url: str, no_leaks: None) -> None:
    sessions = Sessions(AccessRefused(403, "not yours"))
    with pytest.raises(AccessRefused):
        await stay_connected(broker_url, sessions.run, name="test", stop=asyncio.Event(), patience=FOR_EVER)
    assert not sessions.connections[0].is_open


@pytest.mark.parametrize(
    ("changes", "error"), [({"password": "wrong"}, LoginRefused), ({"virtual_host": "nowhere"}, VirtualHostRefused)]
)
async def test_a_refusal_is_not_tried_again(
    broker_url: str, no_leaks: None, changes: dict[str, str], error: type[Exception]
) -> None:
    sessions = Sessions()
    url = replace(parse_url(broker_url), **changes)  # type: ignore[arg-type] # names of string fields only
    with pytest.raises(error):
        await stay_connected(
            url, sessions.run, name="test", stop=asyncio.Event(), patience=FOR_EVER, lost=sessions.note
        )
    assert sessions.lost == []


async def test_patience_at_the_start_counts_attempts(no_leaks: None) -> None:
    sessions = Sessions()
    with pytest.raises(ConnectFailed):
        await stay_connected(
            f"amqp://127.0.0.1:{free_port()}",
            sessions.run,
            name="test",
            stop=asyncio.Event(),
            patience=Patience(at_start=3),
            lost=sessions.note,
        )
    assert len(sessions.lost) == 2


async def test_patience_at_the_start_does_not_end_it_after_a_loss(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(ConnectionClosed(0, "gone"))
    attempts = 0

    def connect(*arguments: object, **options: object) -> object:
        nonlocal attempts
        attempts += 1
        if 1 < attempts < 6:
            raise ConnectFailed("not yet")
        return rabbitry.connect(broker_url, recover=False)

    monkeypatch.setattr(_session, "connect", connect)
    await stay_connected(broker_url, sessions.run, name="test", stop=asyncio.Event(), patience=Patience(at_start=1))
    assert attempts == 6
    assert len(sessions.connections) == 2


async def test_stop_ends_the_pause_and_the_attempt(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session, "FIRST_PAUSE", 1000.0)
    stop = asyncio.Event()

    async def lost(reason: str) -> None:
        stop.set()

    sessions = Sessions()
    url = f"amqp://127.0.0.1:{free_port()}"
    await stay_connected(url, sessions.run, name="test", stop=stop, patience=FOR_EVER, lost=lost)
    await stay_connected(url, sessions.run, name="test", stop=stop, patience=FOR_EVER)
    assert sessions.connections == []


async def test_until_gives_what_came_first(no_leaks: None) -> None:
    stop = asyncio.Event()
    assert await until(stop, asyncio.sleep(0, "done")) == "done"
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    await until(stop, work())
    assert ended


async def test_until_passes_errors_and_cancelling_on(no_leaks: None) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await until(asyncio.Event(), fail())
    inner = asyncio.create_task(asyncio.sleep(1000))
    outer = asyncio.create_task(until(asyncio.Event(), inner))
    await asyncio.sleep(0.01)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert inner.cancelled()


async def test_background_work_ends_with_its_block_and_tells_its_error(no_leaks: None) -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    async with background(work()):
        await started.wait()

    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with background(fail()):
            await asyncio.sleep(0.01)
