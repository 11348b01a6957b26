"""Limits for each key hold over all workers, whatever becomes of these, and hold up no other key; on both brokers."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.flow.wiring import keys, pausing
from rabbitry.flow.wiring.keys import hashed, key_rate_queue, key_slot_queue
from rabbitry.flow.worker import _keyed
from rabbitry.flow.worker._lanes import Lane
from rabbitry.flow.worker._waiting import Waiting
from rabbitry.testing import harness
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds, put
from tests.flow.worker._over_kills import RATE, begun_over_kills, calls_over_kills, rate_of
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually, eventually_awaited


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_never_begin_more_than_the_rate_of_a_key(broker_url: str, path: Path) -> None:
    begun = await begun_over_kills(broker_url, path, "ask_each", 60, 2)
    for key, moments in begun.by_key.items():
        for number, moment in enumerate(moments):
            # Those of a second may begin at once.
            assert number <= RATE + RATE * (moment - begun.since), f"handler {number} of key {key} began too early"


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_over_a_minute_with_kills_the_rate_of_each_key_is_held(broker_url: str, path: Path) -> None:
    begun = await begun_over_kills(broker_url, path, "ask_each", 66 * RATE, 12)
    for key, moments in begun.by_key.items():
        rate = rate_of(moments, 60)
        print(f"key {key}: {rate:.2f} a second of {RATE}")
        assert rate <= 1.02 * RATE  # a busy machine may begin fewer


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_never_run_more_of_a_key_at_once(broker_url: str, path: Path) -> None:
    assert (await calls_over_kills(broker_url, path, "run_each", 60, [10, 30])).most_by_key() == [1, 1, 1]


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_over_many_kills_no_more_of_a_key_run_at_once(broker_url: str, path: Path) -> None:
    calls = await calls_over_kills(broker_url, path, "run_each", 300, range(10, 300, 20))
    assert calls.most_by_key() == [1, 1, 1]


@pytest.mark.timeout(300)
async def test_a_killed_broker_lets_no_more_of_a_key_run_at_once(own_broker: RabbitMQ | BrokerProcess) -> None:
    app = rabbitry.App("restarted")
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()
    done: set[int] = set()

    @app.stage("in", concurrency_each=1, rate_each="50/s", limit_by=lambda number: number % 3)
    async def handle(number: int) -> None:
        key = number % 3
        running[key] += 1
        most[key] = max(most[key], running[key])
        await asyncio.sleep(0)
        running[key] -= 1
        done.add(number)

    async with app.publisher(own_broker.url) as publisher:
        await asyncio.gather(*(publisher.publish(number, key="in") for number in range(300)))
    loop = asyncio.get_running_loop()
    async with (
        app.worker(own_broker.url, connect_attempts=1) as one,
        app.worker(own_broker.url, connect_attempts=1) as two,
    ):
        await eventually(lambda: len(done) >= 50, "some calls")
        await loop.run_in_executor(None, own_broker.kill)
        await loop.run_in_executor(None, own_broker.start)
        await eventually(lambda: one.is_healthy and two.is_healthy, "the workers to come back")
        await eventually(lambda: len(done) == 300, "all calls")
        await eventually_holds(own_broker.url, "restarted.handle", 0)
    assert most == {0: 1, 1: 1, 2: 1}


async def test_leases_come_back_with_a_lost_connection(no_leaks: None) -> None:
    app = rabbitry.App("cut")
    seen: Counter[int] = Counter()
    until = asyncio.Event()

    @app.stage("in", concurrency_each=1, rate_each="100/s", limit_by=lambda number: number % 2)
    async def handle(number: int) -> None:
        seen[number] += 1
        await until.wait()

    async with Broker(BrokerConfig(port=0)) as broker:
        async with app.worker(broker.url) as one, app.worker(broker.url):
            await asyncio.gather(*(one.publish(number, key="in") for number in range(20)))
            await eventually(lambda: len(seen) == 2, "a call of each key")
            assert broker.drop_connections() >= 4
            until.set()
            await eventually(lambda: len(seen) == 20, "all messages")
            await eventually_holds(broker.url, "cut.handle", 0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize(("total", "rate"), [(1, None), (3, None), (2, "1000/s")])
async def test_each_key_has_its_calls_at_once(
    broker_url: str, queue_type: str, total: int, rate: str | None, no_leaks: None
) -> None:
    app = rabbitry.App("slotted", queue_type=queue_type)  # type: ignore[arg-type] # one of the two
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()
    tried: list[int] = []

    @app.stage("in", then="out", concurrency_each=total, rate_each=rate, limit_by=lambda number: number % 5, attempts=2,
               delays=[0])  # fmt: skip
    async def handle(number: int) -> int:
        key = number % 5
        running[key] += 1
        most[key] = max(most[key], running[key])
        await eventually(lambda: most[key] >= total, "as many calls at once as may be")
        running[key] -= 1
        tried.append(number)
        if tried.count(number) == 1 and number % 7 == 0:
            raise ValueError("once more")
        return number

    app.output("out", queue="slotted.out")
    async with app.worker(broker_url) as worker, app.worker(broker_url), rabbitry.connect(broker_url) as connection:
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(40)))
        await eventually_holds(broker_url, "slotted.out", 40)
        queue = key_slot_queue("slotted", "handle", hashed("0"), 1)
        async with await connection.channel() as channel:
            await channel.declare_queue(queue, durable=True, arguments=keys.key_slot_arguments())
            await put(broker_url, queue, b"")  # a second token gives no second slot
            await asyncio.gather(*(worker.publish(number, key="in") for number in range(40, 60)))
            await eventually_holds(broker_url, "slotted.out", 60)
            await channel.delete_queue(queue)
        await worker.publish(60, key="in")
        await eventually_holds(broker_url, "slotted.out", 61)
    assert max(most.values()) <= total
    assert max(most.values()) == total
    assert len(tried) == 61 + len(range(0, 61, 7))


async def test_a_busy_key_holds_up_no_other(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("busy")
    seen: list[str] = []
    until = asyncio.Event()

    @app.stage("in", concurrency_each=1, limit_by=lambda text: text[0], concurrency=2)
    async def handle(text: str) -> None:
        seen.append(text)
        if text[0] == "a":
            await until.wait()

    async with app.publisher(broker_url) as publisher:
        # More than the worker has room for, before the first message of another key.
        await asyncio.gather(*(publisher.publish(f"a{number}", key="in") for number in range(300)))
        await publisher.publish("b", key="in")
    async with app.worker(broker_url):
        await eventually(lambda: "b" in seen, "the message behind those of the busy key")
        assert len(seen) == 2
        until.set()
        await eventually(lambda: len(seen) == 301, "all messages")
    assert len(set(seen)) == 301


async def test_keys_that_wait_hold_up_no_other_key(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    app = rabbitry.App("waiting")
    seen: list[int] = []
    until = asyncio.Event()

    @app.stage("in", concurrency_each=1, limit_by=lambda number: number, concurrency=3)
    async def handle(number: int) -> None:
        seen.append(number)
        if number < 2:
            await until.wait()

    async with app.worker(broker_url) as one:
        for number in range(2):
            await one.publish(number, key="in")
        await eventually(lambda: len(seen) == 2, "two calls")
        monkeypatch.setattr("rabbitry.flow.worker._engine._MOST_LEASES", 2)  # as many as keys that wait
        async with app.worker(broker_url) as two:
            await asyncio.gather(*(two.publish(number % 2, key="in") for number in range(50)))
            await asyncio.gather(*(two.publish(number, key="in") for number in range(2, 20)))
            await eventually(lambda: set(seen) == set(range(20)), "the other keys")
            until.set()
            await eventually(lambda: len(seen) == 70, "all messages")


async def test_more_keys_wait_than_the_broker_allows_channels(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("narrow")
    seen: list[int] = []
    until = asyncio.Event()

    @app.stage("in", concurrency_each=1, rate_each="100/s", limit_by=lambda number: number)
    async def handle(number: int) -> None:
        seen.append(number)
        await until.wait()

    async with app.worker(f"{broker_url}?channel_max=20") as worker:
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(60)))
        await eventually(lambda: len(seen) == 10, "as many calls as half of the channels")
        until.set()
        await eventually(lambda: len(seen) == 60, "all messages")


@pytest.mark.parametrize(("total", "rate"), [(1, None), (None, "100/s")])
async def test_a_worker_whose_handlers_are_busy_leaves_its_keys_to_others(
    broker_url: str, total: int | None, rate: str | None, no_leaks: None
) -> None:
    app = rabbitry.App("long")
    seen: list[str] = []
    until = asyncio.Event()

    @app.stage("in", concurrency_each=total, rate_each=rate, limit_by=lambda text: text[0], concurrency=1)
    async def handle(text: str) -> None:
        seen.append(text)
        if len(seen) == 1:
            await until.wait()

    async with app.worker(broker_url) as one:
        await asyncio.gather(*(one.publish(text, key="in") for text in ("a0", "b0")))
        await eventually(lambda: seen, "the call that keeps the first worker busy")
        other = "b" if seen[0] == "a0" else "a"
        async with app.worker(broker_url):
            await asyncio.gather(*(one.publish(f"{other}{number}", key="in") for number in range(1, 5)))
            await eventually(lambda: len(seen) > 1, "a call of the other key in the second worker")
            until.set()
            await eventually(lambda: len(seen) == 6, "all messages")


async def test_what_waits_is_returned_unattempted(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("minutely")
    seen: list[rabbitry.Message] = []

    @app.stage("ask", rate_each="1/m", limit_by=lambda number: number % 2)
    async def ask(number: int, message: rabbitry.Message) -> None:
        seen.append(message)

    async with app.worker(broker_url) as worker:
        for number in range(6):
            await worker.publish(number, key="ask")
        await eventually(lambda: len(seen) == 2, "the first message of each key")
        await eventually_holds(broker_url, "minutely.ask", 0)
        async with rabbitry.connect(broker_url) as connection:
            await pausing.pause(connection, "minutely", "ask", by="a test")
            await eventually_holds(broker_url, "minutely.ask", 4)
            await pausing.resume(connection, "minutely", "ask")
            await eventually_holds(broker_url, "minutely.ask", 0)
    held = [key_rate_queue("minutely", "ask", hashed(str(key))) for key in (0, 1)]
    assert await counts(broker_url, ["minutely.ask", *held]) == {"minutely.ask": 4} | dict.fromkeys(held, 1)
    async with app.worker(broker_url) as worker:
        await eventually_holds(broker_url, held[0], 0)
        assert len(seen) == 2  # the next token is due in a minute
        await worker.publish(1, key="ask")
        await eventually_holds(broker_url, "minutely.ask", 0)
    assert [message.attempt for message in seen] == [1, 1]
    await eventually_holds(broker_url, "minutely.ask", 5)


async def test_a_backlog_at_a_low_rate_waits_in_a_retry_queue(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(_keyed, "_TURN", 0.1)
    monkeypatch.setattr(_keyed, "_LOOK", 0.02)
    app = rabbitry.App("slow")
    seen: list[str] = []

    @app.stage("ask", rate_each="1/m", limit_by=lambda text: text[0])
    async def ask(text: str) -> None:
        seen.append(text)

    async with app.publisher(broker_url) as publisher:
        await asyncio.gather(*(publisher.publish(f"a{number}", key="ask") for number in range(600)))
        await publisher.publish("b", key="ask")
    async with app.worker(broker_url):
        await eventually(lambda: "b" in seen, "the message behind those of the slow key")
        await eventually_holds(broker_url, "slow.retry.5m", 250, at_least=True)
        await eventually_holds(broker_url, "slow.ask", 0)  # the worker has room for the 300 others
    assert len(seen) == 2
    waiting = (await counts(broker_url, ["slow.retry.5m", "slow.ask"])).values()
    assert sum(waiting) == 599
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        later = await channel.get("slow.retry.5m", no_ack=True)
    assert later is not None
    assert later.properties.headers is not None
    assert later.properties.headers["x-rabbitry-attempt"] == 1, "a wait is no attempt"
    assert later.routing_key == "slow.ask", "it comes back to the stage's queue"


async def test_what_is_cancelled_while_it_waits_is_dropped(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("cancelled", cancellable=True)
    seen: list[int] = []

    @app.stage("ask", rate_each="1/m", limit_by=lambda number: "all", replies=True)
    async def ask(number: int) -> int:
        seen.append(number)
        return number

    async with app.worker(broker_url), app.publisher(broker_url) as publisher:
        calls = [
            asyncio.create_task(publisher.call(number, key="ask", timeout=100, id=f"call {number}", type=int))
            for number in range(3)
        ]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for number in set(range(3)) - set(seen):
            await publisher.cancel(f"call {number}")
            with pytest.raises(rabbitry.CallCancelled):
                await calls[number]
    assert len(seen) == 1


async def test_messages_whose_key_fails_are_tried_again_and_those_without_have_no_limit(
    broker_url: str, no_leaks: None
) -> None:
    app = rabbitry.App("wrong")
    seen: list[str] = []

    def customer(order: dict[str, str | None]) -> object:
        return order["customer"]

    @app.stage("order", rate_each="1/m", limit_by=customer, attempts=2, delays=[0])
    async def pay(order: dict[str, str | None]) -> None:
        seen.append(order["article"] or "")

    async with app.worker(broker_url) as worker:
        await worker.publish({"article": "tea"}, key="order")
        for _ in range(3):
            await worker.publish({"article": "air", "customer": None}, key="order")
        await put(broker_url, "wrong.pay", b"no JSON")
        await eventually_dead(broker_url, app, 2)
        await eventually(lambda: len(seen) == 3, "the messages without a key")
    assert {(letter.reason, letter.attempts, letter.error[:22]) for letter in await dead_of(broker_url, app)} == {
        ("failed", 2, "KeyError: 'customer'"),
        ("undecodable", 1, "JSON is malformed: inv"),
    }
    assert seen == ["air"] * 3


async def test_queues_of_keys_disappear_when_they_are_not_in_use(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(keys, "_UNUSED", 500)
    app = rabbitry.App("passing")
    seen: list[int] = []

    @app.stage("in", rate_each="10/s", concurrency_each=1, limit_by=lambda number: number)
    async def handle(number: int) -> None:
        seen.append(number)

    names = [key_rate_queue("passing", "handle", hashed(str(number))) for number in range(50)]
    names += [key_slot_queue("passing", "handle", hashed(str(number)), 1) for number in range(50)]

    async def are_gone() -> bool:
        # A look at a queue is a use of it (RabbitMQ's docs/ttl), so each is looked at once in a hundred looks.
        name = names.pop(0)
        if (await counts(broker_url, [name]))[name] != -1:
            names.append(name)
        return not names

    async with app.worker(broker_url) as worker:
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(50)))
        await eventually(lambda: len(seen) == 50, "a message of each key")
        await eventually_awaited(are_gone, "the queues to be deleted")
        await worker.publish(0, key="in")
        await eventually(lambda: len(seen) == 51, "a message of a key whose queues are gone")


async def test_a_version_with_other_queues_knows_what_a_key_has_used(broker_url: str, no_leaks: None) -> None:
    seen: list[int] = []

    def versioned(queue_type: str) -> rabbitry.App:
        app = rabbitry.App("versions", queue_type=queue_type)  # type: ignore[arg-type] # one of the two

        @app.stage(
            "in", queue=f"versions.{queue_type}", rate_each="1/m", concurrency_each=1, limit_by=lambda number: "all"
        )
        async def handle(number: int) -> None:
            seen.append(number)

        return app

    async with versioned("quorum").worker(broker_url) as worker:
        await worker.publish(0, key="in")
        await eventually(lambda: len(seen) == 1, "the first message")
    async with versioned("classic").worker(broker_url) as worker:
        await worker.publish(1, key="in")
        await eventually_holds(broker_url, key_rate_queue("versions", "handle", hashed("all")), 0)
    assert seen == [0], "the first version used the token of this minute"


async def test_batches_have_the_rate_of_each_message(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("batched")
    seen: list[int] = []

    @app.stage("in", batch=4, rate_each="2/m", limit_by=lambda number: number % 3)
    async def handle(numbers: list[int]) -> None:
        seen.extend(numbers)

    async with app.worker(broker_url) as worker:
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(9)))
        await eventually(lambda: len(seen) == 3, "one message of each key")
        await eventually_holds(broker_url, "batched.handle", 0)
    assert {number % 3 for number in seen} == {0, 1, 2}


async def test_an_idempotent_stage_has_limits_too(broker_url: str, tmp_path: Path, no_leaks: None) -> None:
    app = rabbitry.App("once", store=f"sqlite:///{tmp_path / 'once.sqlite3'}")
    seen: list[str] = []

    @app.stage("in", concurrency_each=1, limit_by=lambda text: text, idempotent=lambda text: text)
    async def handle(text: str) -> None:
        seen.append(text)

    async with app.worker(broker_url) as worker:
        for text in "aabba":
            await worker.publish(text, key="in")
        await eventually(lambda: len(seen) == 2, "one of each")
        await eventually_holds(broker_url, "once.handle", 0)
    assert sorted(seen) == ["a", "b"]


async def test_a_note_of_an_idempotent_stage_has_no_key(broker_url: str, tmp_path: Path, no_leaks: None) -> None:
    app = rabbitry.App("noted", store=f"sqlite:///{tmp_path / 'once.sqlite3'}")

    @app.stage("in", rate_each="10/s", limit_by=lambda body: body[0], idempotent=lambda body: body, attempts=1)
    async def handle(body: bytes) -> None: ...

    async with app.worker(broker_url) as worker:
        for _ in range(2):
            await put(broker_url, "noted.handle", b"a")
        skipped = worker._engine.counting.stages["handle"].not_done
        await eventually(lambda: skipped["skipped"] == 1, "the copy is skipped")
    assert await dead_of(broker_url, app) == []


async def test_keys_that_fail_together_are_told_in_one_warning(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_leaks: None
) -> None:
    app = rabbitry.App("failing")
    seen: list[int] = []
    failed: set[str] = set()
    hold_slot = _keyed.Keyed._hold_slot

    async def failing_once(keyed: _keyed.Keyed, lane: Lane, waiting: Waiting, total: int) -> None:
        if lane.key not in failed:
            failed.add(lane.key)
            raise rabbitry.RequestTimeout("by the test")
        await hold_slot(keyed, lane, waiting, total)

    monkeypatch.setattr(_keyed.Keyed, "_hold_slot", failing_once)

    @app.stage("in", concurrency_each=1, limit_by=lambda number: number, concurrency=20)
    async def handle(number: int) -> None:
        seen.append(number)

    async with app.worker(broker_url) as worker:
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(20)))
        await eventually(lambda: len(seen) == 20, "all messages")
    told = [record.message for record in caplog.records if "a key of stage 'handle'" in record.message]
    assert len(told) == 1, told


async def test_a_clock_that_is_set_back_stops_no_key(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    ahead = 3600.0
    clock = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic)
    monkeypatch.setattr(_keyed, "time", clock)
    app = rabbitry.App("late")
    seen: list[int] = []

    @app.stage("ask", rate_each="20/s", limit_by=lambda number: "all")
    async def ask(number: int) -> None:
        seen.append(number)

    async with app.worker(broker_url) as worker:
        await worker.publish(0, key="ask")
        await eventually(lambda: len(seen) == 1, "the first message")
        ahead = 0.0
        await asyncio.gather(*(worker.publish(number, key="ask") for number in range(1, 41)))
        await eventually(lambda: len(seen) == 41, "the messages after the clock was set back", within=60)


async def test_the_harness_waits_for_no_limit_but_calls_the_function(no_leaks: None) -> None:
    app = rabbitry.App("tested")

    @app.stage("in", then="out", rate_each="1/m", concurrency_each=1, limit_by=lambda number: 1 // number)
    async def handle(number: int) -> int:
        return number

    app.output("out", required=False)
    async with harness(app, raise_errors=False) as h:
        for number in (2, 3):
            await h.publish(number, key="in")
            assert await h.published("out", type=int) == number
        await h.publish(0, key="in")
        assert (await h.dead()).error.startswith("ZeroDivisionError")
        assert all("in _key_of" in error for error in h.errors)
