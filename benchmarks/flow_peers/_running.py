"""Running a framework's program in separate processes, and measuring it from outside."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import pika
import pika.exceptions
import psutil

from benchmarks.flow_peers import IN, OUT

RABBITRY: Final = "Rabbitry"
PEERS: Final = ("FastStream", "Celery", "Dramatiq")
_DEADLINE: Final = 300.0
_LOOK: Final = 0.02
_WARM: Final = 0.1
"""The share of the messages handled before the measurement starts: connecting and importing do not count."""


@dataclass(frozen=True)
class Run:
    """The results of one run: messages a second, and CPU (user and system) of all its processes, µs a message."""

    per_second: float
    cpu_us: float


class Queues:
    """Counts and deletes queues. A context manager."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()

    def count(self, name: str) -> int:
        """Return how many messages wait; 0 if there is no such queue."""
        try:
            return int(self._channel.queue_declare(name, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker:
            self._channel = self._connection.channel()
            return 0

    def clear(self) -> None:
        """Delete the benchmark's queues, because each framework declares them in its own way."""
        for name in (IN, OUT):
            self._channel.queue_delete(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def module(name: str) -> str:
    """Return the module of a framework's program."""
    return f"benchmarks.flow_peers.peer_{name.lower()}"


def environment(url: str) -> dict[str, str]:
    """Return the environment for a program."""
    return os.environ | {"BENCH_URL": url, "RABBITRY_BROKER": url}


@contextlib.contextmanager
def program(command: Sequence[str], url: str) -> Iterator[psutil.Process]:
    """Run a Python program, and end it and its children."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=environment(url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        try:
            yield watched
        finally:
            children = watched.children(recursive=True)
            for one in (*children, watched):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a running process and its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def worker(name: str, processes: int = 1) -> list[str]:
    """Return the command of a framework's worker."""
    if name == RABBITRY:
        return ["rabbitry", "worker", f"{module(name)}:app", "--processes", str(processes)]
    return [module(name), "work"]


def told(name: str, url: str, what: str, count: int) -> str:
    """Run a framework's program to its end and return its output."""
    return subprocess.run(
        [sys.executable, "-m", module(name), what, str(count)],
        env=environment(url), check=True, timeout=_DEADLINE, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip


def measure(name: str, url: str, count: int, command: Sequence[str] | None = None) -> Run:
    """Publish `count` items, start a worker, and measure until all results are there.

    Raises TimeoutError if they do not come.
    """
    with Queues(url) as queues:
        queues.clear()
        told(name, url, "fill", count)
        with program(command or worker(name), url) as process:
            _wait(queues, process, int(count * _WARM), name)
            began, first, cpu = time.perf_counter(), queues.count(OUT), cpu_seconds(process)
            _wait(queues, process, count, name)
            seconds, cpu = time.perf_counter() - began, cpu_seconds(process) - cpu
        queues.clear()
    return Run((count - first) / seconds, cpu / (count - first) * 1e6)


def _wait(queues: Queues, process: psutil.Process, wanted: int, name: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while queues.count(OUT) < wanted:
        if time.monotonic() > deadline or not process.is_running():
            raise TimeoutError(f"{name}: {queues.count(OUT)} of {wanted} results came")
        time.sleep(_LOOK)
