"""Messages that are too large for a frame or for the broker, and errors of every make: each costs itself alone."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from types import CoroutineType

import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.properties import header_size
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.flow.wiring.dead_letters import DeadLetter
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds, put
from tests.flow.worker.test_worker import take_and_die
from tests.support.rabbitmq import COMPAT, RabbitMQ
from tests.support.waiting import eventually

LARGEST = 100_000


@pytest.fixture(params=["embedded", "rabbitmq"])
async def narrow_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """URL of a broker that takes bodies of at most LARGEST bytes."""
    async with AsyncExitStack() as stack:
        if request.param == "embedded":
            broker = Broker(BrokerConfig(port=0, max_message_size=LARGEST))
            await stack.enter_async_context(broker)
            yield broker.url
        else:
            server: RabbitMQ = request.getfixturevalue("own_rabbitmq")
            server.eval(f"application:set_env(rabbit, max_message_size, {LARGEST}).")  # read by each new channel
            if COMPAT == "4.0":  # which copies it at its start
                server.eval("persistent_term:put(size_of_tests, persistent_term:get(max_message_size)).")
                server.eval(f"persistent_term:put(max_message_size, {LARGEST}).")
                restored = "persistent_term:put(max_message_size, persistent_term:get(size_of_tests))."
                stack.callback(server.eval, restored)
            yield server.url


def _filling(size: int) -> dict[str, FieldValue]:
    """Make headers with which the properties of a message take `size` bytes."""
    empty = header_size(Properties(headers={"baggage": "", "small": 1}, delivery_mode=2, message_id="m"))
    return {"baggage": "k" * (size - empty), "small": 1}


_DEEP: FieldValue = "x" * 2000
for _ in range(60):
    _DEEP = {"d": _DEEP}

_HEADERS: dict[str, dict[str, FieldValue]] = {
    "none": {},
    "almost a frame": _filling(130_700),
    "a frame": _filling(131_064),
    "more than a small frame": _filling(50_000),
    "many": {f"header-{n}": "v" * 90 for n in range(1_200)},
    "deep": {"deep": _DEEP, "small": 1},
    "ours": {
        "x-rabbitry-exchange": "e" * 60_000,
        "x-rabbitry-routing-key": "k" * 60_000,
        "x-rabbitry-cut": "c" * 9_000,
    },
}

_CUT = ("almost a frame", "a frame", "more than a small frame")


@pytest.mark.parametrize("frame_max", [131_072, 8192, 4096])
@pytest.mark.parametrize("what", _HEADERS)
async def test_a_message_whose_headers_leave_no_room_is_a_dead_letter(
    broker_url: str, no_leaks: None, what: str, frame_max: int
) -> None:
    app = rabbitry.App("full")
    seen: list[int] = []

    @app.stage("in", attempts=2, delays=[0])
    async def handle(text: str, message: rabbitry.Message) -> None:
        if text == "good":
            return
        seen.append(message.attempt)
        raise ValueError("an unknown article: " + "tea, " * 600)

    async with app.worker(f"{broker_url}?frame_max={frame_max}", connect_attempts=1) as worker:
        await put(
            broker_url, "full.handle", b"bad", Properties(headers=_HEADERS[what], message_id="m", delivery_mode=2)
        )
        await put(broker_url, "full.handle", b"good")
        await eventually_dead(broker_url, app, 1)
        assert worker.is_healthy
        for queue in ("full.handle", "full.suspects.handle"):
            await eventually_holds(broker_url, queue, 0)
    (letter,) = await dead_of(broker_url, app)
    assert seen == [1, 2]
    assert (letter.body, letter.id, letter.reason, letter.attempts) == (b"bad", "m", "failed", 2)
    assert letter.error.startswith("ValueError: an unknown article: tea, ")
    assert ("baggage" in letter.cut) == (what in _CUT and (frame_max < 131_072 or what != "more than a small frame"))


@pytest.mark.parametrize("frame_max", [131_072, 4096])
async def test_a_message_with_full_headers_that_comes_again_is_among_the_suspects(
    broker_url: str, no_leaks: None, frame_max: int
) -> None:
    app = rabbitry.App("fullagain")
    seen: list[rabbitry.Message] = []

    @app.stage("in")
    async def handle(text: str, message: rabbitry.Message) -> None:
        seen.append(message)

    async with app.worker(broker_url, connect_attempts=1):
        pass
    await put(broker_url, "fullagain.handle", b"x", Properties(headers=_filling(131_064), message_id="m"))
    await take_and_die(broker_url, "fullagain.handle")
    async with app.worker(f"{broker_url}?frame_max={frame_max}", connect_attempts=1):
        await eventually(lambda: seen, "the message to be handled")
        await eventually_holds(broker_url, "fullagain.suspects.handle", 0)
    assert [(message.attempt, message.headers["small"]) for message in seen] == [(2, 1)]
    assert str(seen[0].headers["x-rabbitry-cut"]).startswith("baggage (13")


async def test_a_dead_letter_that_was_cut_is_replayed(broker_url: str, no_leaks: None) -> None:
    from rabbitry.flow.wiring import dead_letters

    app = rabbitry.App("fullreplay")
    is_good = False
    seen: list[rabbitry.Message] = []

    @app.stage("in", attempts=1)
    async def handle(text: str, message: rabbitry.Message) -> None:
        seen.append(message)
        if not is_good:
            raise ValueError("not yet")

    async with app.worker(broker_url, connect_attempts=1):
        await put(broker_url, "fullreplay.handle", b"x", Properties(headers=_filling(131_064), message_id="m"))
        await eventually_dead(broker_url, app, 1)
        is_good = True
        async with rabbitry.connect(f"{broker_url}?frame_max=4096") as connection:
            assert await dead_letters.replay(connection, app.name, dead_letters.which(everything=True)) == (1, [])
        await eventually(lambda: len(seen) == 2, "the message to come again")
        await eventually_holds(broker_url, "fullreplay.dead", 0)
    assert "x-rabbitry-error" not in seen[1].headers
    assert str(seen[1].headers["x-rabbitry-cut"]).startswith("baggage (13")


async def test_a_result_too_large_for_the_broker_fails_only_its_input(narrow_url: str) -> None:
    app = rabbitry.App("large")
    seen: list[str] = []

    @app.stage("in", then="out", attempts=3, concurrency=20)
    async def handle(text: str) -> str | list[str]:
        seen.append(text)
        await asyncio.sleep(0)
        if text.startswith("several"):
            return [text, "x" * (LARGEST + 1), "y" * (LARGEST + 2)]
        return "x" * (LARGEST + int(text[5:]) % 2) if text.startswith("large") else text

    app.output("out", queue="large.out")
    names = [f"{'large' if n % 10 == 7 else 'small'}{n}" for n in range(60)] + ["several"]
    async with app.worker(narrow_url, connect_attempts=1) as worker, app.publisher(narrow_url) as publisher:
        for name in names:
            await publisher.send(name, key="in")
        await publisher.wait_for_confirms()
        await eventually_dead(narrow_url, app, 7)
        for queue in ("large.handle", "large.suspects.handle"):
            await eventually_holds(narrow_url, queue, 0)
        await eventually(lambda: worker.is_healthy, "the worker to go on")
    assert sorted(seen) == sorted(names), "each is handled once"
    letters = await dead_of(narrow_url, app)
    assert sorted(letter.body.decode() for letter in letters) == sorted(
        name for name in names if name.startswith(("large", "several"))
    )
    for letter in letters:
        assert (letter.reason, letter.attempts, letter.queue) == ("refused", 1, "large.handle")
        assert "larger than" in letter.error
    out = set()
    async with rabbitry.connect(narrow_url) as connection, await connection.channel() as channel:
        while (delivery := await channel.get("large.out")) is not None:
            out.add(delivery.body.decode())
            delivery.ack()
    assert out == {name for name in names if not name.startswith("large")}


async def test_a_result_for_a_missing_exchange_is_published_when_it_returns(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("gone")
    seen: list[str] = []

    @app.stage("in", then="out")
    async def handle(text: str) -> str:
        seen.append(text)
        return text

    app.output("out", queue="gone.out")
    async with app.worker(broker_url, connect_attempts=1):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_exchange("gone")
            for n in range(5):
                await channel.publish(b"%d" % n, routing_key="gone.handle")
        await eventually_holds(broker_url, "gone.out", 5)
        await eventually_holds(broker_url, "gone.handle", 0)
    assert sorted(seen) == ["0", "1", "2", "3", "4"]
    assert (await counts(broker_url, ["gone.dead"]))["gone.dead"] == 0


class _Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")


class _Notes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override] # as a user may
        raise KeyError("no notes")


class _Text(str):
    """A text whose class no other process knows."""


class _Subclass(Exception):
    def __str__(self) -> str:
        return _Text("a text of its own")


def _noted() -> BaseException:
    error = ValueError("with a note")
    error.add_note("\ud83d")
    return error


def _chained() -> BaseException:
    error: BaseException = ValueError("the first \udcff")
    for n in range(50):
        following = ValueError(f"following {n}")
        following.__cause__ = error
        error = following
    return error


_ERRORS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "emoji": (lambda: ValueError(json.loads('"caf\\ud83d"')), "ValueError: caf\\ud83d"),
    "name": (lambda: ValueError(os.fsdecode(b"\xff.csv")), "ValueError: \\udcff.csv"),
    "zero": (lambda: ValueError("a\0b\x1b[31m"), "ValueError: a\0b\x1b[31m"),
    "mute": (_Mute, "_Mute: (its text can't be had: SystemExit)"),
    "notes": (_Notes, "_Notes"),
    "noted": (_noted, "ValueError: with a note"),
    "subclass": (_Subclass, "_Subclass: a text of its own"),
    "chained": (_chained, "ValueError: following 49"),
    "group": (
        lambda: BaseExceptionGroup("several \ud83d", [ValueError("\udcff"), KeyboardInterrupt()]),
        "BaseExceptionGroup: several \\ud83d (2 sub-exceptions)",
    ),
    "long": (lambda: ValueError("é" * 500_000), "ValueError: " + "é" * 1_900),
    "rejected": (lambda: rabbitry.Reject("\ud83d", reason="\udcff" * 300), "\\ud83d"),
    "retried": (lambda: rabbitry.Retry("\ud83d"), "\\ud83d"),
    "interrupted": (KeyboardInterrupt, "KeyboardInterrupt"),
    "exit": (lambda: SystemExit("\ud83d"), "SystemExit: \\ud83d"),
    "closing": (lambda: GeneratorExit("g"), "GeneratorExit: g"),
    "cancelled": (lambda: asyncio.CancelledError("c"), "CancelledError: c"),
}


def raise_it(text: str) -> None:
    raise _ERRORS[text][0]()


processes = rabbitry.App("errors")
processes.stage("process", attempts=1, processes=True, concurrency=1)(raise_it)


async def test_a_dead_letter_describes_any_kind_of_error(broker_url: str) -> None:
    app = rabbitry.App("errors")

    @app.stage("async", attempts=1)
    async def in_task(text: str) -> None:
        raise_it(text)

    @app.stage("thread", attempts=1)
    def in_thread(text: str) -> None:
        raise_it(text)

    app.stage("process", attempts=1, processes=True, concurrency=1)(raise_it)
    async with app.worker(broker_url, connect_attempts=1) as worker, app.publisher(broker_url) as publisher:
        for what in _ERRORS:
            for key in ("async", "thread", "process"):
                await publisher.publish(what, key=key)
        await eventually_dead(broker_url, app, 3 * len(_ERRORS))
        assert worker.is_healthy
    letters = await dead_of(broker_url, app)
    assert len({(letter.body, letter.stage) for letter in letters}) == len(letters) == 3 * len(_ERRORS)
    for letter in letters:
        _says(letter, _ERRORS[letter.body.decode()][1])


def _says(letter: DeadLetter, error: str) -> None:
    assert letter.error.startswith(error), letter
    assert letter.attempts == 1
    assert letter.reason == ("failed" if letter.body != b"rejected" else ("\\udcff" * 300)[:64])
    assert letter.traceback
    letter.error.encode()
    letter.traceback.encode()


async def test_a_batch_result_that_is_too_large_fails_only_its_message(narrow_url: str) -> None:
    app = rabbitry.App("batch")

    @app.stage("in", then="out", batch=4)
    async def handle(numbers: list[int]) -> list[bytes]:
        return [bytes(2 * LARGEST if number == 2 else 10) for number in numbers]

    app.output("out", queue="batch.out")
    async with app.publisher(narrow_url) as publisher:
        for number in range(4):
            await publisher.send(number, key="in")
    async with app.worker(narrow_url, connect_attempts=1):
        await eventually_dead(narrow_url, app, 1)
        await eventually_holds(narrow_url, "batch.out", 3, at_least=True)
        await eventually_holds(narrow_url, "batch.suspects.handle", 0)
    (letter,) = await dead_of(narrow_url, app)
    assert (letter.body, letter.reason) == (b"2", "refused")


@pytest.mark.parametrize("key", ["k" * 256, "\ud83d", "é" * 128])
async def test_a_computed_key_that_can_not_be_sent_is_a_failure_of_the_handler(
    broker_url: str, no_leaks: None, key: str
) -> None:
    app = rabbitry.App("keys")

    @app.stage("in", then=lambda result: key, attempts=2, delays=[0])
    async def handle(text: str) -> str:
        return text

    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert (letter.reason, letter.attempts) == ("failed", 2)
    assert letter.error.startswith("UsageError: ")


async def test_a_routing_key_that_is_not_text_is_kept_in_a_dead_letter(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("bytes")
    app.stage("in", then=lambda result: "\udcff.odd", attempts=1)(_pass_on)
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert (letter.reason, letter.routing_key) == ("unroutable", "\udcff.odd")


async def _pass_on(text: str) -> str:
    return text


async def test_a_queue_of_the_apps_own_that_was_deleted_is_declared_again(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("deleted")
    seen: list[int] = []

    @app.stage("in", attempts=2, delays=[1])
    async def handle(text: str, message: rabbitry.Message) -> None:
        seen.append(message.attempt)
        raise ValueError("never")

    async with app.worker(broker_url, connect_attempts=1):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_queue("deleted.dead")
            await channel.publish(b"x", routing_key="deleted.handle")
        await eventually(lambda: len(seen) == 2, "both attempts")
        await eventually_holds(broker_url, "deleted.dead", 1)
        await eventually_holds(broker_url, "deleted.handle", 0)
    assert seen == [1, 2]


class _Forgetful(rabbitry.Retry):
    def __init__(self) -> None:
        pass


class _ForgetfulReject(rabbitry.Reject):
    def __init__(self) -> None:
        pass


async def test_errors_that_forgot_to_call_their_base_are_dead_letters(embedded_url: str, no_leaks: None) -> None:
    app = rabbitry.App("forgetful")

    @app.stage("in", attempts=1)
    async def handle(text: str) -> None:
        raise _Forgetful if text == "retry" else _ForgetfulReject

    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        for text in ("retry", "reject"):
            await publisher.publish(text, key="in")
        await eventually_dead(embedded_url, app, 2)
    letters = {letter.body: letter.reason for letter in await dead_of(embedded_url, app)}
    assert letters == {b"retry": "failed", b"reject": "rejected"}


async def test_a_handler_that_only_returns_a_coroutine_or_a_generator_has_failed(
    embedded_url: str, no_leaks: None
) -> None:
    app = rabbitry.App("wrapped")

    async def work(text: str) -> None: ...

    def count(text: str) -> Iterator[int]:
        yield 1

    def wrap(handler: Callable[[str], object]) -> Callable[[str], object]:
        def wrapper(text: str) -> object:
            returned = handler(text)
            if isinstance(returned, CoroutineType):
                coroutines.append(returned)
            return returned

        return wrapper

    coroutines: list[CoroutineType[object, object, object]] = []
    app.stage("coroutine", attempts=1, name="coroutine")(wrap(work))
    app.stage("generator", attempts=1, name="generator")(wrap(count))
    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        for key in ("coroutine", "generator"):
            await publisher.publish("x", key=key)
        await eventually_dead(embedded_url, app, 2)
    for coroutine in coroutines:
        coroutine.close()
    for letter in await dead_of(embedded_url, app):
        assert letter.error.startswith(f"TypeError: the handler returned a {letter.stage}, of which nothing has run")
