"""Limits and schedules while workers are killed one after the other, for tests and `benchmarks/limits.py`."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import rabbitry
from rabbitry.flow.wiring import pausing, topology
from tests.flow._running import bodies, counts, eventually_holds
from tests.flow.worker._limited import app as limited
from tests.flow.worker._limited_by_key import KEYS
from tests.flow.worker._limited_by_key import app as keyed
from tests.flow.worker._ticking import app as ticking
from tests.support import commands
from tests.support.launcher import Launched, launch
from tests.support.waiting import eventually

RATE = 20
"""The rate of the stage `ask` of `_limited`, and of each key of that of `_limited_by_key`, a second."""


def _launched(module: str, *arguments: str) -> Launched:
    with open(os.devnull, "wb") as nowhere:
        output = nowhere.fileno()
        return launch([*arguments], commands.environment(), output, output, module=f"tests.flow.worker.{module}")


def limited_worker(url: str, path: Path) -> Launched:
    """Start a worker that notes in a file when its handlers begin."""
    return _launched("_limited", url, str(path))


def keyed_worker(url: str, path: Path) -> Launched:
    """Start a worker that notes in a file when its handlers begin and end, with limits for each key."""
    return _launched("_limited_by_key", url, str(path))


async def begun_over_kills(url: str, path: Path, number: int, kills: int) -> tuple[float, list[float]]:
    """Run four workers until so many handlers have begun, and kill one after the other.

    Return the time before the first one ran, and those at which handlers began.
    """

    def begun() -> list[float]:
        return sorted(float(line) for line in path.read_text().split())

    async with rabbitry.connect(url) as connection:
        await topology.declare(connection, limited.spec())
    async with limited.publisher(url) as publisher:
        await asyncio.gather(*(publisher.publish(each, key="ask") for each in range(2 * number)))
    since = time.time()
    await _over_kills(lambda: limited_worker(url, path), lambda: len(begun()), number, kills)
    return since, begun()


async def begun_by_key_over_kills(
    url: str, path: Path, number: int, kills: int
) -> tuple[float, dict[str, list[float]]]:
    """Run four workers until so many handlers of each key have begun, and kill one after the other.

    Return the time before the first one ran, and by key the times at which handlers began.
    """

    def begun() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {str(key): [] for key in range(KEYS)}
        for line in path.read_text().splitlines():
            key, moment = line.split()
            found[key].append(float(moment))
        return {key: sorted(moments) for key, moments in found.items()}

    async with rabbitry.connect(url) as connection:
        await topology.declare(connection, keyed.spec())
    async with keyed.publisher(url) as publisher:
        await asyncio.gather(*(publisher.publish(each, key="ask") for each in range(2 * number * KEYS)))
    since = time.time()
    await _over_kills(
        lambda: keyed_worker(url, path), lambda: min(len(each) for each in begun().values()), number, kills
    )
    return since, begun()


async def _over_kills(start: Callable[[], Launched], count: Callable[[], int], number: int, kills: int) -> None:
    """Run four workers until so many are counted, and kill one after the other meanwhile."""
    loop = asyncio.get_running_loop()
    workers = [start() for _ in range(4)]
    try:
        for kill in range(1, kills + 1):
            part = number * kill // (kills + 1)
            await eventually(lambda part=part: count() >= part, "handlers to begin", within=120)  # type: ignore[misc] # of a lambda
            victim = workers.pop(0)
            victim.kill()
            await loop.run_in_executor(None, victim.wait)
            workers.append(start())
        await eventually(lambda: count() >= number, "the last handlers to begin", within=120)
    finally:
        for each in workers:
            each.kill()
            each.wait()


def rate_of(begun: Sequence[float], seconds: float) -> float:
    """Return how many handlers began in a second, over so many seconds from the moment when all workers work."""
    first = begun[0] + 2
    return sum(first <= moment < first + seconds for moment in begun) / seconds


def due_in(queue: Sequence[bytes]) -> list[int]:
    """Return the times of ticks."""
    return [int(msgspec.json.decode(body, type=rabbitry.Tick).at.timestamp()) for body in queue]


async def pause_and_declare(url: str, app: rabbitry.App, stage: str) -> None:
    """Declare an app, and pause a stage, so that its ticks stay in its queue as they were published."""
    async with rabbitry.connect(url) as connection:
        await topology.declare(connection, app.spec())
        await pausing.pause(connection, app.name, stage, by="a test")


async def ticks_over_kills(url: str, kills: int) -> list[int]:
    """Run three workers, and kill one after the other, at random moments. Return the times of ticks, one a second."""
    await pause_and_declare(url, ticking, "count")
    chance = random.Random(7)
    loop = asyncio.get_running_loop()
    workers = [_launched("_ticking", url) for _ in range(3)]
    try:
        await eventually_holds(url, "ticking.count", 1, at_least=True)
        for number in range(kills):
            await asyncio.sleep(chance.random())  # the moments of the kills
            victim = workers.pop(0 if number % 2 else -1)
            victim.kill()
            await loop.run_in_executor(None, victim.wait)
            workers.append(_launched("_ticking", url))
        now = (await counts(url, ["ticking.count"]))["ticking.count"]
        await eventually_holds(url, "ticking.count", now + 2, at_least=True)
    finally:
        for each in workers:
            each.kill()
            each.wait()
    return due_in(await bodies(url, "ticking.count"))
