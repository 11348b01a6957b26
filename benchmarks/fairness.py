"""How long other clients wait while one does something large: `make bench-fairness`.

One client does each of the things below in turn. Meanwhile two others, each in its own process, measure how long they
wait for a basic.get of an empty queue, and for the confirm of a persistent message. Prints a line for each and writes
the table in docs/performance.md. ARGS="--scale 0.1 close" takes a tenth of the amounts, and only cases with `close` in
their names; only a complete run writes the table.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Final

from tests.support.embedded import BrokerProcess

from benchmarks._docs import write_table
from benchmarks._raw import HEADER, METHOD, Raw, frame, publish
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.tables import Table

_PAUSE: Final = 0.002
_BEFORE: Final = 0.5
_AFTER: Final = 2.0
_DUE_AFTER: Final = 20.0
"""Seconds after which published messages expire or are due: longer than publishing them takes."""
_LOOK: Final = 0.2
_CONTEXT: Final = multiprocessing.get_context("spawn")

_Case = Callable[[Raw, str, int], Iterator[None]]
"""Prepares with a client, its broker's URL and an amount up to its first yield, and then does the measured work."""


@dataclass(frozen=True)
class Waits:
    """The other clients' longest waits in milliseconds, and the duration of the work in seconds."""

    ping: float
    confirm: float
    seconds: float


# -- the work of one client ------------------------------------------------------------------------------


def _publish_to_headers(client: Raw, url: str, amount: int) -> Iterator[None]:
    client.call(m.ExchangeDeclare("x", "headers"), m.ExchangeDeclareOk)
    client.declare("q")
    for number in range(5_000):
        arguments: Table = {"a": f"v{number}", "b": "w"}
        client.call(m.QueueBind("q", "x", "", arguments=arguments), m.QueueBindOk)
    yield
    client.send(publish("x", "", headers={"a": "none", "b": "w"}) * amount)
    client.call(m.BasicQos(), m.BasicQosOk)


def _publish_to_topic(client: Raw, url: str, amount: int) -> Iterator[None]:
    client.call(m.ExchangeDeclare("x", "topic"), m.ExchangeDeclareOk)
    client.declare("q")
    chance = random.Random(1)
    for _ in range(1_000):
        pattern = ".".join(chance.choices("#*ab", k=60))
        client.call(m.QueueBind("q", "x", pattern), m.QueueBindOk)
    yield
    client.send(b"".join(publish("x", ".".join(chance.choices("ab", k=120))) for _ in range(amount)))
    client.call(m.BasicQos(), m.BasicQosOk)


def _publish_to_fanout(client: Raw, url: str, amount: int) -> Iterator[None]:
    client.call(m.ExchangeDeclare("x", "fanout"), m.ExchangeDeclareOk)
    for number in range(1_000):
        client.declare(f"q{number}", durable=True)
        client.call(m.QueueBind(f"q{number}", "x"), m.QueueBindOk)
    yield
    client.send(publish("x", "", bytes(100), persistent=True) * amount)
    client.call(m.BasicQos(), m.BasicQosOk)


def _hold(client: Raw, amount: int, *, durable: bool, arguments: Table = NO_ARGUMENTS) -> None:
    """Fill a queue, and take all of it without settling any message."""
    client.declare("q", durable=durable, arguments=arguments)
    client.fill("q", amount, persistent=durable)
    client.call(m.BasicConsume("q"), m.BasicConsumeOk)
    client.wait_for_all(amount, lambda kind, payload: kind == HEADER)


def _close(durable: bool) -> _Case:
    def case(client: Raw, url: str, amount: int) -> Iterator[None]:
        _hold(client, amount, durable=durable)
        yield
        client.call(m.ChannelClose(200), m.ChannelCloseOk)

    return case


def _ack_all(client: Raw, url: str, amount: int) -> Iterator[None]:
    _hold(client, amount, durable=True)
    yield
    client.send(frame(m.BasicAck(0, multiple=True)))
    client.call(m.BasicQos(), m.BasicQosOk)


def _give_back_all(client: Raw, url: str, amount: int) -> Iterator[None]:
    _hold(client, amount, durable=True)
    yield
    client.send(frame(m.BasicNack(0, multiple=True, requeue=True)))
    client.wait_for_all(amount, lambda kind, payload: kind == HEADER)


def _commit(client: Raw, url: str, amount: int) -> Iterator[None]:
    client.declare("q", durable=True)
    client.call(m.TxSelect(), m.TxSelectOk)
    one = publish("", "q", bytes(100), persistent=True)
    for _ in range(amount // 1_000):
        client.send(one * 1_000)
    client.call(m.BasicQos(), m.BasicQosOk)
    yield
    client.call(m.TxCommit(), m.TxCommitOk)


def _empty(durable: bool, method: m.Method, answer: type[m.Method]) -> _Case:
    def case(client: Raw, url: str, amount: int) -> Iterator[None]:
        client.declare("q", durable=durable)
        client.fill("q", amount, persistent=durable)
        yield
        client.call(method, answer)

    return case


def _declare(durable: bool) -> _Case:
    def case(client: Raw, url: str, amount: int) -> Iterator[None]:
        yield
        client.send(b"".join(frame(m.QueueDeclare(f"q{number}", durable=durable)) for number in range(amount)))
        client.wait_for_all(amount, lambda kind, payload: kind == METHOD)

    return case


def _close_with_queues(client: Raw, url: str, amount: int) -> Iterator[None]:
    with Raw(url) as other:
        asked = b"".join(frame(m.QueueDeclare(f"q{number}", exclusive=True)) for number in range(amount))
        other.send(asked)
        other.wait_for_all(amount, lambda kind, payload: kind == METHOD)
        yield
        other.call(m.ConnectionClose(200), m.ConnectionCloseOk, 0)


def _dead_letters(client: Raw, url: str, amount: int) -> Iterator[None]:
    arguments: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.declare("dead", durable=True)
    _hold(client, amount, durable=True, arguments=arguments)
    yield
    client.send(frame(m.BasicNack(0, multiple=True, requeue=False)))
    client.call(m.BasicQos(), m.BasicQosOk)


def _expire(client: Raw, url: str, amount: int) -> Iterator[None]:
    arguments: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.declare("dead", durable=True)
    client.declare("q", durable=True, arguments={**arguments, "x-message-ttl": int(_DUE_AFTER * 1000)})
    client.fill("q", amount, persistent=True)
    yield
    _wait_for(client, "dead", amount)


def _delayed(client: Raw, url: str, amount: int) -> Iterator[None]:
    arguments: Table = {"x-delayed-type": "fanout"}
    client.declare("q", durable=True)
    client.call(m.ExchangeDeclare("x", "x-delayed-message", durable=True, arguments=arguments), m.ExchangeDeclareOk)
    client.call(m.QueueBind("q", "x"), m.QueueBindOk)
    delay = int(_DUE_AFTER * 1000)
    one = publish("x", "", bytes(100), persistent=True, headers={"x-delay": delay})
    for _ in range(amount // 1_000):
        client.send(one * 1_000)
    client.call(m.BasicQos(), m.BasicQosOk)
    yield
    _wait_for(client, "q", amount // 1_000 * 1_000)


def _wait_for(client: Raw, queue: str, amount: int) -> None:
    count = -1
    while count < amount:
        time.sleep(_LOOK)
        answer = client.call(m.QueueDeclare(queue, passive=True), m.QueueDeclareOk)
        count = answer.message_count if isinstance(answer, m.QueueDeclareOk) else count


def _consistent_hash(client: Raw, url: str, amount: int) -> Iterator[None]:
    client.call(m.ExchangeDeclare("x", "x-consistent-hash", arguments={"hash-header": "k"}), m.ExchangeDeclareOk)
    for number in range(1_000):
        client.declare(f"q{number}", durable=True)
        client.call(m.QueueBind(f"q{number}", "x", "10"), m.QueueBindOk)
    yield
    some = [publish("x", "", bytes(100), persistent=True, headers={"k": str(number)}) for number in range(1_000)]
    for _ in range(amount // 1_000):
        client.send(b"".join(some))
    client.call(m.BasicQos(), m.BasicQosOk)


def _delete_stream(client: Raw, url: str, amount: int) -> Iterator[None]:
    arguments: Table = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 10_000}
    client.declare("q", durable=True, arguments=arguments)
    client.fill("q", amount, persistent=True)
    yield
    client.call(m.QueueDelete("q"), m.QueueDeleteOk)


def _many_keys(client: Raw, url: str, amount: int) -> Iterator[None]:
    client.call(m.ExchangeDeclare("x", "topic"), m.ExchangeDeclareOk)
    for number in range(1_000):
        client.declare(f"q{number}")
        client.call(m.QueueBind(f"q{number}", "x", "#"), m.QueueBindOk)
    yield
    client.send(publish("x", "k", headers={"CC": [str(number) for number in range(amount)]}))
    client.call(m.BasicQos(), m.BasicQosOk)


def _nothing(client: Raw, url: str, amount: int) -> Iterator[None]:
    yield
    time.sleep(_AFTER)


CASES: Final[dict[str, tuple[_Case, int]]] = {
    "nothing": (_nothing, 0),
    "publishes to a headers exchange with 5,000 bindings": (_publish_to_headers, 2_000),
    "publishes to a topic exchange with 1,000 patterns of 60 words": (_publish_to_topic, 2_000),
    "persistent publishes to 1,000 queues each": (_publish_to_fanout, 1_000),
    "close of a channel, unacknowledged transient messages": (_close(False), 1_000_000),
    "close of a channel, unacknowledged durable messages": (_close(True), 1_000_000),
    "one ack for durable messages": (_ack_all, 1_000_000),
    "one nack for durable messages, requeued": (_give_back_all, 300_000),
    "one nack for durable messages, dead-lettered": (_dead_letters, 200_000),
    "durable messages that expire at once, dead-lettered": (_expire, 200_000),
    "delayed messages that are due at once": (_delayed, 100_000),
    "publishes by consistent hash to 1,000 queues": (_consistent_hash, 50_000),
    "delete of a stream": (_delete_stream, 300_000),
    "one publish with very many keys to 1,000 queues": (_many_keys, 12_000),
    "commit of durable messages": (_commit, 200_000),
    "purge of transient messages": (_empty(False, m.QueuePurge("q"), m.QueuePurgeOk), 1_000_000),
    "purge of durable messages": (_empty(True, m.QueuePurge("q"), m.QueuePurgeOk), 1_000_000),
    "delete of a queue with durable messages": (_empty(True, m.QueueDelete("q"), m.QueueDeleteOk), 1_000_000),
    "declarations of transient queues, sent at once": (_declare(False), 50_000),
    "declarations of durable queues, sent at once": (_declare(True), 5_000),
    "close of a connection, exclusive queues": (_close_with_queues, 5_000),
}


# -- the waits of the others -----------------------------------------------------------------------------


def _measure(url: str, is_durable: bool, over: Event, report: Connection) -> None:
    """Send requests repeatedly, and report the longest wait since the first report, in milliseconds."""
    name = f"others-{is_durable}"
    with Raw(url) as client:
        client.declare(name, durable=True)
        client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
        message = publish("", name, b"x", persistent=True)
        longest = 0.0
        report.send("ready")
        while not over.is_set():
            began = time.perf_counter()
            if is_durable:
                client.send(message)
                client.wait_for(m.BasicAck)
            else:
                client.call(m.BasicGet(name), m.BasicGetEmpty)
            longest = max(longest, time.perf_counter() - began)
            time.sleep(_PAUSE)
        report.send(longest * 1e3)


def measure(case: _Case, amount: int) -> Waits:
    """Let one client do something on a fresh broker, and measure the waits of two others."""
    with (
        tempfile.TemporaryDirectory(prefix="rabbitry-bench-") as folder,
        BrokerProcess("--log-level", "error", "--data", folder, anew=True) as broker,
        Raw(broker.url) as client,
    ):
        steps = case(client, broker.url, amount)
        next(steps)
        over = _CONTEXT.Event()
        others, reports = [], []
        for is_durable in (False, True):
            here, there = _CONTEXT.Pipe(duplex=False)
            other = _CONTEXT.Process(target=_measure, args=(broker.url, is_durable, over, there), daemon=True)
            other.start()
            here.recv()
            others.append(other)
            reports.append(here)
        time.sleep(_BEFORE)
        began = time.perf_counter()
        next(steps, None)
        seconds = time.perf_counter() - began
        time.sleep(_AFTER)  # for work that continues after the answer
        over.set()
        ping, confirm = (report.recv() for report in reports)
        for other in others:
            other.join()
    return Waits(ping, confirm, seconds)


def main() -> int:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the amounts (default: 1)")
    parser.add_argument("words", nargs="*", help="measure only cases with one of these in their names")
    arguments = parser.parse_args()
    lines = [
        f"Measured on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores.",
        "",
        "| what one client does | how many | others' basic.get, most ms | others' confirm, most ms | done after s |",
        "|---|---|---|---|---|",
    ]
    for name, (case, whole) in CASES.items():
        if arguments.words and not any(word in name for word in arguments.words):
            continue
        amount = int(whole * arguments.scale)
        load = os.getloadavg()[0]
        waits = measure(case, amount)
        figures = {"ping_ms": round(waits.ping, 1), "confirm_ms": round(waits.confirm, 1), "s": round(waits.seconds, 2)}
        print(json.dumps({"what": name, "count": amount, **figures, "load": round(load, 1)}), flush=True)
        lines.append(f"| {name} | {amount:,} | {waits.ping:.0f} | {waits.confirm:.0f} | {waits.seconds:.2f} |")
    if arguments.scale == 1 and not arguments.words:
        write_table("bench-fairness", "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
