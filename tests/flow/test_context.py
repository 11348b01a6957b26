"""Context: publishing in a message's chain, with headers, priority and delay; and whether a handler should end."""

import asyncio
import threading
import time

import rabbitry
from tests.flow._running import eventually_holds
from tests.support.waiting import eventually

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_what_a_context_publishes_follows_from_the_message(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("acting")
    got: list[tuple[str, rabbitry.Message]] = []

    @app.stage("async")
    async def in_loop(text: str, context: rabbitry.Context) -> None:
        assert not context.cancelled
        await context.publish(text, key="next", headers={"x-of": context.message.id}, priority=3)

    @app.stage("thread")
    def in_thread(text: str, context: rabbitry.Context) -> None:
        context.publish_blocking(rabbitry.Outgoing(text, key="next", priority=7), key="ignored", priority=3)

    @app.stage("next")
    async def collect(text: str, message: rabbitry.Message) -> None:
        got.append((text, message))

    app.output("aside", queue="acting.aside")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        first = await publisher.publish("one", key="async", headers={"traceparent": TRACE})
        second = await publisher.publish("two", key="thread")
        await eventually(lambda: len(got) == 2, "both values")
    found = dict(got)
    assert {text: message.correlation_id for text, message in found.items()} == {"one": first, "two": second}
    assert found["one"].headers["x-of"] == first
    assert found["one"].headers["traceparent"] == TRACE
    assert found["one"].id != first


async def test_a_priority_and_a_delay_reach_the_broker(broker_url: str) -> None:
    app = rabbitry.App("delaying")
    began = 0.0
    got: list[tuple[float, rabbitry.Message]] = []

    @app.stage("in")
    async def handle(text: str, context: rabbitry.Context) -> None:
        nonlocal began
        await context.publish(text, key="out", priority=4)
        began = time.monotonic()
        await context.publish(text, key="later", after=0.5)
        await context.publish(text, key="later", after=0)

    @app.stage("later")
    async def take(text: str, message: rabbitry.Message) -> None:
        got.append((time.monotonic(), message))

    app.output("out", queue="delaying.out")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        identity = await publisher.publish("x", key="in")
        await eventually(lambda: len(got) == 2, "both values")
    at_once, delayed = got
    assert delayed[0] - began >= 0.95, "a delay rounds up to a whole second"
    for _, message in (at_once, delayed):
        assert (message.exchange, message.routing_key, message.attempt) == ("delaying", "later", 1)
        assert message.correlation_id == identity
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        delivery = await channel.get("delaying.out")
        assert delivery is not None
        assert delivery.properties.priority == 4
        delivery.ack()


async def test_a_delay_to_nowhere_and_a_key_to_nowhere_are_errors(embedded_url: str) -> None:
    app = rabbitry.App("nowhere")
    errors: list[str] = []

    @app.stage("in")
    async def handle(text: str, context: rabbitry.Context) -> None:
        for key, delay in (("out", 5.0), ("absent", None), ("in", -1.0)):
            try:
                await context.publish(text, key=key, after=delay)
            except rabbitry.UsageError as error:
                errors.append(str(error))

    app.output("out", required=False)
    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        await publisher.publish("x", key="in")
        await eventually(lambda: len(errors) == 3, "three errors")
    assert "key 'out' leads to no queue that app 'nowhere' knows" in errors[0]
    assert "key 'absent' leads nowhere" in errors[1]
    assert "after=-1.0" in errors[2]


async def test_a_thread_sees_that_its_time_is_up(embedded_url: str) -> None:
    app = rabbitry.App("overdue")
    seen = threading.Event()

    @app.stage("in", time_limit=0.2, attempts=1, concurrency=1)
    def handle(text: str, context: rabbitry.Context) -> None:
        while not context.cancelled:
            time.sleep(0.01)
        seen.set()

    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        await publisher.publish("x", key="in")
        assert await asyncio.to_thread(seen.wait, 30)
        await eventually_holds(embedded_url, "overdue.dead", 1)
