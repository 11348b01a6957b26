"""Retries that are not counted, delays with jitter, and queues with arguments and priorities."""

import asyncio

import pytest

import rabbitry
from rabbitry.flow.wiring import topology
from tests.flow._running import dead_of, eventually_dead, eventually_holds
from tests.support.waiting import eventually


async def test_a_throttled_message_does_not_use_up_its_attempts(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("throttled")
    attempts: list[int] = []

    @app.stage("in", attempts=2, delays=[0], uncounted=4)
    async def handle(text: str, message: rabbitry.Message) -> None:
        attempts.append(message.attempt)
        if text == "for ever" or len(attempts) <= 4:
            raise rabbitry.Retry("too many requests", after=0, count=False)

    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish("x", key="in")
        await eventually(lambda: len(attempts) == 5, "five calls")
        assert attempts == [1] * 5
        attempts.clear()
        await publisher.publish("for ever", key="in")
        await eventually_dead(broker_url, app, 1)
    assert attempts == [1] * 5 + [2], "past the bound, retries are counted"
    (letter,) = await dead_of(broker_url, app)
    assert (letter.attempts, letter.error) == (2, "too many requests")


async def test_a_batch_retries_single_messages_uncounted(embedded_url: str) -> None:
    app = rabbitry.App("throttled-batch")
    attempts: list[int] = []

    @app.stage("in", attempts=1, batch=5)
    async def handle(texts: list[str], messages: list[rabbitry.Message], batch: rabbitry.Batch) -> None:
        attempts.extend(message.attempt for message in messages)
        if len(attempts) < 3:
            batch.fail(0, rabbitry.Retry(after=0, count=False))

    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        await publisher.publish("x", key="in")
        await eventually(lambda: attempts == [1, 1, 1], "three calls")
    assert await dead_of(embedded_url, app) == []


async def test_jitter_lengthens_a_delay(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = rabbitry.App("jittered")
    waits: list[object] = []
    monkeypatch.setattr("random.randint", lambda low, high: high)

    @app.stage("in", attempts=2, delays=[1], jitter=1.0)
    async def handle(text: str, message: rabbitry.Message) -> None:
        waits.append(asyncio.get_running_loop().time())
        if message.attempt == 1:
            raise rabbitry.Retry

    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish("x", key="in")
        await eventually(lambda: len(waits) == 2, "another attempt")
    first, second = waits
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert second - first >= 1.9, "a second, and another one of jitter"


async def test_priorities_go_first(broker_url: str) -> None:
    app = rabbitry.App("ranked")
    got: list[str] = []

    @app.stage("in", priorities=5, queue_arguments={"x-max-length": 1000}, concurrency=1)
    async def handle(text: str) -> None:
        got.append(text)

    (queue,) = [queue for queue in topology.derive(app.spec()).queues if queue.name == "ranked.handle"]
    assert queue.arguments == {"x-max-priority": 5, "x-max-length": 1000}
    async with app.publisher(broker_url) as publisher:
        await publisher.publish("low", key="in")
        for text in ("high", "higher"):
            await publisher.publish(rabbitry.Outgoing(text, priority=5), key="in")
    await eventually_holds(broker_url, "ranked.handle", 3)
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(got) == 3, "all")
    assert got == ["high", "higher", "low"]


def test_queue_arguments_need_a_queue_that_has_some() -> None:
    async def handle(text: str) -> None: ...

    for app, options, text in (
        (rabbitry.App("a", plain=True), {"priorities": 5}, "a plain app declares queues without any"),
        (rabbitry.App("b", queue_type="quorum"), {"priorities": 5}, "needs a classic queue"),
        (rabbitry.App("c"), {"queue_arguments": {"x-queue-type": "quorum"}}, "queue_arguments=.*none of x-queue-type"),
        (
            rabbitry.App("c2"),
            {"queue_arguments": {"x-max-priority": 3}, "priorities": 5},
            "are the same: leave out one",
        ),
        (rabbitry.App("d"), {"priorities": 256}, "priorities=256: must be 1 to 255"),
        (rabbitry.App("e"), {"jitter": 2}, "jitter=2: must be 0 to 1"),
        (rabbitry.App("f"), {"uncounted": -1}, "uncounted=-1: must be a whole number"),
    ):
        with pytest.raises(rabbitry.AppError, match=text):
            app.stage("in", **options)(handle)
    with pytest.raises(rabbitry.AppError, match="app 'g', output 'out': queue_arguments=… needs a queue=…"):
        rabbitry.App("g").output("out", queue_arguments={"x-max-length": 5})
    app = rabbitry.App("h")
    app.output("out", queue="out", queue_arguments={"x-max-length": 5})
    assert app.spec().outputs["out"].queue_arguments == {"x-max-length": 5}
