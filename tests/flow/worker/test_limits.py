"""Limits over a broker that dies, and over a rolling deploy that changes them; on both brokers."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

import rabbitry
from tests.flow._running import counts, eventually_holds
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually, eventually_awaited


class Calls:
    """The calls of a handler: when each began, and how many ran at once."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.done: set[int] = set()
        self.most = 0
        self._running = 0

    async def call(self, number: int) -> None:
        """Count a call."""
        self.begun.append(time.time())
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await asyncio.sleep(0)
            self.done.add(number)
        finally:
            self._running -= 1


def _app(calls: Calls, rate: str, total: int) -> rabbitry.App:
    app = rabbitry.App("limits")

    @app.stage("run", rate=rate, total_concurrency=total)
    async def run(number: int) -> None:
        await calls.call(number)

    return app


@pytest.mark.timeout(300)
async def test_a_killed_broker_lets_no_more_begin(own_broker: RabbitMQ | BrokerProcess) -> None:
    calls, slow, loop = Calls(), Calls(), asyncio.get_running_loop()
    app = _app(calls, "50/s", 2)

    @app.stage("slow", rate="1/h")
    async def wait(number: int) -> None:
        await slow.call(number)

    async with app.publisher(own_broker.url) as publisher:
        for number in range(60):
            await publisher.publish(number, key="run")
        for number in range(2):
            await publisher.publish(number, key="slow")
    since = time.time()
    async with (
        app.worker(own_broker.url, connect_attempts=1) as one,
        app.worker(own_broker.url, connect_attempts=1) as two,
    ):
        await eventually(lambda: len(calls.done) >= 20 and slow.begun, "some calls")
        await loop.run_in_executor(None, own_broker.kill)
        await loop.run_in_executor(None, own_broker.start)
        await eventually(lambda: one.is_healthy and two.is_healthy, "the workers to come back")
        await eventually(lambda: len(calls.done) == 60, "all calls")
        await eventually_holds(own_broker.url, "limits.rate.wait", 0)
    for number, moment in enumerate(calls.begun):
        # One token for the first message before the kill, and one after it.
        assert number <= 2 + 50 * (moment - since), f"call {number} began too early"
    assert calls.most <= 2
    assert len(slow.begun) == 1, "the next one is due in an hour"


@pytest.mark.timeout(200)
async def test_a_lower_limit_holds_once_the_old_workers_are_gone(broker_url: str) -> None:
    calls = Calls()
    old, new = _app(calls, "100/s", 3), _app(calls, "5/s", 1)
    async with AsyncExitStack() as stack:
        older = await stack.enter_async_context(old.worker(broker_url))
        async with new.worker(broker_url) as newer:
            await asyncio.gather(*(older.publish(number, key="run") for number in range(60)))
            await eventually(lambda: len(calls.done) == 60, "all calls")
            assert calls.most <= 3
            await stack.aclose()

            async def are_few() -> bool:
                return (await counts(broker_url, ["limits.tokens.run"]))["limits.tokens.run"] <= 5

            await eventually_awaited(are_few, "the old tokens to be dropped but for those of a second")
            calls.begun.clear()
            calls.most, since = 0, time.time()
            await asyncio.gather(*(newer.publish(number, key="run") for number in range(100, 115)))
            await eventually(lambda: set(range(100, 115)) <= calls.done, "the calls at the lower rate")
    for number, moment in enumerate(calls.begun):
        assert number <= 6 + 5 * (moment - since), f"call {number} began too early"
    assert calls.most == 1


@pytest.mark.timeout(200)
async def test_a_higher_limit_holds_at_once(broker_url: str) -> None:
    before, after = Calls(), Calls()
    old, new = _app(before, "1/d", 1), _app(after, "100/s", 4)
    async with old.worker(broker_url) as older:
        for number in range(2):
            await older.publish(number, key="run")
        await eventually(lambda: len(before.done) == 1, "the call of today")
    async with new.worker(broker_url) as newer:
        await asyncio.gather(*(newer.publish(number, key="run") for number in range(2, 30)))
        await eventually(lambda: before.done | after.done == set(range(30)), "all calls at the higher rate")
    assert after.most <= 4
