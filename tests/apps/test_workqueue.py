"""The work queue: examples and commands, with several consumers, one of which is killed."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import rabbitry
from tests.flow._running import counts, eventually_consumed, eventually_holds
from tests.support import commands
from tests.support.commands import Service
from tests.support.embedded import BrokerProcess
from tests.support.waiting import eventually_blocking

EXAMPLES = Path(__file__).parents[2] / "examples" / "work_queue"
COUNT = 5_000
PREFETCH = 100


def _produce(url: str, count: int) -> list[dict[str, object]]:
    done = commands.run("workqueue", "produce", "--count", str(count), "--json", more={"RABBITRY_BROKER": url})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _last(service: Service) -> dict[str, object]:
    lines = [line for line in service.output.splitlines() if line.startswith("{") and line.endswith("}")]
    picture: dict[str, object] = json.loads(lines[-1]) if lines else {}
    return picture


def _done(service: Service) -> int:
    done = _last(service).get("done", 0)
    assert isinstance(done, int)
    return done


def test_three_consumers_get_equal_shares_and_see_each_other(broker_url: str) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    # Each consumer with room gets its turn, whatever the load. RabbitMQ passes over a consumer to which more
    # than 200 messages are still to be written.
    each = 150
    command = ("workqueue", "consume", "--json", "--prefetch", str(each))
    with contextlib.ExitStack() as stack:
        consumers = [stack.enter_context(commands.service(*command, more=more)) for _ in "abc"]
        asyncio.run(eventually_consumed(broker_url, "worker_queue", 3))
        assert _produce(broker_url, 3 * each)[-1]["done"] == 3 * each
        eventually_blocking(lambda: sum(map(_done, consumers)) == 3 * each, "all to be done")
        assert [_done(consumer) for consumer in consumers] == [each] * 3
        eventually_blocking(lambda: [*_shares(consumers[0]).values()] == [each] * 3, "all to know each other")


def _shares(service: Service) -> dict[str, int]:
    shares = _last(service).get("shares", {})
    assert isinstance(shares, dict)
    return shares


def test_waiting_and_unacknowledged_messages_go_to_another_consumer(broker_url: str) -> None:
    more = {"RABBITRY_BROKER": broker_url}
    with commands.service("workqueue", "consume", "--json", "--prefetch", str(PREFETCH), more=more) as first:
        asyncio.run(eventually_consumed(broker_url, "worker_queue", 1))
        # It does nothing from here on: on a busy machine it might do all work before it is killed.
        first.process.send_signal(signal.SIGSTOP)
        _produce(broker_url, COUNT)
        asyncio.run(eventually_holds(broker_url, "worker_queue", COUNT - PREFETCH))
        first.process.kill()
        first.process.wait()
    assert asyncio.run(eventually_consumed(broker_url, "worker_queue", 0)) == COUNT
    with commands.service("workqueue", "consume", "--json", more=more) as second:
        eventually_blocking(lambda: _done(second) == COUNT, "all to be done")
        second.process.terminate()
        assert second.process.wait(90) == 0
    assert asyncio.run(counts(broker_url, ["worker_queue"])) == {"worker_queue": 0}


def test_no_number_is_missing_when_consumers_are_killed(broker_url: str) -> None:
    seen: set[int] = set()
    count = 3_000

    async def half() -> None:
        # A consumer that acknowledges, and dies with 100 deliveries unacknowledged.
        async with rabbitry.connect(broker_url, recover=False) as connection:
            channel = await connection.channel(prefetch=100)
            async with channel.consume("worker_queue") as deliveries:
                async for delivery in deliveries:
                    if len(seen) >= count // 2:
                        assert connection._session.link is not None
                        connection._session.link.driver.abort()
                        await connection.wait_closed()
                        return
                    seen.add(int(delivery.body))
                    delivery.ack()

    _produce(broker_url, count)
    asyncio.run(half())
    assert len(seen) == count // 2
    arguments = [sys.executable, str(EXAMPLES / "consume.py")]
    environment = commands.environment({"RABBITRY_BROKER": broker_url})
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while len(seen) < count:
                seen.add(int(process.stdout.readline()))
        finally:
            process.kill()
    assert seen == set(range(count))


def test_a_consumer_waits_for_its_broker_and_comes_back_after_it() -> None:
    with BrokerProcess() as broker:  # all in memory, so that nothing is delivered twice
        more = {"RABBITRY_BROKER": broker.url}
        broker.stop()
        with commands.service("workqueue", "consume", "--json", more=more) as consumer:
            consumer.wait_for("trying again in")
            for losses in (1, 2):
                broker.start()
                _produce(broker.url, 10)
                eventually_blocking(partial(_has_done, consumer, 10 * losses), "all to be done")
                broker.kill()
                eventually_blocking(partial(_has_lost, consumer, losses), "the loss to be logged")
            consumer.process.terminate()  # the broker is away
            assert consumer.process.wait(90) == 0


def _has_done(consumer: Service, total: int) -> bool:
    return _done(consumer) == total


def _has_lost(consumer: Service, losses: int) -> bool:
    return consumer.output.count("connecting again") == losses


def test_the_example_produces_all_numbers(embedded_url: str) -> None:
    environment = commands.environment({"RABBITRY_BROKER": embedded_url})
    subprocess.run([sys.executable, str(EXAMPLES / "produce.py")], env=environment, check=True, timeout=110)
    assert asyncio.run(counts(embedded_url, ["worker_queue"])) == {"worker_queue": 100_001}


def test_an_interrupted_producer_reports_unconfirmed_messages_in_one_line(broker_url: str) -> None:
    with commands.service(
        "workqueue", "produce", "--count", "2000000", more={"RABBITRY_BROKER": broker_url}
    ) as producer:
        producer.wait_for("done, ")
        producer.process.send_signal(signal.SIGINT)
        producer.process.wait(90)
        said = producer.output
    assert "never retrieved" not in said
    assert said.count("not confirmed") <= 1
    assert said.endswith("rabbitry: interrupted\n")
