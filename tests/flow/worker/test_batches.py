"""Handlers of batches on both brokers: how they fill, how they are settled, and what becomes of one that fails."""

import asyncio
import threading
import time
from collections import Counter

import pytest

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.flow.worker._executors.batching import Batcher
from rabbitry.testing import harness
from tests.flow._apps import Item, batches
from tests.flow._running import bodies, counts, dead_of, eventually_dead, eventually_holds, put
from tests.support.brokers import ON_EMBEDDED
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually


async def publish(url: str, app: rabbitry.App, key: str, values: list[object]) -> None:
    async with app.publisher(url) as publisher:
        for value in values:
            await publisher.send(value, key=key)


async def test_a_batch_is_handed_over_when_full_and_when_its_time_is_up(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("filling")
    full: list[list[int]] = []
    late: list[list[int]] = []

    @app.stage("full", batch=4, within=60)
    async def handle(items: list[Item]) -> None:
        full.append([item.n for item in items])

    @app.stage("late", batch=4, within=0.2)
    async def handle_late(items: list[Item]) -> None:
        late.append([item.n for item in items])

    await publish(broker_url, app, "full", [Item(n) for n in range(8)])
    await publish(broker_url, app, "late", [Item(n) for n in range(2)])
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: (len(full), sum(map(len, late))) == (2, 2), "all messages")
    assert full == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [number for batch in late for number in batch] == [0, 1]
    assert await counts(broker_url, ["filling.handle", "filling.handle_late"]) == {
        "filling.handle": 0, "filling.handle_late": 0,
    }  # fmt: skip


async def test_a_batch_goes_on_filling_while_every_handler_is_at_work(broker_url: str) -> None:
    app = rabbitry.App("busy")
    seen: list[int] = []
    release = asyncio.Event()

    @app.stage("in", batch=50, within=0.0)
    async def handle(numbers: list[int]) -> None:
        seen.append(len(numbers))
        if len(seen) == 1:
            await release.wait()

    async with app.worker(broker_url, connect_attempts=1) as worker:
        await publish(broker_url, app, "in", [0])
        await eventually(lambda: seen == [1], "the first batch")
        await publish(broker_url, app, "in", list(range(30)))
        batcher = worker._executors["handle"]
        assert isinstance(batcher, Batcher)
        await eventually(lambda: len(batcher._waiting) == 30, "all the others to have come")
        release.set()
        await eventually(lambda: sum(seen) == 31, "all messages")
    assert seen == [1, 30]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_prefetch_covers_a_batch_whatever_the_concurrency_is(broker_url: str, kind: str) -> None:
    app = rabbitry.App("covered")
    seen: list[int] = []

    async def handle(numbers: list[int]) -> None:
        seen.append(len(numbers))

    def handle_in_thread(numbers: list[int]) -> None:
        seen.append(len(numbers))

    app.stage("in", batch=700, within=100, name="handle")(handle if kind == "async" else handle_in_thread)
    await publish(broker_url, app, "in", list(range(1400)))
    async with app.worker(broker_url, connect_attempts=1, concurrency=1):
        await eventually(lambda: sum(seen) == 1400, "two full batches")
    assert seen == [700, 700]


async def test_results_are_confirmed_before_all_inputs_are_acked_together(broker_url: str) -> None:
    app = rabbitry.App("together")

    @app.stage("in", then="out", batch=3, within=60)
    def handle(numbers: list[int]) -> list[int]:
        return [sum(numbers), max(numbers)]

    app.output("out", queue="together.out")
    await publish(broker_url, app, "in", [1, 2, 3])
    async with app.worker(broker_url, connect_attempts=1):
        await eventually_holds(broker_url, "together.out", 2)
    assert await bodies(broker_url, "together.out") == [b"6", b"3"]
    assert await counts(broker_url, ["together.handle"]) == {"together.handle": 0}


async def test_single_messages_of_a_batch_are_settled_individually(broker_url: str) -> None:
    app = rabbitry.App("single")
    attempts: dict[int, list[int]] = {}

    @app.stage("in", then="out", batch=6, within=0.2, delays=[0], attempts=3)
    async def handle(items: list[Item], messages: list[rabbitry.Message], batch: rabbitry.Batch) -> list[int]:
        assert len(items) == len(messages) == len(batch)
        good = []
        for index, (item, message) in enumerate(zip(items, messages, strict=True)):
            attempts.setdefault(item.n, []).append(message.attempt)
            if item.n == 1:
                batch.fail(index, rabbitry.Reject("one"))
            elif item.n == 2 and message.attempt == 1:
                batch.fail(index, rabbitry.Retry(after=0))
            elif item.n == 3:
                batch.fail(index, ValueError("three"))
            else:
                good.append(item.n)
        return good

    app.output("out", queue="single.out")
    await publish(broker_url, app, "in", [Item(n) for n in range(5)])
    await put(broker_url, "single.handle", b'{"n": "no number"}')
    async with app.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, app, 3)
        await eventually_holds(broker_url, "single.out", 3)
    assert attempts == {0: [1], 1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1]}
    assert sorted(await bodies(broker_url, "single.out")) == [b"0", b"2", b"4"]
    letters = {letter.reason: letter for letter in await dead_of(broker_url, app)}
    assert letters["rejected"].error == "one"
    assert (letters["failed"].error, letters["failed"].attempts) == ("ValueError: three", 3)
    assert "$.n" in letters["undecodable"].error


async def test_results_carry_on_the_chain_of_the_message_that_they_follow_from(broker_url: str) -> None:
    app = rabbitry.App("chained")
    seen: dict[int, rabbitry.Message] = {}

    @app.stage("in", then="next", batch=3)
    async def handle(numbers: list[int]) -> list[rabbitry.Outgoing | int]:
        return [*(rabbitry.Outgoing(n, index=index) for index, n in enumerate(numbers)), 100]

    @app.stage("next")
    async def keep(number: int, message: rabbitry.Message) -> None:
        seen[number] = message

    ids = {}
    async with app.publisher(broker_url) as publisher:
        await publisher.send("no number", key="in")
        for n in range(2):
            ids[n] = await publisher.publish(n, key="in")
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(seen) == 3, "the results")
    assert {n: seen[n].correlation_id for n in ids} == ids
    assert seen[100].correlation_id == seen[100].id, "it follows from no single message"


@pytest.mark.parametrize("error", [ValueError("poison"), rabbitry.Reject("poison"), rabbitry.Retry("poison", after=0)])
async def test_one_poisoned_message_among_500_costs_no_other_an_attempt(broker_url: str, error: Exception) -> None:
    app = rabbitry.App("poisoned")
    calls: list[int] = []
    done: Counter[int] = Counter()

    @app.stage("in", batch=500, within=5, delays=[0], attempts=2)
    async def handle(numbers: list[int], messages: list[rabbitry.Message]) -> None:
        calls.append(len(numbers))
        assert all(message.attempt == 1 for message in messages if message.type != "int" or len(messages) > 1)
        if 321 in numbers:
            raise error
        done.update(numbers)

    await publish(broker_url, app, "in", list(range(500)))
    async with app.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, app, 1)
        await eventually(lambda: len(done) == 499, "the others")
    (letter,) = await dead_of(broker_url, app)
    assert (letter.body, "poison" in letter.error) == (b"321", True)
    assert letter.attempts == (1 if isinstance(error, rabbitry.Reject) else 2)
    assert done == Counter(set(range(500)) - {321})
    assert len(calls) <= 22, "it is found by halving"


async def test_a_batch_that_fails_for_all_costs_each_one_attempt(broker_url: str) -> None:
    app = rabbitry.App("failing")

    @app.stage("in", batch=5, delays=[0], attempts=2)
    def handle(numbers: list[int]) -> None:
        raise ValueError("the database is down")

    await publish(broker_url, app, "in", list(range(5)))
    async with app.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, app, 5)
    assert {(letter.body, letter.attempts) for letter in await dead_of(broker_url, app)} == {
        (b"%d" % n, 2) for n in range(5)
    }


@pytest.mark.parametrize("kind", ["async", "thread"])
@ON_EMBEDDED
async def test_a_message_that_hangs_its_batch_costs_no_other_an_attempt(broker_url: str, kind: str) -> None:
    app = rabbitry.App("hanging")
    done: list[tuple[int, int]] = []
    release = threading.Event()

    async def handle(numbers: list[int], messages: list[rabbitry.Message]) -> None:
        if 3 in numbers:
            await asyncio.Event().wait()
        done.extend(zip(numbers, (message.attempt for message in messages), strict=True))

    def handle_in_thread(numbers: list[int], messages: list[rabbitry.Message]) -> None:
        if 3 in numbers:
            release.wait(60)
        else:
            done.extend(zip(numbers, (message.attempt for message in messages), strict=True))

    register = app.stage("in", batch=6, attempts=1, time_limit=5, name="handle", concurrency=4)
    register(handle if kind == "async" else handle_in_thread)
    await publish(broker_url, app, "in", list(range(6)))
    try:
        async with app.worker(broker_url, connect_attempts=1) as worker:
            await eventually_dead(broker_url, app, 1)
            await eventually(lambda: len(done) == 5, "the others")
            await worker.stop(0.1)
    finally:
        release.set()
    (letter,) = await dead_of(broker_url, app)
    assert (letter.body, letter.attempts) == (b"3", 1)
    assert "time limit" in letter.error
    assert sorted(done) == [(n, 1) for n in range(6) if n != 3]


@ON_EMBEDDED
async def test_a_worker_process_handles_batches_and_its_death_costs_the_one_that_kills_it(broker_url: str) -> None:
    await publish(broker_url, batches, "process", [Item(n) for n in range(20)])
    async with batches.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, batches, 2)
        await eventually_holds(broker_url, "batches.out", 18, at_least=True)
    out = [Item(int(body)) for body in await bodies(broker_url, "batches.out")]
    assert {item.n for item in out} == set(range(20)) - {7, 11}
    letters = {letter.body: letter for letter in await dead_of(broker_url, batches)}
    assert letters[b'{"n":7}'].error == "seven"
    assert "ended with exit code 7" in letters[b'{"n":11}'].error


async def test_a_stopping_worker_returns_an_unfinished_batch_uncounted(broker_url: str) -> None:
    app = rabbitry.App("stopping")
    seen: list[int] = []
    attempts: list[int] = []
    is_released = False

    @app.stage("in", batch=3, within=60)
    async def handle(numbers: list[int], messages: list[rabbitry.Message]) -> None:
        seen.extend(numbers)
        if not is_released:
            await asyncio.Event().wait()
        attempts.extend(message.attempt for message in messages)

    await publish(broker_url, app, "in", list(range(5)))
    worker = app.worker(broker_url, connect_attempts=1)
    async with worker:
        await eventually(lambda: len(seen) == 3, "the first batch")
        assert await worker.stop(deadline=0.05)
    await eventually_holds(broker_url, "stopping.handle", 5)
    is_released = True
    await publish(broker_url, app, "in", [5])
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(attempts) == 6, "all of them")
    assert attempts == [1] * 6


async def test_the_harness_raises_the_error_of_a_batch_or_its_message() -> None:
    app = rabbitry.App("tested")

    @app.stage("in", then="out", batch=3, within=60)
    async def handle(numbers: list[int], batch: rabbitry.Batch) -> list[int]:
        batch.fail(numbers.index(2), ValueError("not two"))
        return [n for n in numbers if n != 2]

    app.output("out")

    async def run() -> None:
        async with harness(app) as h:
            for n in range(3):
                await h.publish(n, key="in")
            await h.published("out", timeout=60)

    with pytest.raises(AssertionError, match="not two"):
        await run()


def test_a_batch_takes_errors_of_its_own_messages_alone() -> None:
    batch = rabbitry.Batch(2)
    for index in (-1, 2):
        with pytest.raises(IndexError, match="there are 2"):
            batch.fail(index, ValueError())
    with pytest.raises(TypeError, match="no exception"):
        batch.fail(0, "wrong")  # type: ignore[arg-type] # wrong on purpose


def test_invalid_batch_options_are_refused() -> None:
    app = rabbitry.App("refused")

    async def single(value: int) -> None: ...
    async def several(values: list[int]) -> None: ...
    async def one_message(values: list[int], message: rabbitry.Message) -> None: ...
    async def all_messages(value: int, messages: list[rabbitry.Message]) -> None: ...
    async def a_batch(value: int, batch: rabbitry.Batch) -> None: ...
    async def twice(values: list[int], a: rabbitry.Batch, b: rabbitry.Batch) -> None: ...

    for handler, options, why in (
        (single, {"batch": 2}, r"list\[T\]"),
        (several, {"batch": 0}, "1 to 65535"),
        (several, {"batch": 65_536}, "1 to 65535"),
        (several, {"batch": 2, "within": -1}, "not negative"),
        (several, {"batch": 2, "keep_unknown": True}, "keep_unknown"),
        (several, {"within": 1}, "within=… is for stages with batch="),
        (several, {"batch_bytes": 1000}, "batch_bytes=… is for stages with batch="),
        (several, {"batch": 2, "batch_bytes": 0}, "bytes, 1 to 4194304"),
        (several, {"batch": 2, "batch_bytes": 5_000_000}, "bytes, 1 to 4194304"),
        (one_message, {"batch": 2}, r"list\[rabbitry.Message\]"),
        (all_messages, {}, "rabbitry.Message"),
        (a_batch, {}, "batch="),
        (twice, {"batch": 2}, "twice"),
    ):
        with pytest.raises(rabbitry.AppError, match=why):
            app.stage("in", **options)(handler)  # type: ignore[arg-type] # each a set of options


async def test_a_batch_waits_no_longer_than_its_time_for_more(broker_url: str) -> None:
    app = rabbitry.App("late")
    seen: list[float] = []

    @app.stage("in", batch=1000, within=0.3)
    async def handle(numbers: list[int]) -> None:
        seen.append(time.monotonic())

    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        began = time.monotonic()
        await publisher.publish(1, key="in")
        await eventually(lambda: seen, "the batch")
        assert seen[0] - began >= 0.29


async def test_messages_of_a_lost_batch_come_again_together_and_after_another_loss_alone(broker_url: str) -> None:
    calls: dict[str, list[list[int]]] = {"first": [], "second": [], "third": []}
    """The attempts of the messages of each call, by worker."""

    def app_of(worker: str) -> rabbitry.App:
        app = rabbitry.App("lost")

        @app.stage("in", batch=50, within=60, single_active=True)
        async def handle(numbers: list[int], messages: list[rabbitry.Message]) -> None:
            calls[worker].append([message.attempt for message in messages])
            if worker != "third":
                await asyncio.Event().wait()

        return app

    await publish(broker_url, app_of("third"), "in", list(range(50)))
    port = parse_url(broker_url).hosts[0][1]
    async with FaultProxy(port) as proxy:
        through = broker_url.replace(f":{port}/", f":{proxy.port}/")
        for worker, attempt in (("first", 1), ("second", 2)):
            proxy.accept()
            async with app_of(worker).worker(through, connect_attempts=1) as running:
                await eventually(lambda worker=worker: calls[worker], "a full batch")  # type: ignore[misc] # bound now
                proxy.refuse()
                await proxy.reset()
                await running.stop(0.1)
            assert calls[worker] == [[attempt] * 50]
    async with app_of("third").worker(broker_url, connect_attempts=1):
        await eventually(lambda: sum(map(len, calls["third"])) == 50, "all messages")
    assert calls["third"] == [[3]] * 50, "each is handled alone, so that another loss shows which one is the cause"
    assert await dead_of(broker_url, app_of("third")) == []
