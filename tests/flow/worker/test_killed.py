"""Workers killed in the middle of generators and batches, and brokers restarted meanwhile: nothing is lost."""

import asyncio
import os
import random
import signal
import sys

import pytest

import rabbitry
from tests.flow._running import bodies, counts, dead_of, eventually_holds, gathered
from tests.flow.worker._killed import app, expected
from tests.support import commands
from tests.support.embedded import BrokerProcess
from tests.support.launcher import Launched, launch
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

KINDS = ("async", "thread", "batch", "both")
QUEUES = [name for stage in app.stages.values() for name in (stage.queue, f"killed.suspects.{stage.name}")]


async def publish(url: str, inputs: int) -> None:
    async with app.publisher(url) as publisher:
        for number in range(inputs):
            for kind in KINDS:
                await publisher.send(number, key=kind)


def worker(url: str, number: int) -> Launched:
    with open(os.devnull, "wb") as nowhere:
        output = nowhere.fileno()
        return launch([url, str(number)], commands.environment(), output, output, module="tests.flow.worker._killed")


async def kill(url: str, number: int) -> None:
    """Run a worker until it kills itself at a value."""
    process = worker(url, number)
    try:
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait, 90)
    finally:
        process.kill()
        process.wait()
    assert code == -signal.SIGKILL, f"exit code {code}"


async def lose_nothing(url: str, inputs: int, kills: int) -> int:
    """Kill workers, let one finish, account for all; returns how many values came more than once."""
    chance = random.Random(5)
    await publish(url, inputs)
    for _ in range(kills):
        await kill(url, chance.randint(1, inputs))
    async with app.worker(url, connect_attempts=1):
        out = (await gathered(url, ["killed.out"], expected(inputs), within=240))["killed.out"]
    assert await dead_of(url, app) == [], "who was there when a worker died is not charged for it more than once"
    out.update(body.decode() for body in await bodies(url, "killed.out"))
    assert set(out) == expected(inputs)
    return sum(out.values()) - len(out)


@pytest.mark.timeout(600)
async def test_workers_killed_in_the_middle_of_generators_and_batches_lose_nothing(broker_url: str) -> None:
    await lose_nothing(broker_url, 150, 3)


@pytest.mark.faults
@pytest.mark.timeout(1200)
async def test_ten_thousand_messages_survive_many_kills(broker_url: str) -> None:
    repeated = await lose_nothing(broker_url, 2500, 12)
    print(f"12 kills, 10000 inputs, {repeated} values came more than once", file=sys.stderr)


@pytest.mark.timeout(300)
async def test_a_restart_of_the_broker_during_generators_and_batches_is_no_event(
    own_broker: RabbitMQ | BrokerProcess,
) -> None:
    loop = asyncio.get_running_loop()
    await publish(own_broker.url, 200)
    async with app.worker(own_broker.url, connect_attempts=1) as worker:
        await eventually_holds(own_broker.url, "killed.out", 100, at_least=True)
        await loop.run_in_executor(None, own_broker.kill)
        await loop.run_in_executor(None, own_broker.start)
        await eventually(lambda: worker.is_healthy, "the worker to come back")
        out = (await gathered(own_broker.url, ["killed.out"], expected(200)))["killed.out"]
    while any((await counts(own_broker.url, QUEUES)).values()):  # what came again, and was given back
        async with app.worker(own_broker.url, connect_attempts=1):
            for queue in QUEUES:
                await eventually_holds(own_broker.url, queue, 0, within=60)
    letters: list[bytes] = [letter.body for letter in await dead_of(own_broker.url, app)]
    assert (set(out), letters) == (expected(200), [])


@pytest.mark.usefixtures("time_to_close")
async def test_a_generator_that_never_ends_survives_a_lost_connection_once(broker_url: str) -> None:
    endless = rabbitry.App("endless")
    begun: list[int] = []
    ended: list[int] = []

    @endless.stage("in", then="out")
    async def handle(number: int, message: rabbitry.Message):  # type: ignore[no-untyped-def] # as users write it
        begun.append(message.attempt)
        try:
            while True:
                yield number
        finally:
            ended.append(message.attempt)

    endless.output("out", required=False)
    worker = endless.worker(broker_url, connect_attempts=1)
    async with worker:
        await endless.publish(1, key="in", url=broker_url)
        await eventually(lambda: begun, "the generator")
        consuming = worker._engine._connections[0]
        assert worker._io is not None
        worker._io.loop.call_soon_threadsafe(consuming._session.link.driver.abort)  # type: ignore[union-attr] # it is there
        await eventually(lambda: begun == [1, 2], "the message to come again")
        await eventually(lambda: ended == [1], "the first run to be closed")
        assert await worker.stop(deadline=0.1)
    assert ended == [1, 2]
