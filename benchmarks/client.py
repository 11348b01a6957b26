"""The client beside pika, aio-pika and librabbitmq (C), in one run, on RabbitMQ and on the embedded broker.

200-byte durable messages with message ids; publishing with confirms and mandatory. Each measurement is a
child process of its own; rounds go in turns, and the median counts.
"""

import json
import statistics
import sys

import pika
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ

from benchmarks._peers import Peers, Result, Scenario

COUNTS: dict[Scenario, int] = {"publish": 20_000, "publish-one-by-one": 2_000, "consume": 20_000}
ROUNDS = 3
QUEUE = "bench"


def _prepare(url: str, messages: int) -> None:
    """An empty durable queue, then `messages` in it."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        channel.queue_declare(QUEUE, durable=True)
        for _ in range(messages):
            channel.basic_publish("", QUEUE, b"x" * 200, pika.BasicProperties(delivery_mode=2))


def _measure(peers: Peers, broker: str, url: str) -> None:
    for scenario, count in COUNTS.items():
        results: dict[str, list[Result]] = {name: [] for name in peers.names}
        for _ in range(ROUNDS):
            for name in peers.names:
                _prepare(url, count if scenario == "consume" else 0)
                results[name].append(peers.run(name, scenario, url, QUEUE, count))
        _print(broker, scenario, results)


def _print(broker: str, scenario: str, results: dict[str, list[Result]]) -> None:
    ours = statistics.median(result.per_second for result in results["warren"])
    for name, runs in results.items():
        per_second = statistics.median(run.per_second for run in runs)
        line = {
            "broker": broker,
            "scenario": scenario,
            "client": name,
            "per_second": round(per_second),
            "cpu_us": round(statistics.median(run.cpu_us for run in runs), 1),
            "warren_is_times": round(ours / per_second, 2),
        }
        print(json.dumps(line), flush=True)


def main() -> int:
    """Measure and print one JSON line for each broker, scenario and client."""
    with Peers() as peers:
        for name, reason in peers.missing.items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
        with RabbitMQ() as rabbitmq:
            _measure(peers, "RabbitMQ 3.10.8", rabbitmq.url)
        with BrokerProcess() as embedded:
            _measure(peers, "embedded", embedded.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
