"""What breaks under a worker: itself, the network, the broker. Nothing is lost."""

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.client import Properties, parse_url
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds, gathered, put
from tests.flow.worker._accounts import lose_nothing, publish, settled
from tests.flow.worker._victim import STEPS, app
from tests.support import commands
from tests.support.brokers import on_embedded
from tests.support.embedded import BrokerProcess
from tests.support.proxy import FaultProxy, Way
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually, eventually_awaited


@pytest.mark.timeout(600)
async def test_a_worker_killed_at_each_step_of_settlement_loses_nothing(broker_url: str) -> None:
    await lose_nothing(broker_url, STEPS, 400, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_two_hundred_killed_workers_lose_nothing(broker_url: str) -> None:
    repeated = 0
    for seed in range(25):
        repeated += await lose_nothing(broker_url, random.Random(seed).sample(STEPS, len(STEPS)), 400, seed)
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            for queue in ("handle", "suspects.handle", "out", "dead"):  # the next ones have the same names
                await channel.purge_queue(f"victim.{queue}")
    print(f"{25 * len(STEPS)} kills, 10000 inputs, {repeated} done more than once", file=sys.stderr)


@pytest.mark.timeout(300)
async def test_a_message_that_kills_its_worker_each_time_becomes_a_dead_letter(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "poison_of_tests.py").write_text(
        "import os, signal, rabbitry\n"
        "app = rabbitry.App('poisoned')\n"
        "@app.stage('in', then='out', attempts=2)\n"
        "async def handle(text: str) -> str:\n"
        "    if text == 'poison':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return text\n"
        "app.output('out', queue='poisoned.out')\n"
    )
    names = {f"innocent {n}" for n in range(30)}
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_queue("poisoned.handle", durable=True)
        for name in ("poison", *names):
            await channel.publish(name.encode(), routing_key="poisoned.handle")
    poisoned = rabbitry.App("poisoned")
    more = {"RABBITRY_BROKER": broker_url, "PYTHONPATH": str(tmp_path)}
    with commands.service("worker", "poison_of_tests:app", "--processes", "2", more=more) as workers:
        await eventually_dead(broker_url, poisoned, 1)
        out = (await gathered(broker_url, ["poisoned.out"], names))["poisoned.out"]
        workers.process.terminate()
        # A worker that dies between publishing it among the suspects and the ack leaves two of it, and the second one
        # may be in hand, and kill, just when the workers are to end.
        code = await asyncio.to_thread(workers.process.wait, 60)
        assert code == 0 or (code == 1 and "was ended by signal 9" in workers.output), workers.output
    for letter in await dead_of(broker_url, poisoned):
        assert (letter.body, letter.reason, letter.attempts) == (b"poison", "failed", 3)
        assert "may kill its worker" in letter.error
    assert set(out) == names, "what was in hand beside the poison is no dead letter"


async def test_a_network_that_breaks_loses_nothing(broker_url: str) -> None:
    url = parse_url(broker_url)
    async with FaultProxy(url.hosts[0][1]) as proxy:
        through = broker_url.replace(f":{url.hosts[0][1]}/", f":{proxy.port}/")
        names = [f"take {n}" for n in range(600)]
        chance = random.Random(3)
        async with app.worker(through, connect_attempts=1) as worker:
            await publish(broker_url, names[:300])
            for fault in (proxy.cut, proxy.reset, proxy.cut):
                await asyncio.sleep(chance.uniform(0, 0.1))
                await fault()
                await eventually(lambda: worker.is_healthy, "the worker to come back")
            proxy.chunk(7)
            await publish(broker_url, names[300:])
            await asyncio.sleep(0.05)
            proxy.chunk()
            proxy.pause(Way.TO_CLIENT)
            await asyncio.sleep(0.2)
            await proxy.reset()
            proxy.resume()
            await eventually(lambda: worker.is_healthy, "the worker to come back")
    out, dead = await settled(broker_url, names)
    assert set(out) | set(dead) == set(names)
    assert sum(out.values()) < 2 * len(names)


# Each start of RabbitMQ takes five seconds of CPU.
_short = on_embedded("server")


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ | BrokerProcess]:
    """A broker with a store, of the test's own."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_rabbitmq")
        return
    with BrokerProcess("--data", str(tmp_path)) as broker:
        yield broker


@_short
async def test_a_broker_crash_is_not_counted_for_waiting_suspects(server: RabbitMQ | BrokerProcess) -> None:
    waiting = rabbitry.App("waiting")
    go_on = asyncio.Event()
    handled: list[tuple[str, int]] = []
    begun: list[str] = []

    @waiting.stage("in", attempts=3)
    async def handle(text: str, message: rabbitry.Message) -> None:
        begun.append(text)
        await go_on.wait()
        handled.append((text, message.attempt))

    texts = [f"{number}" for number in range(20)]
    async with waiting.worker(server.url, connect_attempts=1) as worker:
        for text in texts:
            last = Properties(message_id=text, delivery_mode=2, headers={"x-rabbitry-attempt": 3})
            await put(server.url, "waiting.suspects.handle", text.encode(), last)
        await eventually(lambda: begun == ["0"], "the first in hand")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await eventually(lambda: worker.is_healthy, "the worker to come back")
        go_on.set()
        await eventually(lambda: {text for text, _ in handled} == set(texts), "all are handled")
        await eventually_dead(server.url, waiting, 1)
    (letter,) = await dead_of(server.url, waiting)
    assert letter.body == b"0", "the one that was in hand counts: past its attempts it is a dead letter"
    assert set(handled) == {(text, 3) for text in texts}


@_short
async def test_a_restart_of_the_broker_under_load_is_no_event(server: RabbitMQ | BrokerProcess) -> None:
    loop = asyncio.get_running_loop()
    names = [f"take {n}" for n in range(1000)]
    async with app.worker(server.url, connect_attempts=1) as worker, app.publisher(server.url) as publisher:
        futures = []
        for n, name in enumerate(names):
            futures.append(await publisher.send(name, key="in"))
            if n == 400:
                await loop.run_in_executor(None, server.kill)
                await loop.run_in_executor(None, server.start)
        await asyncio.gather(*futures)
        await eventually(lambda: worker.is_healthy, "the worker to come back")
        await eventually_holds(server.url, "victim.handle", 0)
    out, dead = await settled(server.url, names)
    assert set(out) | set(dead) == set(names)


async def test_a_signal_under_load_loses_and_repeats_nothing(broker_url: str) -> None:
    names = [f"take {n}" for n in range(5000)]
    await publish(broker_url, names)
    more = {"RABBITRY_BROKER": broker_url, "PYTHONPATH": str(Path(__file__).parents[2])}
    with commands.service("worker", "tests.flow.worker._victim:app", more=more) as worker:
        worker.wait_for("in, out|victim: handle")
        worker.process.terminate()
        code = await asyncio.get_running_loop().run_in_executor(None, worker.process.wait, 60)
        assert code == 0, worker.output
    queues = ["victim.handle", "victim.out", "victim.dead"]

    async def are_there() -> bool:  # RabbitMQ gives back what was under way to the worker a moment later
        return sum((await counts(broker_url, queues[:2])).values()) == len(names)

    await eventually_awaited(are_there, "each input, or its result, once")
    assert await counts(broker_url, queues[2:]) == {"victim.dead": 0}
