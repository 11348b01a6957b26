"""Where a publish without a URL goes: to the broker of the worker or harness, never to another one by default."""

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

import pytest

import rabbitry
from rabbitry.testing import RunningBroker, harness
from tests.flow import _publishing
from tests.flow._running import counts, eventually_holds
from tests.support.logs import messages
from tests.support.waiting import eventually

# Python keeps one such pipe for the life of a process that has had children; no leak of a test's.
resource_tracker.ensure_running()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningBroker]:
    """A broker that RABBITRY_BROKER names, and that must stay empty."""
    with RunningBroker() as broker:
        monkeypatch.setenv("RABBITRY_BROKER", broker.url)
        yield broker
        assert list(broker._broker.vhosts["/"].queues) == []


# The stages of `_publishing`, each of which publishes in a way of its own. One worker has all of them.
_WAYS = ("async", "thread", "own-thread", "process", "publisher", "blocking-publisher")


async def test_a_handler_of_a_worker_publishes_where_the_worker_is(
    no_leaks: None, broker_url: str, elsewhere: RunningBroker
) -> None:
    app = _publishing.app
    async with app.worker(broker_url, connect_attempts=1):
        for number, key in enumerate([*_WAYS, "connect", "connect-blocking"], 1):
            await app.publish(key, key=key)
            await eventually_holds(broker_url, "ends", number)
        await app.publish("x", key="other")
        await eventually_holds(broker_url, "other.take", 1)


async def test_a_handler_under_the_harness_publishes_to_the_harness(no_leaks: None, elsewhere: RunningBroker) -> None:
    async with harness(_publishing.app) as h:
        for key in _WAYS:
            await h.publish(f"by {key}", key=key)
            assert await h.published("end", timeout=60) == f"by {key}"


async def test_the_block_of_a_harness_is_in_it_also_in_its_threads(elsewhere: RunningBroker) -> None:
    def in_a_thread_of_its_own() -> None:
        with rabbitry.connect_blocking() as connection, connection.channel() as channel:
            channel.publish(b"2", exchange="publishing", routing_key="end")

    async with harness(_publishing.app) as h:
        await _publishing.app.publish("1", key="end")
        with ThreadPoolExecutor(1) as threads:
            await asyncio.wrap_future(threads.submit(in_a_thread_of_its_own))
        async with rabbitry.connect() as connection, await connection.channel() as channel:
            await channel.publish(b"3", exchange="publishing", routing_key="end")
        assert [await h.published("end", timeout=60) for _ in range(3)] == ["1", b"2", b"3"]
    async with rabbitry.connect() as connection:
        assert connection.url.hosts == ((elsewhere.host, elsewhere.port),)


async def test_two_workers_of_an_app_each_publish_where_they_are(elsewhere: RunningBroker) -> None:
    app = _publishing.app
    with RunningBroker() as one, RunningBroker() as other:
        async with app.worker(one.url), app.worker(other.url):
            await app.publish("x", key="async", url=one.url)
            await eventually_holds(one.url, "ends", 1)
            assert await counts(other.url, ["ends"]) == {"ends": 0}


async def test_a_handlers_publish_closes_no_channel_of_the_worker(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("gone")
    errors = []

    @app.stage("in", then="out")
    async def handle(text: str) -> str:
        try:
            await app.publish(text, key="side")
        except rabbitry.RabbitryError as error:
            errors.append(error)
        return text

    app.output("out", queue="gone.outs")
    app.output("side", exchange="side-exchange")
    async with app.worker(broker_url, connect_attempts=1):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_exchange("side-exchange")
            # Not `app.publish`: its confirm could be on its way over the channel that the handler's publish closes.
            await channel.publish(b"x", exchange="gone", routing_key="in")
        await eventually_holds(broker_url, "gone.outs", 1)
        await eventually(lambda: len(errors) == 1, "the refused publish")
    assert not [text for text in messages(caplog) if "again" in text]


async def test_a_publish_that_closes_the_channel_fails_no_other_handlers_publish(broker_url: str) -> None:
    app = rabbitry.App("beside")
    failed: list[str] = []

    @app.stage("in", then="out")
    async def handle(text: str) -> str:
        try:
            await app.publish(text, key="side" if text == "bad" else "good")
        except rabbitry.RabbitryError:
            failed.append(text)
        return text

    app.output("out", queue="beside.outs")
    app.output("good", queue="beside.goods")
    app.output("side", exchange="beside-exchange")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_exchange("beside-exchange")
        for number in range(40):
            await publisher.send("bad" if number == 20 else f"{number}", key="in")
        await eventually_holds(broker_url, "beside.outs", 40)
        assert failed == ["bad"]  # the exchange is declared again, and no queue is bound to it
        assert (await counts(broker_url, ["beside.goods"]))["beside.goods"] >= 39


async def test_a_publish_in_a_test_that_names_no_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITRY_BROKER", raising=False)
    app = _publishing.app
    before = set(threading.enumerate())
    with pytest.raises(rabbitry.UsageError, match=r"no broker is named.*rabbitry\.testing\.harness"):
        await app.publish("x", key="async")
    with pytest.raises(rabbitry.UsageError, match="no broker is named"):
        app.publish_blocking("x", key="async")
    with pytest.raises(rabbitry.UsageError, match="no broker is named"):
        rabbitry.connect_blocking()
    with pytest.raises(rabbitry.UsageError, match="no broker is named"):
        async with app.worker(connect_attempts=1):
            pass
    assert [thread for thread in set(threading.enumerate()) - before if "I/O" in thread.name] == []
    assert os.environ["RABBITRY_OUTSIDE_BROKER"] == ""
