"""The embedded broker, in memory and durable, beside RabbitMQ 3.10.8, in one run: `make bench-broker`.

200-byte persistent messages to durable queues, confirmed and acknowledged, with the C client. The brokers take turns,
and the median counts. Prints a line for each measure, draws docs/img/broker.svg and writes the table in
docs/performance.md.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pika
import psutil
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ

from benchmarks._docs import DOCS, write_table
from benchmarks._peers import C, Peers, Result
from benchmarks.picture import Measure, draw

RABBITMQ: Final = "RabbitMQ 3.10.8"
MEMORY: Final = "Rabbitry, in memory"
DURABLE: Final = "Rabbitry, durable"
MESSAGES: Final = 40_000
ROUNDS: Final = 3
BACKLOGS: Final = (163_840, 400_000, 1_000_000)  # from ten in-memory windows of a queue
BINDINGS: Final = (10, 100, 1_000, 10_000)
_QUEUE: Final = "bench"


@dataclass(frozen=True)
class Figure:
    """One measure: values by broker, and the target as a factor over RabbitMQ."""

    name: str
    unit: str
    values: dict[str, float]
    target: float
    more_is_better: bool

    def times(self, broker: str) -> float:
        """Return the factor over RabbitMQ."""
        ours, theirs = self.values[broker], self.values[RABBITMQ]
        return ours / theirs if self.more_is_better else theirs / ours


def _prepare(url: str, bindings: int = 0) -> None:
    """Create an empty durable queue; with `bindings`, also a topic exchange with as many that do not match."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_delete(_QUEUE)
        channel.queue_declare(_QUEUE, durable=True)
        if bindings:
            channel.exchange_delete(_QUEUE)
            channel.exchange_declare(_QUEUE, "topic", durable=True)
            channel.queue_declare("other", durable=True)
            for number in range(bindings):
                channel.queue_bind("other", _QUEUE, f"other.{number}.#")
            channel.queue_bind(_QUEUE, _QUEUE, f"{_QUEUE}.*")


class Bench:
    """The measurements of one broker; each returns a rate or a time."""

    def __init__(self, peers: Peers, url: str) -> None:
        self._peers = peers
        self._url = url

    def _publish(self, count: int, exchange: str = "") -> Result:
        return self._peers.run(C, "publish", self._url, _QUEUE, count, exchange)

    def _consume(self, count: int) -> Result:
        return self._peers.run(C, "consume", self._url, _QUEUE, count)

    def publish(self) -> float:
        """Confirmed publishes a second on one connection."""
        _prepare(self._url)
        return self._publish(MESSAGES).per_second

    def publish_on_eight(self) -> float:
        """The same on eight connections, each in its own process."""
        _prepare(self._url)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(self._publish, [MESSAGES // 8] * 8))
        return MESSAGES / max(result.seconds for result in results)

    def consume(self) -> float:
        """Messages a second, each acknowledged individually, prefetch 200."""
        _prepare(self._url)
        self._publish(MESSAGES)
        return self._consume(MESSAGES).per_second

    def both(self) -> float:
        """Messages a second from a publisher to a consumer running at the same time."""
        _prepare(self._url)
        with ThreadPoolExecutor(2) as pool:
            consuming = pool.submit(self._consume, MESSAGES)
            publishing = pool.submit(self._publish, MESSAGES)
            return MESSAGES / max(consuming.result().seconds, publishing.result().seconds)

    def ping(self) -> tuple[float, float]:
        """Microseconds from a publish to its delivery, one message at a time: 50th and 99th percentile."""
        _prepare(self._url)
        result = self._peers.run(C, "ping", self._url, _QUEUE, 5_000)
        return result.p50_us, result.p99_us

    def with_backlog(self) -> Iterator[tuple[int, float]]:
        """For each backlog, microseconds to publish and to consume a message (the sum) in addition to it."""
        _prepare(self._url)
        waiting = 0
        for backlog in BACKLOGS:
            self._publish(backlog - waiting)
            waiting = backlog
            costs = []
            for _ in range(ROUNDS):
                seconds = self._publish(MESSAGES).seconds + self._consume(MESSAGES).seconds
                costs.append(seconds / MESSAGES * 1e6)
            yield backlog, statistics.median(costs)

    def with_bindings(self) -> Iterator[tuple[int, float]]:
        """For each number of topic bindings, microseconds to publish a message with its own routing key."""
        for bindings in BINDINGS:
            costs = []
            for _ in range(ROUNDS):
                _prepare(self._url, bindings)
                costs.append(self._publish(MESSAGES, _QUEUE).seconds / MESSAGES * 1e6)
            yield bindings, statistics.median(costs)


def fdatasync_ms(folder: Path) -> float:
    """Return the milliseconds of one fdatasync of 4 KiB here, the median of 100."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(100):
            os.write(file.fileno(), bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


def _write_bytecode() -> None:
    """Start Rabbitry once, unmeasured, so that its bytecode is compiled, as after an installation by pip."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with BrokerProcess(anew=True):
        pass


def _started(server: RabbitMQ | BrokerProcess) -> tuple[float, float]:
    """Start a broker; return the seconds until it accepts, and its memory in MiB (RSS) a few seconds later."""
    began = time.perf_counter()
    server.start()
    seconds = time.perf_counter() - began
    time.sleep(3)
    root = psutil.Process(server.pid)
    memory = sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])
    return seconds, memory / (1 << 20)


def _in_turns(benches: dict[str, Bench], what: Callable[[Bench], float]) -> dict[str, float]:
    runs: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(ROUNDS):
        for name, bench in benches.items():
            runs[name].append(what(bench))
    return {name: statistics.median(values) for name, values in runs.items()}


def measure(peers: Peers, folder: Path) -> tuple[list[Figure], list[str]]:
    """Measure everything; return the figures beside RabbitMQ, and the table lines on how cost grows."""
    with contextlib.ExitStack() as stack:
        rabbitmq = RabbitMQ(management=True)
        stack.callback(rabbitmq.close)
        servers: dict[str, RabbitMQ | BrokerProcess] = {RABBITMQ: rabbitmq}
        servers[MEMORY] = BrokerProcess("--log-level", "error", "--management-port", "0", anew=True)
        servers[DURABLE] = BrokerProcess(
            "--log-level", "error", "--management-port", "0", "--data", str(folder / "data"), anew=True
        )
        _write_bytecode()
        starts = {name: _started(server) for name, server in servers.items()}
        for server in servers.values():
            if isinstance(server, BrokerProcess):
                stack.callback(server.stop)
        benches = {name: Bench(peers, server.url) for name, server in servers.items()}
        rates = [
            ("confirmed publish, 1 connection", Bench.publish, 3),
            ("confirmed publish, 8 connections", Bench.publish_on_eight, 3),
            ("consume with acks", Bench.consume, 4),
            ("publish and consume at once", Bench.both, 3),
        ]
        figures = []
        for name, what, target in rates:
            figures.append(Figure(name, "messages/s", _in_turns(benches, what), target, True))
            _say(figures[-1])
        pings = {name: bench.ping() for name, bench in benches.items()}
        for index, which in enumerate(("50th", "99th")):
            values = {name: ping[index] for name, ping in pings.items()}
            figures.append(Figure(f"ping, {which} percentile", "µs", values, 1, False))
            _say(figures[-1])
        for index, (name, unit, target) in enumerate(
            (("start until it accepts", "s", 20), ("memory at rest", "MiB", 2))
        ):
            values = {broker: start[index] for broker, start in starts.items()}
            figures.append(Figure(name, unit, values, target, False))
            _say(figures[-1])
        return figures, [line for broker in (MEMORY, DURABLE) for line in _growth(broker, benches[broker])]


def _growth(broker: str, bench: Bench) -> Iterator[str]:
    for what, costs in (
        ("backlog, publish and consume", bench.with_backlog()),
        ("topic bindings, publish", bench.with_bindings()),
    ):
        first = 0.0
        for size, cost in costs:
            first = first or cost
            yield f"| {broker} | {what} | {size:,} | {cost:.1f} | {cost / first:.2f} |"
            print(
                json.dumps({"broker": broker, what: size, "us": round(cost, 2), "times": round(cost / first, 2)}),
                flush=True,
            )


def _say(figure: Figure) -> None:
    times = {name: round(figure.times(name), 2) for name in figure.values if name != RABBITMQ}
    values = {name: round(value, 3) for name, value in figure.values.items()}
    print(
        json.dumps({"measure": figure.name, "unit": figure.unit, **values, "times": times, "target": figure.target}),
        flush=True,
    )


def _table(figures: list[Figure], growth: list[str], note: str) -> str:
    lines = [
        note,
        "",
        f"| measure | {RABBITMQ} | {MEMORY} | times better | {DURABLE} | times better | to be reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        digits = 2 if figure.unit == "s" else 0
        cells = [f"{figure.values[RABBITMQ]:,.{digits}f}"]
        for broker in (MEMORY, DURABLE):
            cells += [f"{figure.values[broker]:,.{digits}f}", f"{figure.times(broker):.2f}"]
        lines.append(f"| {figure.name}, {figure.unit} | {' | '.join(cells)} | {figure.target:g} |")
    lines += ["", "| broker | what grows | to | µs a message | times the first |", "|---|---|---|---|---|", *growth]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, draw and write."""
    with Peers() as peers, tempfile.TemporaryDirectory(prefix="rabbitry-bench-") as folder:
        if C in peers.missing:
            print(peers.missing[C], file=sys.stderr)
            return 1
        sync = fdatasync_ms(Path(folder))
        print(json.dumps({"fdatasync_ms": round(sync, 3)}), flush=True)
        figures, growth = measure(peers, Path(folder))
    note = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, one fdatasync takes {sync:.2f} ms"
    measures = [
        Measure(figure.name, {name: figure.times(name) for name in (MEMORY, DURABLE)}, figure.target)
        for figure in figures
    ]
    draw(DOCS / "img/broker.svg", "The embedded broker beside RabbitMQ", RABBITMQ, measures, note)
    write_table("bench-broker", _table(figures, growth, f"Measured on {note}."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
