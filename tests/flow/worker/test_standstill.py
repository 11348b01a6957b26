"""Consumers that stand still, and limits that the broker would not bear."""

import asyncio
import logging

import pytest

import rabbitry
from rabbitry.flow.wiring import topology
from rabbitry.flow.worker._intake import Intake
from rabbitry.flow.worker._job import Job
from rabbitry.flow.worker._standstill import watch_queues
from tests.flow._running import put
from tests.support.waiting import eventually


async def test_a_consumer_that_gets_nothing_from_a_full_queue_is_restarted(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("silent")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async def redeclare() -> None: ...

    jobs: list[Job] = []
    async with app.publisher(broker_url), rabbitry.connect(broker_url) as connection:
        # One delivery, never settled, uses up its prefetch: to the worker it has nothing in hand, and none comes.
        intake = Intake(app.stages["handle"], "silent.handle", connection, 1, jobs.append, redeclare)
        tasks = [
            asyncio.create_task(intake.run()),
            asyncio.create_task(watch_queues([intake], connection, lambda stage: 0, every=0.05)),
        ]
        try:
            for body in (b"1", b"2"):
                await put(broker_url, "silent.handle", body)
            await eventually(lambda: len(jobs) > 1, "the consumer to be started anew")
            assert intake.generation > 0
            assert jobs[0].is_stale
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    assert "queue 'silent.handle' has messages and none comes; consuming anew" in caplog.text


async def test_a_consumer_whose_queue_is_empty_or_that_works_is_left_alone(
    embedded_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("steady")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async def redeclare() -> None: ...

    jobs: list[Job] = []
    in_hand = 0
    async with app.publisher(embedded_url), rabbitry.connect(embedded_url) as connection:
        intake = Intake(app.stages["handle"], "steady.handle", connection, 1, jobs.append, redeclare)
        looks = 0

        def look(stage: object) -> int:
            nonlocal looks
            looks += 1
            return in_hand

        tasks = [
            asyncio.create_task(intake.run()),
            asyncio.create_task(watch_queues([intake], connection, look, every=0.02)),
        ]
        try:
            await eventually(lambda: looks > 5, "looks at an empty queue")
            in_hand = 1
            for body in (b"1", b"2"):
                await put(embedded_url, "steady.handle", body)
            await eventually(lambda: jobs, "the delivery")
            seen = looks
            await eventually(lambda: looks > seen + 5, "looks at one that works")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    assert (len(jobs), intake.generation) == (1, 1), "the generation counts its end alone"
    assert "consuming anew" not in caplog.text


async def test_a_limit_beyond_the_delivery_timeout_is_reported_at_the_start(
    embedded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("slow")

    @app.stage("in", time_limit=3600)
    async def handle(text: str) -> None: ...

    with caplog.at_level(logging.WARNING, "rabbitry.flow"):
        async with app.worker(embedded_url, connect_attempts=1):
            pass
    assert "stage 'handle': its time limit of 3600 s is beyond the broker's delivery timeout (1800 s" in caplog.text


@pytest.mark.parametrize(("limit", "prefetch"), [(600.0, 14), (899.0, 14), (900.0, 7), (3600.0, 7)])
def test_nothing_waits_in_a_worker_that_might_wait_beyond_the_delivery_timeout(limit: float, prefetch: int) -> None:
    app = rabbitry.App("ahead")

    @app.stage("in", time_limit=limit, concurrency=7)
    async def handle(text: str) -> None: ...

    assert app.worker()._prefetch(app.stages["handle"]) == prefetch


@pytest.mark.parametrize(
    ("version", "plain", "text"),
    [((3, 9, 29), False, "3.10"), ((3, 10, 8), False, ""), ((4, 2, 0), True, ""), ((4, 3, 0), True, "not durable"),
     ((4, 3, 0), False, ""), ((), True, "")],
)  # fmt: skip
def test_settings_that_do_not_fit_a_brokers_version_are_reported(
    version: tuple[int, ...], plain: bool, text: str
) -> None:
    app = rabbitry.App("versions", plain=plain)
    told = topology.misfits(app.spec(), version)
    assert (text in told[0]) if text else told == []
