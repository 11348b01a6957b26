"""Workers on both brokers: settlement, retries, dead letters, limits, the end."""

import asyncio
import logging
import threading
import time

import httpx
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.worker._executors.threads import ThreadExecutor
from tests.flow._apps import Item, dangerous
from tests.flow._kinds import Data, Model
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds, put
from tests.support.waiting import eventually, eventually_awaited


async def test_unknown_fields_survive_and_metadata_is_kept(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("keeping")
    seen: list[tuple[dict[str, int], rabbitry.Message]] = []

    @app.stage("a", then="b", keep_unknown=True)
    async def first(item: Item) -> list[Item]:
        return [Item(item.n + 1), Item(item.n + 2)]

    @app.stage("b")
    def second(item: dict[str, int], message: rabbitry.Message) -> None:
        seen.append((item, message))

    async with app.worker(broker_url, connect_attempts=1):
        identity = await app.publish({"n": 1, "more": 7}, key="a", url=broker_url)
        await eventually(lambda: len(seen) == 2, "both results")
    assert sorted(item["n"] for item, _ in seen) == [2, 3]
    assert all(item["more"] == 7 for item, _ in seen)
    message = seen[0][1]
    assert (message.correlation_id, message.attempt, message.type, message.app_id) == (identity, 1, "Item", "keeping")
    assert (message.exchange, message.routing_key, message.queue) == ("keeping", "b", "keeping.second")
    assert message.id != identity
    assert len({message.id for _, message in seen}) == 2
    assert "traceparent" not in message.headers  # no span is current, and none is invented


async def test_a_failure_waits_in_a_retry_queue_and_comes_again(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("retrying")
    attempts: list[tuple[float, rabbitry.Message]] = []

    @app.stage("in", delays=[0.2])
    async def fail_twice(text: str, message: rabbitry.Message) -> None:
        attempts.append((time.monotonic(), message))
        if len(attempts) == 1:
            raise ValueError("first")
        if len(attempts) == 2:
            raise rabbitry.Retry(after=0)

    async with app.worker(broker_url, connect_attempts=1):
        identity = await app.publish("x", key="in", url=broker_url)
        await eventually(lambda: len(attempts) == 3, "three attempts")
    assert [message.attempt for _, message in attempts] == [1, 2, 3]
    assert {message.id for _, message in attempts} == {identity}
    assert {(message.exchange, message.routing_key) for _, message in attempts} == {("retrying", "in")}
    assert attempts[1][0] - attempts[0][0] >= 0.95, "a delay rounds up to the shortest retry queue, one second"
    assert await dead_of(broker_url, app) == []


async def test_a_message_that_always_fails_is_a_dead_letter_that_can_be_replayed(
    broker_url: str, no_leaks: None
) -> None:
    app = rabbitry.App("failing")
    is_mended = threading.Event()
    done: list[tuple[str, int]] = []

    @app.stage("in", attempts=2, delays=[0])
    def fail(text: str, message: rabbitry.Message) -> None:
        if not is_mended.is_set():
            raise LookupError("no such thing")
        done.append((text, message.attempt))

    async with app.worker(broker_url, connect_attempts=1):
        identity = await app.publish("x", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
        (letter,) = await dead_of(broker_url, app)
        assert (letter.id, letter.reason, letter.error) == (identity, "failed", "LookupError: no such thing")
        assert (letter.stage, letter.queue, letter.attempts) == ("fail", "failing.fail", 2)
        assert (letter.exchange, letter.routing_key) == ("failing", "in")
        assert "in fail\n    raise LookupError" in letter.traceback
        assert letter.failed_at
        assert letter.node
        is_mended.set()
        async with rabbitry.connect(broker_url) as connection:
            await eventually_dead(broker_url, app, 1)  # it is back in its place, after the look at it
            assert await dead_letters.replay(connection, app.name, dead_letters.which(reason="rejected")) == (0, [])
            await eventually_dead(broker_url, app, 1)
            assert await dead_letters.replay(connection, app.name, dead_letters.which(id=identity)) == (1, [])
        await eventually(lambda: done == [("x", 1)], "the replayed message")
    assert await dead_of(broker_url, app) == []


async def test_bad_bodies_and_rejections_are_dead_letters_at_once(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("strictly")
    texts: list[str] = []

    @app.stage("struct")
    async def struct(item: Item) -> None:
        raise rabbitry.Reject("wrong", reason="wrong-status")

    @app.stage("model")
    def model(item: Model) -> None: ...

    @app.stage("data")
    def data(item: Data) -> None: ...

    @app.stage("text")
    def text(item: str) -> None:
        texts.append(item)

    async with app.worker(broker_url, connect_attempts=1):
        foreign = Properties(message_id="m1", headers={"theirs": 1, "CC": ["strictly.text"], "x-death": []})
        await put(broker_url, "strictly.struct", b'{"n": 1}', foreign)
        for stage in ("struct", "model", "data"):
            await put(broker_url, f"strictly.{stage}", b'{"n": "one"}')
        await put(broker_url, "strictly.text", b"\xff")
        await eventually_dead(broker_url, app, 5)
    letters = {(letter.stage, letter.reason): letter for letter in await dead_of(broker_url, app)}
    assert letters["struct", "wrong-status"].error == "wrong"
    assert letters["struct", "wrong-status"].id == "m1"
    for stage in ("struct", "model", "data"):
        assert "$.n" in letters[stage, "undecodable"].error
    assert "UTF-8" in letters["text", "undecodable"].error
    assert len(texts) <= 1, "CC is an order to the broker, not to be repeated with the dead letter"


async def test_an_unroutable_result_is_a_dead_letter_and_the_input_is_acked(broker_url: str) -> None:
    app = rabbitry.App("unheard")

    @app.stage("in", then=lambda text: text)
    async def send_on(text: str) -> str:
        return text

    app.output("quiet", required=False)
    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("nowhere", key="in", url=broker_url)
        await app.publish("quiet", key="in", url=broker_url)
        await eventually_dead(broker_url, app, 1)
        (letter,) = await dead_of(broker_url, app)
        assert (letter.reason, letter.queue, letter.exchange, letter.routing_key) == (
            "unroutable", "", "unheard", "nowhere",
        )  # fmt: skip
        assert letter.body == b"nowhere"
        async with rabbitry.connect(broker_url) as connection:
            await eventually_dead(broker_url, app, 1)  # it is back in its place, after the look at it
            replayed, problems = await dead_letters.replay(connection, app.name, dead_letters.which(everything=True))
            assert (replayed, len(problems)) == (0, 1)
            await eventually_dead(broker_url, app, 1)
            assert await dead_letters.drop(connection, app.name, dead_letters.which(stage="send_on")) == 1
    assert await counts(broker_url, ["unheard.send_on", "unheard.dead"]) == {"unheard.send_on": 0, "unheard.dead": 0}


async def test_a_redelivered_message_is_counted_before_it_is_handled(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("counted")
    attempts: list[int] = []

    @app.stage("in", attempts=1)
    async def handle(text: str, message: rabbitry.Message) -> None:
        attempts.append(message.attempt)

    async with app.publisher(broker_url) as publisher:
        await publisher.publish("x", key="in")
    for _ in range(2):
        await take_and_die(broker_url, "counted.handle")
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: attempts == [2], "the redelivered message")
    # Past its attempts it is a dead letter only where it was alone with its worker: among the suspects.
    for attempt, queue in ((3, "counted.handle"), (4, "counted.suspects.handle")):
        await put(broker_url, queue, b"y", Properties(headers={"x-rabbitry-attempt": attempt - 1}))
        await take_and_die(broker_url, queue)
        async with app.worker(broker_url, connect_attempts=1):
            if attempt == 3:
                await eventually(lambda: attempts == [2, 3], "one that was counted")
            else:
                await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert (letter.reason, letter.attempts, letter.body) == ("failed", 3, b"y")
    assert attempts == [2, 3]


async def take_and_die(url: str, queue: str) -> None:
    """Take a message and lose the connection, as a worker does that is killed."""
    async with rabbitry.connect(url, recover=False) as connection:
        channel = await connection.channel(prefetch=1)
        # RabbitMQ may still be about to give it back from a worker that was lost just before.
        await eventually_awaited(lambda: channel.get(queue), "the message")
        assert connection._session.link is not None
        connection._session.link.driver.abort()
        await connection.wait_closed()


async def test_a_time_limit_ends_handlers_of_each_kind(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("slow")
    release = threading.Event()

    @app.stage("async", attempts=1, time_limit=0.2)
    async def wait(text: str) -> None:
        await asyncio.Event().wait()

    @app.stage("thread", attempts=1, time_limit=1, concurrency=2)
    def hang(text: str) -> None:
        release.wait(100)

    try:
        async with app.worker(broker_url, connect_attempts=1) as worker:
            await app.publish("x", key="async", url=broker_url)
            await app.publish("x", key="thread", url=broker_url)
            await eventually_dead(broker_url, app, 2)
            assert worker.is_healthy
            for _ in range(2):
                await app.publish("x", key="thread", url=broker_url)
            with pytest.raises(rabbitry.RabbitryError, match="3 handlers hang"):
                await asyncio.wait_for(worker.wait(), 60)
    finally:
        release.set()
    letters = await dead_of(broker_url, app)
    assert {letter.stage for letter in letters} == {"wait", "hang"}
    limits = {"wait": "0.2", "hang": "1"}
    assert all(f"time limit of {limits[letter.stage]} s" in letter.error for letter in letters)
    assert "stage 'wait', attempt 1: TimeLimitExceeded: not done within" in caplog.text
    # On a busy machine one of the threads may not have come so far.
    assert any("release.wait(100)" in letter.traceback for letter in letters if letter.stage == "hang")
    assert "release.wait(100)" in caplog.text


async def test_a_handler_that_ignores_its_limit_does_not_affect_the_next(embedded_url: str) -> None:
    app = rabbitry.App("deaf")
    done: list[str] = []

    @app.stage("in", time_limit=0.2, concurrency=1)
    async def handle(text: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            done.append(f"late {text}")
            if text == "deaf":
                return
            raise

    async with app.worker(embedded_url, connect_attempts=1):
        for text in ("deaf", "next"):
            await app.publish(text, key="in", url=embedded_url)
        await eventually(lambda: len(done) >= 2, "both to be past their limit")
    assert done[:2] == ["late deaf", "late next"]


async def test_a_process_that_dies_or_hangs_fails_only_its_message(rabbitmq_url: str) -> None:
    async with dangerous.worker(rabbitmq_url, connect_attempts=1):
        for what in ("die", "hang", "fine"):
            await dangerous.publish(what, key="work", url=rabbitmq_url)
        await eventually_dead(rabbitmq_url, dangerous, 2)
        await eventually_holds(rabbitmq_url, "dangerous.end", 1)
    errors = {letter.body: letter.error for letter in await dead_of(rabbitmq_url, dangerous)}
    assert "exit code 7" in errors[b"die"]
    assert "its process was killed" in errors[b"hang"]


async def test_stopping_finishes_running_messages_and_returns_the_rest(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("stopping")
    began, finished = asyncio.Event(), []

    @app.stage("in", then="out", concurrency=2)
    async def handle(number: str) -> str:
        began.set()
        await asyncio.sleep(0.3)
        finished.append(number)
        return number

    app.output("out", queue="stopping.out")
    async with app.publisher(broker_url) as publisher:
        for number in range(20):
            await publisher.publish(str(number), key="in")
    worker = app.worker(broker_url, connect_attempts=1)
    async with worker:
        await began.wait()
        assert await worker.stop()
    left = await counts(broker_url, ["stopping.handle", "stopping.out", "stopping.dead"])
    assert len(finished) < 20
    assert left == {"stopping.handle": 20 - len(finished), "stopping.out": len(finished), "stopping.dead": 0}


async def test_messages_not_begun_when_a_worker_stops_are_not_counted(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("patient")
    attempts: list[int] = []
    go_on = threading.Event()

    @app.stage("in", concurrency=2)
    def handle(text: str, message: rabbitry.Message) -> None:
        attempts.append(message.attempt)
        go_on.wait(60)

    async with app.publisher(broker_url) as publisher:
        for number in range(8):
            await publisher.publish(str(number), key="in")
    for begun in (2, 4):
        go_on.clear()
        async with app.worker(broker_url, connect_attempts=1) as worker:
            await eventually(lambda begun=begun: len(attempts) == begun, "two handlers to begin")  # type: ignore[misc] # the default has its type
            stopping = asyncio.create_task(worker.stop())
            executor = worker._executors["handle"]
            assert isinstance(executor, ThreadExecutor)
            await eventually(lambda executor=executor: executor._is_stopping, "the rest to be given back")  # type: ignore[misc] # likewise
            go_on.set()
            assert await stopping
        assert len(attempts) == begun
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(attempts) == 8, "the rest")
    assert attempts == [1] * 8


async def test_stopping_cancels_handlers_that_do_not_finish_in_time(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("obstinate")
    began, release = threading.Event(), threading.Event()
    waits, was_cancelled = asyncio.Event(), asyncio.Event()

    @app.stage("thread", concurrency=1)
    def hang(text: str) -> None:
        began.set()
        release.wait(100)

    @app.stage("async")
    async def wait(text: str) -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    worker = app.worker(broker_url, connect_attempts=1)
    try:
        async with worker:
            await app.publish("x", key="thread", url=broker_url)
            await app.publish("x", key="async", url=broker_url)
            await eventually(lambda: began.is_set() and waits.is_set(), "both handlers")
            await worker.stop(0.3)
    finally:
        release.set()
    assert was_cancelled.is_set()
    assert await counts(broker_url, ["obstinate.hang", "obstinate.wait"]) == {"obstinate.hang": 1, "obstinate.wait": 1}


async def test_a_queue_that_is_deleted_comes_back_with_its_consumer(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("deleted")
    seen: list[str] = []

    @app.stage("in")
    async def handle(text: str) -> None:
        seen.append(text)

    async with app.worker(broker_url, connect_attempts=1) as worker:
        intake = worker._engine.intakes[0]
        redeclare, is_noticed = intake._redeclare, threading.Event()

        async def redeclare_once_noticed() -> None:
            await asyncio.to_thread(is_noticed.wait, 60)
            await redeclare()

        intake._redeclare = redeclare_once_noticed
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_queue("deleted.handle")
        await eventually(lambda: not worker.is_healthy, "the loss to be noticed")
        is_noticed.set()
        await eventually(lambda: worker.is_healthy, "the consumer to come back")
        await app.publish("x", key="in", url=broker_url)
        await eventually(lambda: seen == ["x"], "the message")


async def test_a_blocked_loop_is_named_and_health_is_answered_meanwhile(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("stalling")
    answers: list[httpx.Response] = []
    port = 0

    @app.stage("in")
    async def block(text: str) -> None:
        deadline = time.monotonic() + 60
        while "a handler keeps the worker's loop" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)  # noqa: ASYNC251 # what a handler must not do
        answers.append(httpx.get(f"http://127.0.0.1:{port}/health", timeout=90))  # noqa: ASYNC210 # the same

    with caplog.at_level(logging.WARNING, "rabbitry.flow"):
        async with app.worker(broker_url, connect_attempts=1) as worker:
            port = await worker.serve_health(0)
            await app.publish("x", key="in", url=broker_url)
            await eventually(lambda: answers, "the handler to end")
    assert "in block\n" in caplog.text
    assert answers[0].status_code == 200
    assert answers[0].json()["stages"]["block"]["consuming"] is True


async def test_health_refuses_other_requests(embedded_url: str, no_leaks: None) -> None:
    app = rabbitry.App("healthy")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async with app.worker(embedded_url, connect_attempts=1) as worker, httpx.AsyncClient(timeout=90) as client:
        url = f"http://127.0.0.1:{await worker.serve_health(0)}"
        assert (await client.get(f"{url}/other")).status_code == 404
        assert (await client.post(f"{url}/health")).status_code == 405
        assert (await client.get(f"{url}/health")).json()["status"] == "healthy"


async def test_two_stages_on_one_key_both_get_messages_sent_while_one_was_away(broker_url: str) -> None:
    app = rabbitry.App("twice")
    seen: dict[str, list[str]] = {"first": [], "second": []}

    @app.stage("news")
    async def first(text: str) -> None:
        seen["first"].append(text)

    @app.stage("news")
    async def second(text: str) -> None:
        seen["second"].append(text)

    async with app.worker(broker_url, stages=["first"], connect_attempts=1):
        await app.publish("x", key="news", url=broker_url)
        await eventually(lambda: seen["first"] == ["x"], "the one that is there")
    assert seen["second"] == []
    async with app.worker(broker_url, stages=["second"], connect_attempts=1):
        await eventually(lambda: seen["second"] == ["x"], "the one that was away")
    assert seen["first"] == ["x"]


async def test_quorum_queues_and_topic_exchanges_serve_too(broker_url: str) -> None:
    app = rabbitry.App("quorum", exchange_type="topic", queue_type="quorum")
    seen: list[str] = []

    @app.stage("a.*", then="b.x")
    async def first(text: str) -> str:
        return text

    @app.stage("b.#")
    async def second(text: str) -> None:
        seen.append(text)

    async with app.worker(broker_url, connect_attempts=1):
        await app.publish("x", key="a.1", url=broker_url)
        await eventually(lambda: seen == ["x"], "the message")


async def test_an_error_in_settlement_ends_the_worker(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("broken")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("rabbitry.flow.worker._settlement.Settler.finish", fail)
    monkeypatch.setattr("rabbitry.flow.worker._worker._SETTLING", 0.1)

    async def block() -> None:
        async with app.worker(embedded_url, connect_attempts=1) as worker:
            try:
                await app.publish("x", key="in", url=embedded_url)
                await asyncio.Event().wait()
            finally:
                assert await worker.stop(0.1) is False

    with pytest.raises(ZeroDivisionError):
        await block()
    assert "a mistake of ours" in caplog.text
    assert await counts(embedded_url, ["broken.handle"]) == {"broken.handle": 1}


async def test_a_worker_without_a_broker_gives_up_after_its_attempts(no_leaks: None) -> None:
    from tests.support.ports import free_port

    app = rabbitry.App("lonely")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    with pytest.raises(rabbitry.ConnectFailed):
        async with app.worker(f"amqp://127.0.0.1:{free_port()}/", connect_attempts=1):
            pass


async def test_leaving_a_publisher_waits_for_confirms(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("hasty")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async with app.publisher(broker_url) as publisher:
        futures = [await publisher.send(str(number), key="in") for number in range(500)]
    assert all(future.done() and future.exception() is None for future in futures)
    assert await counts(broker_url, ["hasty.handle"]) == {"hasty.handle": 500}


async def test_a_publish_ends_with_its_worker(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = rabbitry.App("closing")
    begun = threading.Event()

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async def publish(message: object) -> None:
        begun.set()
        await asyncio.Event().wait()  # the broker never confirms it

    async with app.worker(embedded_url, connect_attempts=1) as worker:
        monkeypatch.setattr(worker._engine, "publish", publish)
        publishing = asyncio.create_task(worker.publish("x", key="in"))
        await eventually(begun.is_set, "it is on its way")
    with pytest.raises(rabbitry.ConnectionClosed, match="stopped meanwhile"):
        await publishing
    with pytest.raises(rabbitry.ConnectionClosed, match="closed by this program"):
        await worker.publish("x", key="in")
    with pytest.raises(rabbitry.ConnectionClosed, match="closed by this program"):
        await asyncio.to_thread(worker.publish_blocking, "x", key="in")


def test_scripts_publish_without_a_loop(embedded_url: str) -> None:
    app = rabbitry.App("scripted")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    with app.publisher_blocking(embedded_url) as publisher:
        identities = {publisher.publish(str(n), key="in") for n in range(10)}
        with pytest.raises(rabbitry.UsageError, match="'out' leads nowhere"):
            publisher.publish("x", key="out")
        with pytest.raises(rabbitry.UsageError, match="can't be published"):
            publisher.publish(object(), key="in")
    assert len(identities) == 10
    assert app.publish_blocking("x", key="in", url=embedded_url)
    assert asyncio.run(counts(embedded_url, ["scripted.handle"])) == {"scripted.handle": 11}


async def test_a_stage_and_an_output_may_have_their_own_exchange(broker_url: str) -> None:
    """A fanout exchange brings every message to every stage; what is kept apart from it goes over another one."""
    seen: list[str] = []
    app = rabbitry.App("apart", exchange_type="fanout", plain=True)

    @app.stage("in", then=lambda text: "note" if text.startswith("note") else "out")
    async def work(text: str) -> list[str]:
        return [f"note {text}"] if not text.startswith("out") else []

    @app.stage("note", exchange="apart.notes")
    async def note(text: str) -> None:
        seen.append(text)

    async with app.worker(broker_url, connect_attempts=3), app.publisher(broker_url) as publisher:
        await publisher.publish("hello", key="in")
        await publisher.publish("straight", key="note")
        await eventually(lambda: len(seen) == 2, "both notes")
        assert sorted(seen) == ["note hello", "straight"]
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("apart.notes", "direct", durable=True)  # or this raised 406
        await channel.declare_exchange("apart", "fanout")
        await channel.declare_queue("apart.note", durable=True)
        assert (await channel.declare_queue("apart.work")).message_count == 0


async def test_messages_received_during_a_cancelled_start_are_finished(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("beginning")
    loop = asyncio.get_running_loop()
    began, finish = threading.Event(), threading.Event()

    @app.stage("first", then="done")
    def first(item: Item) -> Item:
        loop.call_soon_threadsafe(entering.cancel)  # on the embedded broker all of it is mostly done by now
        began.set()
        finish.wait(100)
        return item

    async def later(item: Item) -> None:
        pass

    for number in range(30):
        app.stage(f"later{number}", name=f"later{number}")(later)
    app.output("done", queue="beginning.done")
    await app.publish(Item(1), key="first", url=broker_url)
    worker = app.worker(broker_url, connect_attempts=1)
    entering = asyncio.ensure_future(worker.__aenter__())
    await eventually(began.is_set, "the first handler")
    await asyncio.sleep(0.1)  # what was cancelled has its turns
    finish.set()
    await asyncio.wait([entering])
    if not entering.cancelled():
        await worker.stop()
    await eventually_holds(broker_url, "beginning.done", 1)
