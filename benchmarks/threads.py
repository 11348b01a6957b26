"""What two threads gain in the Python that runs this: the same work in one thread and in two, and programs with two.

`make bench ARGS=threads`, or `PYTHON -m benchmarks.threads` with each Python to compare. Prints a JSON line for each
measure: messages a second, the median of the rounds, and for work in two threads how many times that of one it is.
"""

import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from tests.support.deliveries import open_pair
from tests.support.embedded import BrokerProcess

import rabbitry
from rabbitry.amqp.client.blocking import BlockingChannel
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.methods import BasicPublish
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.runtime.io_thread import new_event_loop
from rabbitry.testing import RunningBroker

_BODY: Final = b"x" * 200
_MANY: Final = 40_000
_CALLS: Final = 1_000
"""Messages of the handlers that compute."""
_STEPS: Final = 20_000
"""Steps of a loop that such a handler takes: a millisecond or less."""
_CHUNK: Final = 400
"""Messages that the protocol core scans at a time."""
_ROUNDS: Final = 5


def _together(*prepares: Callable[[], Callable[[], None]]) -> float:
    """Run functions, each in a thread of its own, which prepares it; return the seconds until the last one ended.

    Without the lock, a thread is slow with objects that another one has made.
    """
    ready = threading.Barrier(len(prepares) + 1)

    def run(prepare: Callable[[], Callable[[], None]]) -> None:
        work = prepare()
        ready.wait()
        work()

    threads = [threading.Thread(target=run, args=(prepare,)) for prepare in prepares]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _compute() -> None:
    total = 0
    for step in range(_STEPS):
        total += step


def _computing() -> Callable[[], None]:
    """Return what the handlers that compute do, without a worker."""

    def compute() -> None:
        for _ in range(_CALLS):
            _compute()

    return compute


def _scan() -> Callable[[], None]:
    """Return the scan of publishes by a protocol core of its own."""
    client, broker = open_pair()
    header = encode_header(Properties(delivery_mode=2, message_id="0123456789abcdef"), len(_BODY))
    method = client.send_method(1, BasicPublish("", "bench", True))
    chunk = (method + hot.encode_content(1, header, _BODY, client.frame_limit)) * _CHUNK

    def scan() -> None:
        for _ in range(_MANY // _CHUNK):
            data = chunk
            while broker.receive(data):
                data = b""

    return scan


def _in_loop(work: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:

        async def run() -> None:
            await work()

        runner.run(run())


async def _publish(url: str, queue: str) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue)
        await channel.purge_queue(queue)
        for _ in range(_MANY):
            await channel.send(_BODY, routing_key=queue)
        await channel.wait_for_confirms()


async def _consume(url: str, queue: str) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel(prefetch=200)
        left = _MANY
        async with channel.consume(queue) as deliveries:
            async for delivery in deliveries:
                delivery.ack()
                left -= 1
                if not left:
                    break


def _connections(url: str, count: int) -> dict[str, float]:
    """Publish and then consume on each of `count` connections, each in a thread of its own."""
    rates = {}
    for name, work in (("publish", _publish), ("consume", _consume)):
        works = [partial(partial, _in_loop, partial(work, url, f"bench-{number}")) for number in range(count)]
        rates[name] = count * _MANY / _together(*works)
    return rates


def _blocking(url: str) -> dict[str, float]:
    """Publish and then consume on a blocking connection, which has a thread for its I/O."""
    with rabbitry.connect_blocking(url) as connection:
        channel = connection.channel(prefetch=200)
        channel.declare_queue("bench")
        rates = {}
        for name, work in (("publish", _send), ("consume", _take)):
            began = time.perf_counter()
            work(channel)
            rates[name] = _MANY / (time.perf_counter() - began)
        return rates


def _send(channel: BlockingChannel) -> None:
    for _ in range(_MANY):
        channel.send(_BODY, routing_key="bench")
    channel.wait_for_confirms()


def _take(channel: BlockingChannel) -> None:
    with channel.consume("bench") as deliveries:
        for number, delivery in enumerate(deliveries, 1):
            delivery.ack()
            if number == _MANY:
                break


async def _handled(url: str, messages: int, concurrency: int, *, computes: bool) -> float:
    """Return the messages a second that a worker handles in threads, or in its event loop if they need no computing."""
    app = rabbitry.App("threads")
    left = messages
    counting = threading.Lock()
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def count() -> None:
        nonlocal left
        with counting:
            left -= 1
            if not left:
                loop.call_soon_threadsafe(done.set)

    if computes:

        @app.stage("in", concurrency=concurrency)
        def compute(number: int) -> None:
            _compute()
            count()
    else:

        @app.stage("in", concurrency=concurrency)
        async def take(number: int) -> None:
            count()

    async with app.publisher(url) as publisher:
        for number in range(messages):
            await publisher.send(number, key="in")
        await publisher.wait_for_confirms()
    began = time.perf_counter()
    async with app.worker(url):
        await done.wait()
        return messages / (time.perf_counter() - began)


def _say(measure: str, rates: list[float], beside: list[float] | None = None) -> None:
    found: dict[str, object] = {"measure": measure, "per_second": round(statistics.median(rates))}
    if beside is not None:
        found["times"] = round(statistics.median(rates) / statistics.median(beside), 2)
    print(json.dumps(found), flush=True)


def _cores() -> None:
    """Measure what needs no broker."""
    one = [_CALLS / _together(_computing) for _ in range(_ROUNDS)]
    _say("computing, calls", one)
    _say(
        "computing in two threads, calls", [2 * _CALLS / _together(_computing, _computing) for _ in range(_ROUNDS)], one
    )
    one = [_MANY / _together(_scan) for _ in range(_ROUNDS)]
    _say("protocol core, scan", one)
    _say("protocol cores in two threads, scan", [2 * _MANY / _together(_scan, _scan) for _ in range(_ROUNDS)], one)


def _clients(url: str) -> None:
    """Measure connections to a broker in another process."""
    one, two, blocking = ([measure() for _ in range(_ROUNDS)] for measure in (
        partial(_connections, url, 1), partial(_connections, url, 2), partial(_blocking, url),
    ))  # fmt: skip
    for name in ("publish", "consume"):
        alone = [rates[name] for rates in one]
        _say(f"connection, {name}", alone)
        _say(f"connections in two threads, {name}", [rates[name] for rates in two], alone)
        _say(f"blocking connection, {name}", [rates[name] for rates in blocking])


def _workers(url: str) -> None:
    """Measure workers on a broker in another process."""
    one, two = (
        [asyncio.run(_handled(url, _CALLS, threads, computes=True)) for _ in range(_ROUNDS)] for threads in (1, 2)
    )
    _say("worker, `def` that computes, one thread", one)
    _say("worker, `def` that computes, two threads", two, one)
    loops = [asyncio.run(_handled(url, _MANY // 2, 100, computes=False)) for _ in range(_ROUNDS)]
    _say("worker, `async def`", loops)


def _fixture() -> None:
    """Measure a client of a broker that runs in a thread of the same process, as in tests."""
    with RunningBroker() as broker:
        rounds = [_connections(broker.url, 1) for _ in range(_ROUNDS)]
    for name in ("publish", "consume"):
        _say(f"broker in a thread, {name}", [rates[name] for rates in rounds])


def main() -> None:
    """Measure and print."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(json.dumps({"python": sys.version.split()[0], "gil": has_lock}), flush=True)
    _cores()
    with BrokerProcess(anew=True) as broker:
        _clients(broker.url)
        _workers(broker.url)
    _fixture()


if __name__ == "__main__":
    main()
