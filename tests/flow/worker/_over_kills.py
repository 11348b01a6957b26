"""Limits and schedules while workers are killed one after the other, for tests and `benchmarks/limits.py`."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import msgspec

import rabbitry
from rabbitry.flow.wiring import pausing, topology
from tests.flow._running import bodies, counts, eventually_holds
from tests.flow.worker._limited import KEYS
from tests.flow.worker._limited import app as limited
from tests.flow.worker._ticking import app as ticking
from tests.support import commands
from tests.support.launcher import Launched, launch
from tests.support.waiting import eventually

RATE = 20
"""The rate of the stage `ask` of `_limited`, and of each key of `ask_each` and `ask_both`, a second."""
WHOLE = 40
"""The rate of the whole stage `ask_both`."""


def _launched(module: str, *arguments: str) -> Launched:
    with open(os.devnull, "wb") as nowhere:
        output = nowhere.fileno()
        return launch([*arguments], commands.environment(), output, output, module=f"tests.flow.worker.{module}")


def _limited_worker(url: str, path: Path) -> Launched:
    """Start a worker that notes in a file when its handlers begin and end."""
    return _launched("_limited", url, str(path), limited.queue_type)


async def _publish(url: str, key: str, number: int) -> None:
    async with rabbitry.connect(url) as connection:
        await topology.declare(connection, limited.spec())
    async with limited.publisher(url) as publisher:
        await asyncio.gather(*(publisher.publish(each, key=key) for each in range(number)))


class Begun:
    """The times at which the handlers of a stage began. since: the time before the first worker ran."""

    def __init__(self, since: float, lines: Iterable[str]) -> None:
        self.since = since
        self.by_key: dict[int, list[float]] = {key: [] for key in range(KEYS)}
        for line in lines:
            key, moment = line.split()
            self.by_key[int(key)].append(float(moment))
        for moments in self.by_key.values():
            moments.sort()

    @property
    def all(self) -> list[float]:
        """Those of all keys."""
        return sorted(chain.from_iterable(self.by_key.values()))


async def begun_over_kills(url: str, path: Path, stage: str, number: int, kills: int) -> Begun:
    """Run four workers until so many handlers of a stage have begun, and kill one after the other.

    Of a stage with a rate of each key, so many of each key.
    """
    since = time.time()
    each = 1 if stage == "ask" else KEYS
    await _publish(url, limited.stages[stage].key, 2 * number * each)

    def begun() -> Begun:
        return Begun(since, path.read_text().splitlines())

    def count() -> int:
        return len(begun().all) if stage == "ask" else min(map(len, begun().by_key.values()))

    await _over_kills(lambda: _limited_worker(url, path), count, number, kills)
    return begun()


class Calls:
    """The calls of a stage, as its workers noted them, and their kills."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def most_at_once(self, key: int | None = None) -> int:
        """Return how many calls ran at once at most, of all keys or of one."""
        running: set[tuple[str, str]] = set()
        killed: set[str] = set()
        most = 0
        for line in self._lines:
            what, pid, *number = line.split()
            if what == "x":  # written just before the worker is killed: it may still begin a call, which ends unseen
                running = {call for call in running if call[0] != pid}
                killed.add(pid)
            elif pid not in killed and (key is None or int(number[0]) % KEYS == key):
                (running.add if what == "+" else running.discard)((pid, number[0]))
            most = max(most, len(running))
        return most

    def most_by_key(self) -> list[int]:
        """Return it for each key."""
        return [self.most_at_once(key) for key in range(KEYS)]


async def calls_over_kills(url: str, path: Path, stage: str, number: int, parts: Sequence[int]) -> Calls:
    """Run four workers until so many calls were done, and kill the one that began the last at each of some of them."""

    def lines() -> list[str]:
        return path.read_text().splitlines()

    await _publish(url, limited.stages[stage].key, number)
    loop = asyncio.get_running_loop()
    workers = [_limited_worker(url, path) for _ in range(4)]
    try:
        for part in parts:
            await eventually(lambda part=part: len(lines()) >= 2 * part, "calls", within=120)  # type: ignore[misc] # of a lambda
            victim = next((each for each in workers if f" {each.pid} " in lines()[-1]), workers[0])
            workers.remove(victim)
            with path.open("a") as file:
                file.write(f"x {victim.pid}\n")
            victim.kill()
            await loop.run_in_executor(None, victim.wait)
            workers.append(_limited_worker(url, path))
        numbers = {str(each) for each in range(number)}
        await eventually(
            lambda: {line.split()[2] for line in lines() if line.startswith("-")} == numbers, "all calls", within=120
        )
    finally:
        for each in workers:
            each.kill()
            each.wait()
    return Calls(lines())


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
