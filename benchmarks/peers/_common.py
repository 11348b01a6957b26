"""The common parts of the Python peers: arguments, the message, and the output line."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable

WINDOW = 1000
"""Publishes with outstanding confirms, if a client can have more than one."""


class Task:
    """The measurement; `run` performs it and prints one JSON line."""

    def __init__(self, scenarios: dict[str, Callable[["Task"], None]]) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("scenario", choices=sorted(scenarios))
        parser.add_argument("url")
        parser.add_argument("queue")
        parser.add_argument("count", type=int)
        parser.add_argument("--prefetch", type=int, default=200)
        parser.add_argument("--size", type=int, default=200)
        arguments = parser.parse_args()
        self.url: str = arguments.url
        self.queue: str = arguments.queue
        self.count: int = arguments.count
        self.prefetch: int = arguments.prefetch
        self.body = b"x" * arguments.size
        self.took: list[float] = []
        """For "ping": seconds of each round trip."""
        self.rss: list[int] = []
        """For "through": bytes of memory over time."""
        self._scenario: str = arguments.scenario
        self._scenarios = scenarios
        self._begin = (0.0, 0.0)
        self._end = (0.0, 0.0)

    def begin(self) -> None:
        """Start the clock: connected and ready."""
        self._begin = (time.perf_counter(), _cpu())

    def end(self) -> None:
        """Stop the clock: the last confirm has arrived, or the last ack was handed over."""
        self._end = (time.perf_counter(), _cpu())

    def run(self) -> None:
        """Perform the measurement; print messages a second and the client's CPU per message."""
        self._scenarios[self._scenario](self)
        seconds = self._end[0] - self._begin[0]
        cpu = self._end[1] - self._begin[1]
        result = {
            "scenario": self._scenario,
            "messages": self.count,
            "seconds": round(seconds, 4),
            "per_second": round(self.count / seconds),
            "cpu_us": round(cpu / self.count * 1e6, 2),
            "rss": self.rss,
        }
        if self.took:
            self.took.sort()
            result["p50_us"] = round(self.took[len(self.took) // 2] * 1e6, 1)
            result["p99_us"] = round(self.took[len(self.took) * 99 // 100] * 1e6, 1)
        json.dump(result, sys.stdout)
        print()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
