"""Jobs that are cancelled by their id: before they are handled, meanwhile, and while no worker runs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.flow.publisher import Publisher
from rabbitry.flow.wiring import cancelling
from rabbitry.flow.worker._cancelling import Cancelled
from rabbitry.flow.worker._executors.batching import Batcher
from rabbitry.testing import harness
from tests.flow import _apps
from tests.flow._running import bodies, counts, dead_of, eventually_holds
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually, eventually_awaited


class Slow:
    """An app whose handlers wait until they are cancelled, or told to go on."""

    def __init__(self, name: str) -> None:
        self.app = rabbitry.App(name, cancellable=True)
        self.begun: list[str] = []
        self.cleaned: list[str] = []
        self.saw: list[bool] = []

        @self.app.stage("async", then="out", replies=True, attempts=3, delays=[0], concurrency=2)
        async def in_loop(text: str) -> str:
            self.begun.append(text)
            if text.startswith("wait"):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)  # cleaning up may wait
                    self.cleaned.append(text)
                    if text == "wait, then fail":
                        raise ValueError(text)
            return text

        @self.app.stage("thread", then="out", concurrency=1)
        def in_thread(text: str, context: rabbitry.Context) -> str:
            self.begun.append(text)
            while text == "wait" and not context.cancelled:
                time.sleep(0.005)
            self.saw.append(context.cancelled)
            return text

        @self.app.stage("stream", then="out")
        async def values(text: str) -> AsyncIterator[str]:
            self.begun.append(text)
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                self.cleaned.append(text)

        self.app.output("out", queue=f"{name}.out")

    async def cancel_begun(self, publisher: Publisher, text: str, key: str) -> None:
        """Publish a message, and cancel it when its handler has begun."""
        job = await publisher.publish(text, key=key)
        await eventually(lambda: text in self.begun, f"{text} is handled")
        await publisher.cancel(job)


async def test_what_waits_is_dropped_by_a_worker_that_starts_later(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow("waiting")
    with caplog.at_level(logging.INFO, "rabbitry.flow.worker"):
        async with slow.app.publisher(broker_url) as publisher:
            jobs = [await publisher.publish(str(number), key="async") for number in range(3)]
            async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
                async with channel.consume("waiting.in_loop") as deliveries:
                    for _ in jobs:
                        await anext(deliveries)  # given back: each comes redelivered, as if its worker had died
            call = asyncio.create_task(publisher.call("called", key="async", timeout=100, id="of the call"))
            await eventually_holds(broker_url, "waiting.in_loop", 4)
            for job in (jobs[0], jobs[2], "of the call", "of no message"):
                await publisher.cancel(job)
            async with slow.app.worker(broker_url, connect_attempts=1), slow.app.worker(broker_url) as worker:
                with pytest.raises(rabbitry.CallCancelled, match="the job was cancelled") as error:
                    await call
                assert error.value.reason == "cancelled"
                await eventually_holds(broker_url, "waiting.out", 1)
                queues = ["waiting.in_loop", "waiting.suspects.in_loop"]
                await eventually_awaited(lambda: _are_empty(broker_url, queues), "all is settled")
                cancelled = sum(each._engine.counting.stages["in_loop"].cancelled for each in slow.app.workers)
                assert (cancelled, worker.is_healthy) == (3, True)
    assert slow.begun == ["1"]
    assert await bodies(broker_url, "waiting.out") == [b"1"]
    assert await dead_of(broker_url, slow.app) == []
    assert f"dropped a message of job {jobs[0]!r}, which was cancelled" in caplog.text
    assert await counts(broker_url, ["waiting.cancelled"]) == {"waiting.cancelled": 4}, "kept for the next worker"


async def _are_empty(url: str, queues: list[str]) -> bool:
    return not any((await counts(url, queues)).values())


async def test_what_runs_is_cancelled(broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow("running")
    async with slow.app.worker(broker_url, connect_attempts=1), slow.app.publisher(broker_url) as publisher:
        call = asyncio.create_task(publisher.call("wait", key="async", timeout=100, id="called"))
        await eventually(lambda: "wait" in slow.begun, "the call is handled")
        await publisher.cancel("called")
        with pytest.raises(rabbitry.CallCancelled):
            await call
        await slow.cancel_begun(publisher, "wait, then fail", "async")
        await slow.cancel_begun(publisher, "generator", "stream")
        await eventually(lambda: len(slow.cleaned) == 3, "three have cleaned up")
        slow.begun.clear()
        await slow.cancel_begun(publisher, "wait", "thread")
        await eventually(lambda: slow.saw == [True], "the thread's handler sees it")
        for key in ("async", "thread"):  # the tasks and threads go on with others
            await publisher.publish(key, key=key)
        await eventually_holds(broker_url, "running.out", 3)
        queues = [stage.queue for stage in slow.app.stages.values()]
        await eventually_awaited(lambda: _are_empty(broker_url, queues), "all is settled")
    assert sorted(await bodies(broker_url, "running.out")) == [b"async", b"first", b"thread"]
    assert await dead_of(broker_url, slow.app) == []
    assert "failed" not in caplog.text, "an error after cancelling is none of the handler's"


async def test_a_process_is_killed_and_the_next_message_gets_another(embedded_url: str, tmp_path: Path) -> None:
    app, begun = _apps.cancelled, tmp_path / "begun"
    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        job = await publisher.publish(str(begun), key="work")
        await eventually(begun.exists, "the process is at it")
        waiting = await publisher.publish("waits for the process", key="work")
        await publisher.publish("last", key="work")
        await publisher.cancel(waiting)
        await publisher.cancel(job)
        await eventually_holds(embedded_url, "cancelled-process.end", 1)
        await eventually_awaited(lambda: _are_empty(embedded_url, ["cancelled-process.sleep_or_return"]), "settled")
    assert await bodies(embedded_url, "cancelled-process.end") == [b"last"]
    assert await dead_of(embedded_url, app) == []


async def test_what_was_cancelled_while_a_worker_was_cut_off_is_dropped(embedded_url: str) -> None:
    slow, url = Slow("cut"), parse_url(embedded_url)
    async with FaultProxy(url.hosts[0][1]) as proxy, slow.app.publisher(embedded_url) as publisher:
        through = embedded_url.replace(f":{url.hosts[0][1]}/", f":{proxy.port}/")
        async with slow.app.worker(through, connect_attempts=1) as worker:
            job = await publisher.publish("wait", key="async")
            await eventually(lambda: slow.begun, "it is handled")
            proxy.refuse()
            await proxy.reset()
            await publisher.cancel(job)
            proxy.accept()
            queues = ["cut.in_loop", "cut.suspects.in_loop"]
            await eventually(lambda: worker._engine.cancelled, "the worker has read it")
            await publisher.publish("after", key="async")
            await eventually_holds(embedded_url, "cut.out", 1)
            await eventually_awaited(lambda: _are_empty(embedded_url, queues), "nothing comes again")
    assert await bodies(embedded_url, "cut.out") == [b"after"]
    assert await dead_of(embedded_url, slow.app) == []


async def test_parts_and_retries_of_a_cancelled_job_are_dropped() -> None:
    app = rabbitry.App("parts", cancellable=True)
    rendered: list[int] = []
    gate = asyncio.Event()

    @app.stage("job", then="part")
    async def split(number: int) -> list[int]:
        return list(range(number))

    @app.stage("part", then="rendered", delays=[0], batch=2)
    async def render(numbers: list[int]) -> None:
        await gate.wait()
        rendered.extend(numbers)
        raise rabbitry.Retry

    @app.join("rendered", of="split", then="done")
    async def join(parts: list[int]) -> int:
        return len(parts)

    app.output("done")
    async with harness(app) as h:
        job = await h.publish(5, key="job")
        for _ in range(5):
            await h.published("part")
        await h.cancel(job)
        await eventually(lambda: h._worker._engine.cancelled, "the worker has read it")
        # What was handed over by then is dropped in a later turn of this loop.
        rendering = h._worker._executors["render"]
        assert isinstance(rendering, Batcher)
        await eventually(lambda: all(part.is_dropped for part in rendering._waiting), "what waits is dropped")
        gate.set()
        await h.idle()
        assert h.all_published("done") == []
        assert await h.all_dead() == []
    assert len(rendered) <= 4, "the first batch may have begun, and is tried again in halves"


async def test_what_can_not_be_cancelled(embedded_url: str) -> None:
    app = rabbitry.App("plainly")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    async with app.publisher(embedded_url) as publisher:
        with pytest.raises(rabbitry.UsageError, match=r"make it with App\('plainly', cancellable=True\)"):
            await publisher.cancel("x")
    slow = Slow("ids")
    with slow.app.publisher_blocking(embedded_url) as blocking:
        blocking.cancel("x")
        for wrong in ("", "x" * 256):
            with pytest.raises(rabbitry.UsageError):
                blocking.cancel(wrong)
    assert await counts(embedded_url, ["ids.cancelled", "plainly.cancelled"]) == {
        "ids.cancelled": 1,
        "plainly.cancelled": -1,
    }


def test_the_list_of_cancelled_jobs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = Cancelled()
    assert not cancelled.until
    for number in range(cancelling.MOST + 2):
        cancelled.add(b"%d" % number)
    assert b"1" not in cancelled
    assert b"2" in cancelled
    cancelled.add(b"old", cancelling.KEPT)
    assert b"old" not in cancelled
