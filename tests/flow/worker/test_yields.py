"""Handlers that yield, on both brokers: each value is published as it comes, a bounded number of them unconfirmed."""

import asyncio
import functools
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.flow.worker._executors import streams, tasks
from rabbitry.flow.worker._executors.streams import LARGEST, LARGEST_TOGETHER, MOST
from tests.flow._apps import yielding
from tests.flow._running import bodies, counts, dead_of, eventually_dead, eventually_holds
from tests.support.brokers import ON_EMBEDDED
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually

KINDS = pytest.mark.parametrize("kind", ["async", "thread"])


WAIT = "nothing to publish yet"


def _key(value: object) -> str | None:
    return None if value == WAIT else "out"


def register(
    app: rabbitry.App,
    kind: str,
    make: Callable[[str], Iterator[object]],
    ended: list[str] | None = None,
    **options: object,
) -> None:
    """Make a stage of a generator that yields what `make` does, as either kind of handler; `ended` is told its end."""

    async def handle_async(text: str) -> AsyncIterator[object]:
        try:
            for value in make(text):
                yield value
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            if ended is not None:
                ended.append(text)

    def handle(text: str) -> Iterator[object]:
        try:
            yield from make(text)
        finally:
            if ended is not None:
                ended.append(text)

    app.stage("in", then=_key, name="handle", **options)(handle_async if kind == "async" else handle)  # type: ignore[arg-type] # options of a stage
    app.output("out", queue=f"{app.name}.out")


@KINDS
async def test_each_value_is_published_as_it_comes_and_the_input_acked_last(
    broker_url: str, kind: str, no_leaks: None
) -> None:
    app = rabbitry.App("each")
    first, second = threading.Event(), threading.Event()

    def values(text: str) -> Iterator[object]:
        yield f"{text} 1"
        while not first.is_set():
            yield WAIT
        yield f"{text} 2"
        while not second.is_set():
            yield WAIT

    register(app, kind, values)
    async with app.worker(broker_url, connect_attempts=1) as worker:
        await app.publish("x", key="in", url=broker_url)
        await eventually_holds(broker_url, "each.out", 1)
        first.set()
        await eventually_holds(broker_url, "each.out", 2)
        counting = worker._engine.counting.stages["handle"]
        assert counting.in_hand == 1
        second.set()
        await eventually(lambda: not counting.in_hand, "the input to be settled")
    assert await bodies(broker_url, "each.out") == [b"x 1", b"x 2"]
    assert await counts(broker_url, ["each.handle"]) == {"each.handle": 0}


async def test_values_that_follow_each_other_are_published_while_their_handler_waits(broker_url: str) -> None:
    app = rabbitry.App("close")
    go = threading.Event()

    def values(text: str) -> Iterator[object]:
        yield from ("1", "2", "3")
        while not go.is_set():
            yield WAIT

    register(app, "async", values)
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await eventually_holds(broker_url, "close.out", 3)
        go.set()
    assert await bodies(broker_url, "close.out") == [b"1", b"2", b"3"]


async def test_gathered_values_are_published_when_many_or_large_and_at_the_end(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_GATHERING", float("inf"))  # so that nothing is published because of the time
    app = rabbitry.App("gathered")
    many, large = threading.Event(), threading.Event()
    numbers = [str(number) for number in range(tasks._MOST)]

    def values(text: str) -> Iterator[object]:
        yield from numbers
        while not many.is_set():
            yield WAIT
        yield "x" * tasks._LARGEST
        while not large.is_set():
            yield WAIT
        yield "last"

    register(app, "async", values)
    async with app.worker(broker_url, connect_attempts=1) as worker:
        await app.publish("x", key="in", url=broker_url)
        await eventually_holds(broker_url, "gathered.out", len(numbers))
        many.set()
        await eventually_holds(broker_url, "gathered.out", len(numbers) + 1)
        large.set()
        counting = worker._engine.counting.stages["handle"]
        await eventually(lambda: not counting.in_hand, "the input to be settled")
    found = await bodies(broker_url, "gathered.out")
    assert found == [*(number.encode() for number in numbers), b"x" * tasks._LARGEST, b"last"]


@KINDS
async def test_a_generator_is_not_resumed_while_too_much_is_unconfirmed(broker_url: str, kind: str) -> None:
    app = rabbitry.App("paused")
    began, go = threading.Event(), threading.Event()
    made: list[int] = []

    def values(text: str) -> Iterator[object]:
        began.set()
        while not go.is_set():
            yield WAIT
        for number in range(5 * MOST):
            made.append(number)
            yield number

    register(app, kind, values)
    url = parse_url(broker_url)
    async with FaultProxy(url.hosts[0][1]) as proxy:
        through = broker_url.replace(f":{url.hosts[0][1]}/", f":{proxy.port}/")
        async with app.worker(through, connect_attempts=1):
            await app.publish("x", key="in", url=broker_url)
            await eventually(began.is_set, "the generator to begin")
            proxy.pause(Way.TO_CLIENT)  # no confirm comes any more
            go.set()
            await eventually_holds(broker_url, "paused.out", MOST)
            await eventually(lambda: len(made) == MOST + 1, "the value that waits")
            assert not await holds_more(broker_url, "paused.out", MOST)
            assert len(made) == MOST + 1
            proxy.resume()
            await eventually_holds(broker_url, "paused.out", 5 * MOST)
    assert await bodies(broker_url, "paused.out") == [b"%d" % number for number in range(5 * MOST)]


async def holds_more(url: str, queue: str, number: int) -> bool:
    """Look ten times, each over a connection of its own, whether a queue holds more than `number`."""
    return any([(await counts(url, [queue]))[queue] > number for _ in range(10)])


@KINDS
async def test_large_values_are_bounded_in_bytes(broker_url: str, kind: str) -> None:
    app = rabbitry.App("bytes")
    size = LARGEST // 4

    def values(text: str) -> Iterator[object]:
        return (bytes(size) for _ in range(12))

    register(app, kind, values)
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await eventually_holds(broker_url, "bytes.out", 12)
    assert {len(body) for body in await bodies(broker_url, "bytes.out")} == {size}


@KINDS
async def test_an_error_after_some_values_keeps_them_and_retries_the_input(broker_url: str, kind: str) -> None:
    app = rabbitry.App("broken")
    ended: list[str] = []

    def values(text: str) -> Iterator[object]:
        yield "one"
        yield "two"
        raise ValueError("no three")

    register(app, kind, values, ended, attempts=2, delays=[0])
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert (letter.body, letter.error, letter.attempts) == (b"x", "ValueError: no three", 2)
    assert "raise ValueError" in letter.traceback
    assert await bodies(broker_url, "broken.out") == [b"one", b"two"] * 2
    assert ended == ["x", "x"]


@KINDS
async def test_values_that_cannot_be_encoded_or_routed_fail_like_results(broker_url: str, kind: str) -> None:
    app = rabbitry.App("odd")
    ended: list[str] = []

    def values(text: str) -> Iterator[object]:
        yield rabbitry.Outgoing("lost", key="nowhere")
        yield "kept"
        if text == "odd":
            yield object()

    register(app, kind, values, ended, attempts=1)
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("fine", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
        await app.publish("odd", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 3)
        await eventually_holds(broker_url, "odd.handle", 0)
    letters = await dead_of(broker_url, app)
    assert sorted((letter.reason, letter.body) for letter in letters) == [
        ("failed", b"odd"), ("unroutable", b"lost"), ("unroutable", b"lost"),
    ]  # fmt: skip
    assert await bodies(broker_url, "odd.out") == [b"kept"] * 2
    assert ended == ["fine", "odd"]


async def test_each_of_many_unroutable_values_is_a_dead_letter(broker_url: str) -> None:
    app = rabbitry.App("lost")

    @app.stage("in", then="nowhere")
    async def handle(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    app.output("nowhere")
    async with app.worker(broker_url, connect_attempts=1) as worker:
        await app.publish(3 * MOST, key="in", url=broker_url)
        await eventually_dead(broker_url, app, 3 * MOST)
        await eventually(lambda: not worker._engine.counting.stages["handle"].in_hand, "the input to be settled")
    assert {int(letter.body) for letter in await dead_of(broker_url, app)} == set(range(3 * MOST))
    assert await counts(broker_url, ["lost.handle"]) == {"lost.handle": 0}


@KINDS
@pytest.mark.usefixtures("time_to_close")
async def test_a_generator_past_its_time_limit_is_closed(broker_url: str, kind: str) -> None:
    app = rabbitry.App("endless")
    ended: list[str] = []
    register(app, kind, lambda text: itertools.count(), ended, attempts=1, time_limit=0.3)
    async with app.worker(broker_url, connect_attempts=1) as worker:
        await app.publish("x", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
        assert worker.is_healthy
    (letter,) = await dead_of(broker_url, app)
    assert "time limit of 0.3 s" in letter.error
    assert ended == ["x"]
    out = [int(body) for body in await bodies(broker_url, "endless.out")]
    assert out == list(range(len(out)))


@KINDS
async def test_a_generator_that_never_ends_is_closed_when_the_worker_stops(
    broker_url: str, kind: str, no_leaks: None, time_to_close: None
) -> None:
    app = rabbitry.App("stopped")
    ended: list[str] = []
    register(app, kind, lambda text: itertools.count(), ended)
    worker = app.worker(broker_url, connect_attempts=1)
    async with worker:
        await app.publish("x", key="in", url=broker_url)
        await eventually_holds(broker_url, "stopped.out", 10, at_least=True)
        assert await worker.stop(deadline=0.1)
    assert ended == ["x"]
    assert await counts(broker_url, ["stopped.handle", "stopped.dead"]) == {"stopped.handle": 1, "stopped.dead": 0}
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        delivery = await channel.get("stopped.handle")
        assert delivery is not None
        headers = delivery.properties.headers or {}
        assert (headers["x-rabbitry-attempt"], headers["x-rabbitry-interrupted"]) == (1, 1)
        delivery.ack()


async def test_a_generator_that_waits_is_closed_when_the_connection_of_its_input_is_gone(broker_url: str) -> None:
    app = rabbitry.App("gone")
    happened: list[str] = []

    @app.stage("in", then="out")
    async def handle(text: str, message: rabbitry.Message) -> AsyncIterator[str]:
        happened.append(f"begun {message.attempt}")
        try:
            if message.attempt == 1:
                await asyncio.Event().wait()
            yield text
        finally:
            happened.append(f"ended {message.attempt}")

    app.output("out", queue="gone.out")
    url = parse_url(broker_url)
    async with FaultProxy(url.hosts[0][1]) as proxy:
        through = broker_url.replace(f":{url.hosts[0][1]}/", f":{proxy.port}/")
        async with app.worker(through, connect_attempts=1):
            await app.publish("x", key="in", url=broker_url)
            await eventually(lambda: happened, "the generator to begin")
            proxy.refuse()
            await proxy.reset()
            await eventually(lambda: "ended 1" in happened, "the generator to end, with no broker there")
            proxy.accept()
            await eventually_holds(broker_url, "gone.out", 1)
    assert happened == ["begun 1", "ended 1", "begun 2", "ended 2"]


@KINDS
async def test_a_generator_is_not_resumed_while_a_value_is_long_unconfirmed(
    broker_url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "OLDEST", 0.2)
    app = rabbitry.App("slow")
    began, go = threading.Event(), threading.Event()

    def values(text: str) -> Iterator[object]:
        began.set()
        while not go.is_set():
            yield WAIT
        yield "first"
        first_at = time.monotonic()
        while time.monotonic() - first_at <= streams.OLDEST:
            yield WAIT
        yield "second"

    register(app, kind, values)
    url = parse_url(broker_url)
    async with FaultProxy(url.hosts[0][1]) as proxy:
        through = broker_url.replace(f":{url.hosts[0][1]}/", f":{proxy.port}/")
        async with app.worker(through, connect_attempts=1):
            await app.publish("x", key="in", url=broker_url)
            await eventually(began.is_set, "the generator to begin")
            proxy.pause(Way.TO_CLIENT)  # no confirm comes any more
            go.set()
            await eventually_holds(broker_url, "slow.out", 1)
            assert not await holds_more(broker_url, "slow.out", 1)
            proxy.resume()
            await eventually_holds(broker_url, "slow.out", 2)


async def test_a_generator_that_ignores_being_cancelled_is_closed_at_its_next_value(broker_url: str) -> None:
    app = rabbitry.App("stubborn")
    ended: list[str] = []

    @app.stage("in", then="out", attempts=1, time_limit=0.3)
    async def handle(text: str) -> AsyncIterator[str]:
        try:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield text
            while True:
                yield text
        finally:
            ended.append(text)

    app.output("out", required=False)
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
    assert ended == ["x"]
    assert "time limit" in (await dead_of(broker_url, app))[0].error


async def test_a_thread_that_never_reaches_its_next_value_is_abandoned(broker_url: str) -> None:
    app = rabbitry.App("hung")
    release = threading.Event()

    @app.stage("in", then="out", attempts=1, time_limit=8)  # enough for the other one, also on a busy machine
    def handle(text: str) -> Iterator[str]:
        yield text
        if text == "hang":
            release.wait(60)
        yield text

    app.output("out", queue="hung.out")
    try:
        async with app.worker(broker_url, connect_attempts=1) as worker:
            for text in ("hang", "x"):
                await app.publish(text, key="in", url=broker_url)
            await eventually_dead(broker_url, app, 1)
            await eventually_holds(broker_url, "hung.out", 3)
            release.set()
            assert worker.is_healthy
    finally:
        release.set()
    assert sorted(await bodies(broker_url, "hung.out")) == [b"hang", b"x", b"x"], "the second is of nobody any more"


async def test_batches_yield_too(broker_url: str) -> None:
    app = rabbitry.App("both")
    seen: dict[int, rabbitry.Message] = {}

    @app.stage("in", then="next", batch=3, attempts=1)
    async def handle(numbers: list[int], batch: rabbitry.Batch) -> AsyncIterator[rabbitry.Outgoing]:
        for index, number in enumerate(numbers):
            if number == 1:
                batch.fail(index, rabbitry.Reject("one"))
            else:
                yield rabbitry.Outgoing(number, index=index)

    @app.stage("next")
    async def keep(number: int, message: rabbitry.Message) -> None:
        seen[number] = message

    ids = {}
    async with app.publisher(broker_url) as publisher:
        for n in range(3):
            ids[n] = await publisher.publish(n, key="in")
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(seen) == 2, "the results")
        await eventually_dead(broker_url, app, 1)
    assert {n: message.correlation_id for n, message in seen.items()} == {n: ids[n] for n in (0, 2)}
    assert await counts(broker_url, ["both.handle"]) == {"both.handle": 0}


@pytest.mark.usefixtures("time_to_close")
@ON_EMBEDDED
async def test_worker_processes_yield_too(broker_url: str, tmp_path: Path) -> None:
    async with yielding.publisher(broker_url) as publisher:
        for text in ("count 600", "fail", "die", f"endless {tmp_path / 'late'}"):
            await publisher.publish(text, key="in")
    async with yielding.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, yielding, 3)
        await eventually_holds(broker_url, "yielding.handle", 0)
    letters = {letter.body.split()[0]: letter.error for letter in await dead_of(broker_url, yielding)}
    assert letters[b"fail"] == "ValueError: after one"
    assert "exit code 7" in letters[b"die"]
    assert "time limit" in letters[b"endless"]
    assert (tmp_path / "late").read_text() == "closed"
    out = await bodies(broker_url, "yielding.out")
    assert [int(body) for body in out if body.isdigit()] == list(range(600))
    assert {b"fail", b"die", b"endless"} <= set(out)


@pytest.mark.usefixtures("time_to_close")
async def test_a_process_that_yields_for_ever_is_closed_when_the_worker_stops(broker_url: str, tmp_path: Path) -> None:
    worker = yielding.worker(broker_url, connect_attempts=1)
    async with worker:
        await yielding.publish(f"endless {tmp_path / 'stopped'}", key="in", url=broker_url)
        await eventually_holds(broker_url, "yielding.out", 10, at_least=True)
        assert await worker.stop(deadline=0.1)
    assert (tmp_path / "stopped").read_text() == "closed"
    assert await counts(broker_url, ["yielding.handle", "yielding.dead"]) == {"yielding.handle": 1, "yielding.dead": 0}


async def test_decorated_generators_are_generators(broker_url: str) -> None:
    app = rabbitry.App("decorated")

    def decorated(handler: Callable[[int], AsyncIterator[int]]) -> Callable[[int], AsyncIterator[int]]:
        @functools.wraps(handler)
        def wrapper(number: int) -> AsyncIterator[int]:
            return handler(number)

        return wrapper

    def collected(handler: Callable[[int], Iterator[int]]) -> Callable[[int], list[int]]:
        @functools.wraps(handler)
        def wrapper(number: int) -> list[int]:
            return list(handler(number))

        return wrapper

    @app.stage("async", then="out")
    @decorated
    async def count(number: int) -> AsyncIterator[int]:
        for value in range(number):
            yield value

    @app.stage("list", then="out")
    @collected
    def count_all(number: int) -> Iterator[int]:
        yield from range(number)

    app.output("out", queue="decorated.out")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish(3, key="async")
        await eventually_holds(broker_url, "decorated.out", 3)
        await publisher.publish(2, key="list")
        await eventually_holds(broker_url, "decorated.out", 5)
    assert await bodies(broker_url, "decorated.out") == [b"0", b"1", b"2", b"0", b"1"]


@KINDS
async def test_generators_of_a_stage_are_bounded_together(broker_url: str, kind: str) -> None:
    app = rabbitry.App("together")
    size = LARGEST // 2
    most = LARGEST_TOGETHER // size
    made: list[int] = []
    began, go = [threading.Event() for _ in range(8)], threading.Event()

    def values(text: str) -> Iterator[object]:
        began[int(text)].set()
        while not go.is_set():
            yield WAIT
        for number in range(4):
            made.append(number)
            yield bytes(size)

    register(app, kind, values)
    url = parse_url(broker_url)
    async with FaultProxy(url.hosts[0][1]) as proxy:
        through = broker_url.replace(f":{url.hosts[0][1]}/", f":{proxy.port}/")
        async with app.worker(through, connect_attempts=1):
            async with app.publisher(broker_url) as publisher:
                for number in range(8):
                    await publisher.publish(str(number), key="in")
            await eventually(lambda: all(event.is_set() for event in began), "the generators to begin")
            proxy.pause(Way.TO_CLIENT)  # no confirm comes any more
            go.set()
            # Each generator that waits has made one value more than was published.
            await eventually(lambda: len(made) >= most, "as many values as there may be")
            await eventually_holds(broker_url, "together.out", most, at_least=True)
            # Threads that look for room at the same moment may each find it: one value more for each other generator.
            assert len(made) <= most + 8 + 7
            proxy.resume()
            await eventually_holds(broker_url, "together.out", 32)
    assert {len(body) for body in await bodies(broker_url, "together.out")} == {size}
