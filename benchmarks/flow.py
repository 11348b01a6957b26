"""Workers of `rabbitry.flow` beside FastStream, Celery and Dramatiq, in one run: `make bench-flow`.

Decode → handle → publish confirmed → ack, on RabbitMQ 3.10.8 and on the embedded broker; then Rabbitry alone: four
processes beside one, the cost of telemetry, the replay of dead letters, and a pipeline of three stages with its memory.
The workers take turns, and the median counts. Prints a line for each measure, draws docs/img/flow.svg and writes the
tables in docs/performance.md. `--messages N` sets the length of the pipeline; `--quick` is short and writes nothing.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx
import psutil
from tests.support.embedded import BrokerProcess
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ

import rabbitry
from benchmarks._docs import DOCS, write_table
from benchmarks.flow_peers import Item, pipeline
from benchmarks.flow_peers._running import PEERS, RABBITRY, Queues, Run, cpu_seconds, measure, program, told, worker
from benchmarks.picture import Measure, draw
from rabbitry.amqp.client import Properties
from rabbitry.flow.wiring import dead_letters

RABBITMQ: Final = "RabbitMQ 3.10.8"
EMBEDDED: Final = "embedded, in memory"
ROUNDS: Final = 3
COUNTS: Final = {RABBITRY: 60_000, "FastStream": 6_000, "Celery": 4_000, "Dramatiq": 8_000}
_TELEMETRY: Final = 300_000
LETTERS: Final = 20_000
MESSAGES: Final = 1_000_000
_BACKLOG: Final = 20_000
"""The most messages waiting in the pipeline's first queue, so that the broker's memory does not matter."""
_SAMPLES: Final = 10
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Row:
    """One measure: its value and its target."""

    broker: str
    name: str
    value: str
    target: str = ""


class Bench:
    """The measurements on one broker, with `share` of the full amounts."""

    def __init__(self, broker: str, url: str, share: float) -> None:
        self.broker = broker
        self._url = url
        self._share = share

    def _count(self, full: int) -> int:
        return max(1000, int(full * self._share))

    def beside_peers(self) -> dict[str, Run]:
        """Run one worker process of each framework."""
        return self._in_turns(
            {
                name: (lambda name=name: measure(name, self._url, self._count(COUNTS[name])))  # type: ignore[misc] # bound now
                for name in (RABBITRY, *PEERS)
            }
        )

    def processes(self) -> list[Row]:
        """Run four worker processes beside one."""
        count = self._count(COUNTS[RABBITRY])
        runs = self._in_turns(
            {
                "1": lambda: measure(RABBITRY, self._url, count),
                "4": lambda: measure(RABBITRY, self._url, count, worker(RABBITRY, 4)),
            }
        )
        ratio = runs["4"].per_second / runs["1"].per_second
        return [
            self._row("four processes, messages/s", f"{runs['4'].per_second:,.0f}"),
            self._row("four processes beside one, times", f"{ratio:.2f}", "1"),
        ]

    def telemetry(self) -> list[Row]:
        """Measure the cost of counting and reporting."""
        with Queues(self._url) as queues:
            queues.clear()
            told(RABBITRY, self._url, "fill", self._count(_TELEMETRY))
            shares = json.loads(told(RABBITRY, self._url, "telemetry", int(self._count(_TELEMETRY) * 0.9)))
            queues.clear()
        low, middle, high = statistics.quantiles(shares, n=4)
        value = f"{middle:.1%} (half of {len(shares)} pairs: {low:.1%} to {high:.1%})"
        return [self._row("telemetry, share of the worker's CPU", value, "< 5 %")]

    def _in_turns(self, runs: dict[str, Callable[[], Run]]) -> dict[str, Run]:
        rounds: dict[str, list[Run]] = {name: [] for name in runs}
        for _ in range(ROUNDS if self._share == 1 else 1):
            for name, run in runs.items():
                rounds[name].append(run())
        return {
            name: Run(statistics.median(run.per_second for run in done), statistics.median(run.cpu_us for run in done))
            for name, done in rounds.items()
        }

    async def replay(self) -> list[Row]:
        """Replay dead letters, each with a traceback, to a queue without consumers."""
        count = self._count(LETTERS)
        headers = {
            "x-rabbitry-reason": "failed",
            "x-rabbitry-traceback": "x" * 1500,
            "x-rabbitry-queue": "bench.replayed",
        }
        async with rabbitry.connect(self._url) as connection:
            channel = await connection.channel()
            for queue in ("bench.dead", "bench.replayed"):
                await channel.declare_queue(queue, durable=True)
                await channel.purge_queue(queue)
            for _ in range(count):
                await channel.send(b"x" * 200, routing_key="bench.dead", properties=Properties(headers=headers))
            await channel.wait_for_confirms()
            began = time.perf_counter()
            replayed, problems = await dead_letters.replay(connection, "bench", dead_letters.which(everything=True))
            seconds = time.perf_counter() - began
            await channel.delete_queue("bench.dead")
            await channel.delete_queue("bench.replayed")
        if (replayed, problems) != (count, []):
            raise RuntimeError(f"{replayed} of {count} dead letters were replayed: {problems[:3]}")
        return [self._row("dead letters replayed a second", f"{replayed / seconds:,.0f}", "5,000")]

    async def pipeline(self, count: int) -> list[Row]:
        """Send messages through three stages in one worker process, and sample its memory."""
        port = free_port()
        command = ["rabbitry", "worker", "benchmarks.flow_peers.pipeline:app", "--health-port", str(port)]
        samples: list[float] = []
        began = time.perf_counter()
        with Queues(self._url) as queues, program(command, self._url) as process:
            feeding = asyncio.create_task(_feed(self._url, queues, count))
            async with httpx.AsyncClient() as client:
                done = 0
                while done < count:
                    await asyncio.sleep(0.2)
                    done = await _done(client, port)
                    while len(samples) < done * _SAMPLES // count:
                        samples.append(process.memory_info().rss / _MIB)
                    if feeding.done():
                        feeding.result()
                    if not process.is_running():
                        raise RuntimeError("the pipeline's worker ended")
            seconds, cpu = time.perf_counter() - began, cpu_seconds(process)
            await feeding
        grown = samples[-1] / samples[0]
        print(json.dumps({"broker": self.broker, "rss_mib": [round(sample, 1) for sample in samples]}), flush=True)
        return [
            self._row(f"{count:,} messages through three stages, handled a second", f"{3 * count / seconds:,.0f}"),
            self._row("… CPU a handled message, µs", f"{cpu / 3 / count * 1e6:.1f}"),
            self._row(
                "… memory (RSS) after a tenth of them and at the end, MiB", f"{samples[0]:.0f} → {samples[-1]:.0f}"
            ),
            self._row("… times", f"{grown:.2f}", "1"),
        ]

    def _row(self, name: str, value: str, target: str = "") -> Row:
        print(json.dumps({"broker": self.broker, "measure": name, "value": value, "target": target}), flush=True)
        return Row(self.broker, name, value, target)


async def _feed(url: str, queues: Queues, count: int) -> None:
    async with pipeline.app.publisher(url) as publisher:
        for number in range(count):
            await publisher.send(Item(number), key="one")
            if number % 1000 == 0:
                while queues.count("pipeline.first") > _BACKLOG:  # noqa: ASYNC110 # the broker has to be asked
                    await asyncio.sleep(0.05)


async def _done(client: httpx.AsyncClient, port: int) -> int:
    try:
        answer = await client.get(f"http://127.0.0.1:{port}/health")
    except httpx.TransportError:
        return 0  # it has not started yet
    return int(answer.json()["stages"]["third"].get("done", 0))


def _beside(broker: str, runs: dict[str, Run]) -> tuple[list[str], list[Measure]]:
    """Return the lines of a table, and the measures to draw."""
    ours, lines = runs[RABBITRY], []
    for name, run in runs.items():
        times, less = ours.per_second / run.per_second, run.cpu_us / ours.cpu_us
        lines.append(f"| {broker} | {name} | {run.per_second:,.0f} | {run.cpu_us:.1f} | {times:.1f} | {less:.1f} |")
        print(
            json.dumps(
                {"broker": broker, "worker": name, "per_second": round(run.per_second), "cpu_us": round(run.cpu_us, 1),
                 "rabbitry_is_times": round(times, 2), "rabbitry_takes_cpu_less_times": round(less, 2)}
            ),
            flush=True,
        )  # fmt: skip
    peers = {name: run for name, run in runs.items() if name != RABBITRY}
    return lines, [
        Measure(f"messages/s, {broker}", {n: ours.per_second / run.per_second for n, run in peers.items()}, 5),
        Measure(f"less CPU a message, {broker}", {n: run.cpu_us / ours.cpu_us for n, run in peers.items()}, 8),
    ]


def _table(peers: list[str], rows: list[Row], note: str) -> str:
    lines = [
        f"Measured on {note}.",
        "",
        "| broker | worker | messages/s | CPU, µs | Rabbitry's rate is … times | Rabbitry's CPU is less … times |",
        "|---|---|---|---|---|---|",
        *peers,
        "",
        "| broker | measure | value | to be reached |",
        "|---|---|---|---|",
        *(f"| {row.broker} | {row.name} | {row.value} | {row.target} |" for row in rows),
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, draw and write."""
    parser = argparse.ArgumentParser(description="Rabbitry's workers beside others.")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="messages sent through the pipeline")
    parser.add_argument("--quick", action="store_true", help="a twentieth of all amounts, one round; write nothing")
    options = parser.parse_args()
    share = 0.05 if options.quick else 1.0
    peers: list[str] = []
    rows: list[Row] = []
    measures: list[Measure] = []
    with RabbitMQ() as rabbitmq, BrokerProcess("--log-level", "error", anew=True) as embedded:
        for broker, url in ((RABBITMQ, rabbitmq.url), (EMBEDDED, embedded.url)):
            bench = Bench(broker, url, share)
            lines, drawn = _beside(broker, bench.beside_peers())
            peers += lines
            measures += drawn
            rows += bench.processes() + bench.telemetry() + asyncio.run(bench.replay())
        rows += asyncio.run(Bench(EMBEDDED, embedded.url, share).pipeline(int(options.messages * share)))
    if not options.quick:
        note = (
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {psutil.virtual_memory().total / (1 << 30):.0f} GiB"
        )
        draw(DOCS / "img/flow.svg", "One worker process of Rabbitry beside others", "the peer", measures, note)
        write_table("bench-flow", _table(peers, rows, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
