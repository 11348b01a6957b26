"""The guarantees of docs/architecture.md, each with a network between worker and broker that breaks."""

import asyncio
import logging
import signal
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Properties, parse_url
from tests.flow._running import counts, dead_of, eventually_all_dead, eventually_dead, eventually_holds
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.patience import IMPATIENT
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually


def _through(url: str, proxy: FaultProxy) -> str:
    return url.replace(f":{parse_url(url).hosts[0][1]}/", f":{proxy.port}/")


def _proxy(url: str) -> FaultProxy:
    return FaultProxy(parse_url(url).hosts[0][1])


async def settled(url: str, *queues: str) -> None:
    """Wait until nothing waits in these queues."""
    for queue in queues:
        await eventually_holds(url, queue, 0)


async def test_an_input_is_not_acked_before_its_result_is_confirmed(broker_url: str) -> None:
    app = rabbitry.App("first")
    began, release = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []

    @app.stage("in", then="out")
    async def handle(text: str, message: rabbitry.Message) -> str:
        attempts.append(message.attempt)
        began.set()
        await release.wait()
        return text

    app.output("out", queue="first.out")
    async with _proxy(broker_url) as proxy, app.worker(_through(broker_url, proxy), connect_attempts=1):
        await app.publish("x", key="in", url=broker_url)
        await began.wait()
        proxy.pause(Way.TO_CLIENT)
        release.set()
        await eventually_holds(broker_url, "first.out", 1)
        # The broker has the result and the worker does not know. Had it acked, the input would be gone now.
        await proxy.reset()
        proxy.resume()
        await eventually(lambda: attempts == [1, 2], "the input to come again")
    await settled(broker_url, "first.handle", "first.suspects.handle")
    # Once from each attempt, and the unconfirmed one once more when the connection was back.
    assert (await counts(broker_url, ["first.out"]))["first.out"] in (2, 3)


async def test_an_unroutable_result_is_a_dead_letter_even_if_the_network_breaks(broker_url: str) -> None:
    app = rabbitry.App("second")

    @app.stage("in", then=lambda text: f"nowhere.{text}")
    async def handle(text: str) -> str:
        return text

    names = {str(number) for number in range(60)}
    async with _proxy(broker_url) as proxy, app.publisher(broker_url) as publisher:
        proxy.chunk(11)
        async with app.worker(_through(broker_url, proxy), connect_attempts=1) as worker:
            for number, name in enumerate(names):
                await publisher.publish(name, key="in")
                if number in (20, 40):
                    await proxy.reset()
            await eventually(lambda: worker.is_healthy, "the worker to come back")
            await eventually_all_dead(broker_url, app, {name.encode() for name in names})
    letters = await dead_of(broker_url, app)
    assert {letter.body.decode() for letter in letters} == names
    assert {(letter.reason, letter.routing_key) for letter in letters} == {
        ("unroutable", f"nowhere.{name}") for name in names
    }


async def test_a_broker_that_is_away_for_a_while_is_waited_for(broker_url: str) -> None:
    app = rabbitry.App("third")
    seen: list[str] = []

    @app.stage("in")
    async def handle(text: str) -> None:
        seen.append(text)

    async with _proxy(broker_url) as proxy:
        through = _through(broker_url, proxy)
        async with app.worker(through, connect_attempts=1) as worker, app.publisher(through) as publisher:
            proxy.refuse()
            await proxy.reset()
            await eventually(lambda: not worker.is_healthy, "the loss to be noticed")
            sending = asyncio.create_task(publisher.publish("x", key="in"))
            done, _ = await asyncio.wait((sending,), timeout=0.5)
            assert not done, "nobody could have confirmed it"
            proxy.accept()
            assert await sending
            await eventually(lambda: seen == ["x"], "the message")
            await eventually(lambda: worker.is_healthy, "both connections to be back")


async def test_a_worker_ends_even_if_its_broker_no_longer_answers(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "fourth_of_tests.py").write_text(
        "import rabbitry\n"
        "app = rabbitry.App('fourth')\n"
        "@app.stage('in', then='out')\n"
        "async def handle(text: str) -> str:\n"
        "    print('handled', flush=True)\n"
        "    return text\n"
        "app.output('out', queue='fourth.out')\n"
    )
    fourth = rabbitry.App("fourth")

    @fourth.stage("in", queue="fourth.handle")
    async def handle(text: str) -> None: ...

    loop = asyncio.get_running_loop()
    async with _proxy(broker_url) as proxy:
        more = IMPATIENT | {"RABBITRY_BROKER": _through(broker_url, proxy), "PYTHONPATH": str(tmp_path)}
        with commands.service("worker", "fourth_of_tests:app", "--deadline", "0.5", more=more) as worker:
            await loop.run_in_executor(None, worker.wait_for, "fourth: handle")
            proxy.swallow(Way.TO_SERVER)
            await fourth.publish("x", key="in", url=broker_url)
            await loop.run_in_executor(None, worker.wait_for, "handled")
            worker.process.send_signal(signal.SIGTERM)
            assert await loop.run_in_executor(None, worker.process.wait, 80) == 1, worker.output
            assert "not everything in hand was finished in time" in worker.output
    await eventually_holds(broker_url, "fourth.handle", 1)


async def test_a_worker_that_starts_before_its_broker_reports_it_and_waits(
    caplog: pytest.LogCaptureFixture, no_leaks: None
) -> None:
    app = rabbitry.App("early")
    seen: list[str] = []

    @app.stage("in")
    async def handle(text: str) -> None:
        seen.append(text)

    loop = asyncio.get_running_loop()
    with BrokerProcess() as server:
        await loop.run_in_executor(None, server.stop)
        worker = app.worker(server.url)
        entering = asyncio.create_task(worker.__aenter__())
        with caplog.at_level(logging.WARNING, "rabbitry.flow"):
            await eventually(lambda: "trying again in 2 s" in caplog.text, "the worker to say so")
        await loop.run_in_executor(None, server.start)
        await entering
        try:
            await app.publish("x", key="in", url=server.url)
            await eventually(lambda: seen == ["x"], "the message")
        finally:
            await worker.stop()


async def test_a_message_with_seconds_left_goes_to_another_retry_queue(broker_url: str) -> None:
    app = rabbitry.App("climbing")
    came: list[float] = []

    @app.stage("in", delays=[1.2])
    async def handle(text: str, message: rabbitry.Message) -> None:
        came.append(asyncio.get_running_loop().time())
        assert "x-rabbitry-wait" not in message.headers
        if message.attempt == 1:
            raise ValueError

    async with app.worker(broker_url, connect_attempts=1), rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        sent = asyncio.get_running_loop().time()
        headers = {"x-rabbitry-wait": 0.5}
        await channel.publish(b"x", routing_key="climbing.handle", properties=Properties(headers=headers))
        await eventually(lambda: len(came) == 1, "the message after its wait")
        assert came[0] - sent >= 0.95, "what is left rounds up to the shortest retry queue, one second"
        await eventually(lambda: len(came) == 2, "the second attempt")
        assert came[1] - came[0] >= 4.95, "1.2 seconds round up to five"
    await eventually_dead(broker_url, app, 0)
