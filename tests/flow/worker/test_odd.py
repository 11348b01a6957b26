"""What users' code and other people's messages do that nobody thought of costs that message, and not the worker."""

import asyncio
from collections.abc import Callable

import pytest

import rabbitry
from rabbitry.amqp.client import Properties, _subscription, _window
from rabbitry.flow._outlet import Outlet
from rabbitry.flow.message import Publication, Role
from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.worker import _settlement
from rabbitry.telemetry._report import encode_report
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds, put
from tests.flow.worker.test_worker import take_and_die
from tests.support.waiting import eventually


class _Odd(BaseException):
    pass


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


_ODD: dict[str, tuple[Callable[[], BaseException], str]] = {
    "nan": (lambda: rabbitry.Retry(after=float("nan")), "UsageError: Retry(after=nan)"),
    "text": (lambda: rabbitry.Retry(after="5"), "UsageError: Retry(after='5')"),  # type: ignore[arg-type] # as a user may
    "endless": (lambda: rabbitry.Retry(after=float("inf")), "UsageError: Retry(after=inf)"),
    "own": (lambda: _Odd("mine"), "_Odd: mine"),
    "exit": (lambda: SystemExit(3), "SystemExit: 3"),
    "cancelled": (lambda: asyncio.CancelledError("by something below"), "CancelledError: by something below"),
    "mute": (_Mute, "_Mute: (its text can't be had: ValueError)"),
}


async def test_any_error_of_a_handler_fails_only_its_message(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("odd")

    @app.stage("async", attempts=1)
    async def raise_in_loop(what: str) -> None:
        raise _ODD[what][0]()

    @app.stage("thread", attempts=1)
    def raise_in_thread(what: str) -> None:
        raise _ODD[what][0]()

    async with app.worker(broker_url, connect_attempts=1) as worker, app.publisher(broker_url) as publisher:
        for what in _ODD:
            for key in ("async", "thread"):
                await publisher.publish(what, key=key)
        await eventually_dead(broker_url, app, 2 * len(_ODD))
        assert worker.is_healthy
    letters = await dead_of(broker_url, app)
    for letter in letters:
        assert letter.error.startswith(_ODD[letter.body.decode()][1]), letter
        assert (letter.reason, letter.attempts) == ("failed", 1)
    assert len({(letter.body, letter.stage) for letter in letters}) == 2 * len(_ODD)


async def test_a_key_that_is_not_text_fails_only_its_message(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("keys")

    @app.stage("in", attempts=1, then=lambda text: 5 if text == "odd" else "out")  # type: ignore[arg-type,return-value] # as a user may
    async def pass_on(text: str) -> str:
        return text

    app.output("out", queue="keys.out")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish("odd", key="in")
        await publisher.publish("even", key="in")
        await eventually_holds(broker_url, "keys.out", 1)
        await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert "`then` gave 5 for a key" in letter.error


async def test_names_that_are_not_utf8_are_reported_too(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("bytes")
    keys: list[str] = []

    @app.stage("in", then=lambda text: "\udcff", name="h", queue="bytes.h")
    async def pass_on(text: str, message: rabbitry.Message) -> str:
        keys.append(message.correlation_id)
        return text

    async with app.worker(broker_url, connect_attempts=1) as worker:
        await put(broker_url, "bytes.h", b"x", Properties(correlation_id="\udcff\udc80", headers={"\udcfe": "\udcfd"}))
        await eventually_dead(broker_url, app, 1)
        assert keys == ["\udcff\udc80"]
        (report,) = worker._engine.counting.reports("heartbeat")
        assert "to.\ufffd" in encode_report(report).decode()
        assert worker.is_healthy


async def test_more_attempts_than_can_be_counted_are_many(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settlement, "PAUSE", 0.05)
    app = rabbitry.App("many")
    handled: list[str] = []

    @app.stage("in", name="h", queue="many.h")
    async def handle(text: str) -> None:
        handled.append(text)

    async with app.publisher(broker_url):
        pass  # declares
    await put(broker_url, "many.h", b"x", Properties(headers={"x-rabbitry-attempt": (1 << 63) - 1}))
    await take_and_die(broker_url, "many.h")
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: handled, "the message")
    assert await counts(broker_url, ["many.h", "many.suspects.h"]) == {"many.h": 0, "many.suspects.h": 0}


async def test_unpublishable_results_do_not_end_the_worker(
    embedded_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settlement, "PAUSE", 0.05)
    app = rabbitry.App("unsendable")
    seen: list[str] = []

    @app.stage("in", then="out", attempts=1)
    async def pass_on(text: str) -> str:
        seen.append(text)
        return text

    app.output("out", queue="unsendable.out")
    send = Outlet.send

    async def fail(outlet: Outlet, message: Publication) -> "asyncio.Future[None]":
        if message.role is Role.RESULT and message.body == b"odd":
            raise ZeroDivisionError("a mistake of ours")
        return await send(outlet, message)

    monkeypatch.setattr(Outlet, "send", fail)
    async with app.worker(embedded_url, connect_attempts=1) as worker, app.publisher(embedded_url) as publisher:
        await publisher.publish("odd", key="in")
        await publisher.publish("even", key="in")
        await eventually_holds(embedded_url, "unsendable.out", 1)
        await eventually_dead(embedded_url, app, 1)
        await eventually(lambda: worker.is_healthy, "the worker to go on")
    assert seen.count("odd") == 1
    (letter,) = await dead_of(embedded_url, app)
    assert (letter.body, letter.reason, letter.attempts) == (b"odd", "refused", 1)
    assert letter.error == "ZeroDivisionError: a mistake of ours"


def test_invalid_delays_are_refused() -> None:
    app = rabbitry.App("delays")
    for delay in (float("nan"), float("inf")):
        with pytest.raises(rabbitry.UsageError, match="delays"):
            app.stage("in", delays=[delay])(lambda text: None)


async def test_more_dead_letters_than_are_read_ahead_are_replayed_over_their_one_connection(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_subscription, "_BUFFER_MESSAGES", 100)
    monkeypatch.setattr(_window, "WINDOW_MESSAGES", 20)
    app = rabbitry.App("much")

    @app.stage("in", name="h", queue="much.h")
    async def handle(text: str) -> None: ...

    async with app.publisher(broker_url):
        pass  # declares
    async with rabbitry.connect(broker_url, publish_timeout=60) as connection, await connection.channel() as channel:
        origin = Properties(headers={"x-rabbitry-queue": "much.h", "x-rabbitry-reason": "failed"})
        for number in range(300):
            await channel.send(b"%d" % number, routing_key="much.dead", properties=origin)
        await channel.wait_for_confirms()
        assert await dead_letters.replay(connection, "much", dead_letters.which(everything=True)) == (300, [])
    assert await counts(broker_url, ["much.h", "much.dead"]) == {"much.h": 300, "much.dead": 0}
