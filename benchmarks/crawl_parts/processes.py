"""CPU and memory of processes, with their children."""

import contextlib
from collections.abc import Iterable

import psutil


def _all(pids: Iterable[int]) -> list[psutil.Process]:
    parents = [psutil.Process(pid) for pid in pids]
    return [*parents, *(child for parent in parents for child in parent.children(recursive=True))]


def cpu_seconds(*pids: int) -> float:
    """Return the CPU time (user and system) of processes and their children, including ended ones."""
    seconds = 0.0
    for process in _all(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:4])
    return seconds


def divided_cpu_seconds(*pids: int) -> tuple[float, float]:
    """Return the CPU time of processes themselves, and that of their children."""
    own = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
    return own, cpu_seconds(*pids) - own


def mebibytes(*pids: int) -> float:
    """Return the resident memory of processes and their children."""
    used = 0
    for process in _all(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            used += process.memory_info().rss
    return used / (1 << 20)
