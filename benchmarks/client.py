"""The client beside pika, aio-pika and librabbitmq (C), in one run, on RabbitMQ and on the embedded broker.

`make bench-client`. 200-byte durable messages with message ids, published as mandatory with confirms. Each measurement
runs in a separate child process; the clients take turns, and the median counts. Prints a line for each measure, draws
docs/img/client.svg and writes the table in docs/performance.md.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final

import pika
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ

from benchmarks._docs import DOCS, write_table
from benchmarks._peers import C, Peers, Result, Scenario
from benchmarks.picture import Measure, draw

RABBITMQ: Final = "RabbitMQ 3.10.8"
EMBEDDED: Final = "embedded"
RABBITRY: Final = "rabbitry"
COUNTS: Final[dict[Scenario, int]] = {
    "publish": 30_000,
    "publish-one-by-one": 2_000,
    "consume": 30_000,
    "ping": 3_000,
    "ping-confirmed": 2_000,
}
LARGE: Final = 1 << 20
LARGE_COUNT: Final = 150
THROUGH: Final = 1_000_000
ROUNDS: Final = 5
QUEUE: Final = "bench"


@dataclass(frozen=True)
class Row:
    """One measure of one client on one broker. times: Rabbitry's factor over it; target: the target for that."""

    broker: str
    measure: str
    client: str
    value: float
    unit: str
    cpu_us: float
    times: float = 1.0
    target: float | None = None


_PINGING: Final[dict[Scenario, list[str]]] = {"ping": [RABBITRY, "pika", C], "ping-confirmed": [RABBITRY, "pika"]}
"""The scenarios of pings, and the clients that take part."""


def _prepare(url: str, messages: int, size: int = 200) -> None:
    """Create an empty durable queue, and publish `messages` to it."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        channel.queue_declare(QUEUE, durable=True)
        for _ in range(messages):
            channel.basic_publish("", QUEUE, b"x" * size, pika.BasicProperties(delivery_mode=2))


def _rounds(
    peers: Peers, url: str, names: list[str], scenario: Scenario, count: int, size: int, rounds: int
) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            _prepare(url, count if scenario == "consume" else 0, size)
            results[name].append(peers.run(name, scenario, url, QUEUE, count, size=size))
    return results


# The targets for Rabbitry's factor over each of the others: (broker, measure, client) → factor.
_TARGETS: Final = {
    (RABBITMQ, "publish", C): 0.95,
    (RABBITMQ, "publish", "aio-pika"): 3,
    (RABBITMQ, "consume", C): 0.95,
    (RABBITMQ, "consume", "pika"): 2,
    (RABBITMQ, "consume", "aio-pika"): 4,
    (EMBEDDED, "publish", C): 0.5,
    (EMBEDDED, "consume", C): 0.5,
    (RABBITMQ, "publish, 1 MiB", C): 0.9,
    (RABBITMQ, "consume, 1 MiB", C): 0.9,
    (EMBEDDED, "publish, 1 MiB", C): 0.9,
    (EMBEDDED, "consume, 1 MiB", C): 0.9,
    (RABBITMQ, "ping, confirmed, 50th percentile", "pika"): 1,
    (EMBEDDED, "ping, confirmed, 50th percentile", "pika"): 1,
    (RABBITMQ, "ping, 50th percentile", "pika"): 1,
    (RABBITMQ, "ping, 99th percentile", "pika"): 1,
    (EMBEDDED, "ping, 50th percentile", "pika"): 1,
    (EMBEDDED, "ping, 99th percentile", "pika"): 1,
}


def _rows(broker: str, measure: str, unit: str, values: dict[str, tuple[float, float]], more: bool = True) -> list[Row]:
    """Return the rows of one measure. values: client → value, CPU. more: whether a larger value is better."""
    ours = values[RABBITRY][0]
    rows = []
    for client, (value, cpu) in values.items():
        times = ours / value if more else value / ours
        target = _TARGETS.get((broker, measure, client))
        rows.append(Row(broker, measure, client, value, unit, cpu, times, target))
        print(json.dumps(vars(rows[-1])), flush=True)
    return rows


def _median(runs: list[Result], name: str) -> float:
    return statistics.median(float(getattr(run, name)) for run in runs)


def _measure(peers: Peers, broker: str, url: str, share: float) -> list[Row]:
    rows = []
    rounds = ROUNDS if share == 1 else 1
    for scenario, count in COUNTS.items():
        names = _PINGING.get(scenario, peers.names)
        results = _rounds(peers, url, names, scenario, int(count * share), 200, rounds)
        if scenario in _PINGING:
            for which in ("50", "99"):
                values = {
                    name: (_median(runs, f"p{which}_us"), _median(runs, "cpu_us")) for name, runs in results.items()
                }
                rows += _rows(broker, f"{scenario.replace('-', ', ')}, {which}th percentile", "µs", values, more=False)
            continue
        values = {name: (_median(runs, "per_second"), _median(runs, "cpu_us")) for name, runs in results.items()}
        rows += _rows(broker, scenario.replace("-one", ", one", 1).replace("-", " "), "messages/s", values)
    large: tuple[Scenario, ...] = ("publish", "consume")
    for scenario in large:
        results = _rounds(peers, url, [RABBITRY, C], scenario, int(LARGE_COUNT * share), LARGE, rounds)
        values = {
            name: (_median(runs, "per_second") * LARGE / 1e6, _median(runs, "cpu_us")) for name, runs in results.items()
        }
        rows += _rows(broker, f"{scenario}, 1 MiB", "MB/s", values)
    return rows


def _memory(peers: Peers, url: str, share: float) -> str:
    """Describe the client's memory over a million messages published and consumed."""
    count = int(THROUGH * share)
    _prepare(url, 0)
    result = peers.run(RABBITRY, "through", url, QUEUE, count)
    first, last, most = (value / (1 << 20) for value in (result.rss[0], result.rss[-1], max(result.rss)))
    line = f"{first:.1f} MiB after the first {count // 20:,}, {last:.1f} MiB at the end, {most:.1f} MiB at most"
    print(json.dumps({"measure": "memory", "messages": count, "rss": result.rss}), flush=True)
    return line


def _table(rows: list[Row], memory: str, note: str) -> str:
    lines = [
        note,
        "",
        "| broker | measure | client | value | CPU of a message, µs | Rabbitry is … times better | to be reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = f"{row.target:g}" if row.target is not None else ""
        lines.append(
            f"| {row.broker} | {row.measure} | {row.client} | {row.value:,.0f} {row.unit} | {row.cpu_us:.1f} "
            f"| {row.times:.2f} | {target} |"
        )
    lines += [
        "",
        f"Memory of the client, {THROUGH:,} messages published and consumed on the embedded broker: {memory}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, draw and write."""
    parser = argparse.ArgumentParser(description="Rabbitry's client beside others.")
    parser.add_argument("--quick", action="store_true", help="a tenth of all amounts, one round; write nothing")
    options = parser.parse_args()
    share = 0.1 if options.quick else 1.0
    with Peers() as peers:
        if peers.missing:
            print(*peers.missing.values(), sep="\n", file=sys.stderr)
            return 1
        rows: list[Row] = []
        with RabbitMQ() as rabbitmq:
            rows += _measure(peers, RABBITMQ, rabbitmq.url, share)
        with BrokerProcess(anew=True) as embedded:
            rows += _measure(peers, EMBEDDED, embedded.url, share)
            memory = _memory(peers, embedded.url, share)
    if options.quick:
        return 0
    note = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, median of {ROUNDS} rounds"
    measures = [
        Measure(f"{row.measure}\n{row.broker}, beside {row.client}", {RABBITRY: row.times}, row.target)
        for row in rows
        if row.target is not None
    ]
    draw(DOCS / "img/client.svg", "Rabbitry's client beside others", "the other client", measures, note)
    write_table("bench-client", _table(rows, memory, f"Measured on {note}."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
