"""Each assignment is confirmed once in the records, and marked again once, though roles are killed at random."""

import asyncio
import contextlib
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

import rabbitry
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records import Database, course, outbox, regrading
from rabbitry.apps.grading.records.regrading import Selection
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Submitter
from tests.apps.grading._running import CC
from tests.flow._running import counts
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.launcher import Launched, launch
from tests.support.waiting import eventually

_ROLES = (("demonstrator", "--module", "cloud_computing"), ("assistant",), ("coordinator",))


class Killed:
    """Two processes of each role, killed at random and started again. A context manager."""

    def __init__(self, more: dict[str, str], seed: int, pause: float, arguments: Sequence[str] = ()) -> None:
        """pause: seconds, on average, from a submission to a kill."""
        self.kills: Counter[str] = Counter()
        self._more = more
        self._chance = random.Random(seed)
        self._pause = pause
        self._arguments = arguments
        self._processes: dict[tuple[str, int], Launched] = {}

    def _start(self, role: Sequence[str], number: int) -> None:
        with self._log(role, number).open("ab") as log:
            output, environment = log.fileno(), commands.environment(self._more)
            self._processes[role[0], number] = launch(["grading", *role, *self._arguments], environment, output, output)

    def __enter__(self) -> "Killed":
        for role in _ROLES:
            for number in (1, 2):
                self._start(role, number)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    async def ready(self) -> None:
        """Wait until all of them work."""
        logs = [self._log(role, number) for role in _ROLES for number in (1, 2)]
        for log in logs:
            await eventually(lambda log=log: b"INFO" in log.read_bytes(), f"{log.name}", within=120)  # type: ignore[misc] # a lambda's default

    def _log(self, role: Sequence[str], number: int) -> Path:
        return Path(self._more["XDG_DATA_HOME"]) / f"{role[0]}-{number}.log"

    async def kill(self) -> None:
        """Kill a process of the next role at a random time, and start it again. Fail if it had ended by itself."""
        await asyncio.sleep(self._chance.uniform(0, 2) * self._pause)
        role, number = _ROLES[self.kills.total() % len(_ROLES)], self._chance.choice((1, 2))
        process = self._processes[role[0], number]
        assert process.poll() is None, self._log(role, number).read_text()
        process.kill()
        process.wait()
        self.kills[role[0]] += 1
        self._start(role, number)


@contextlib.asynccontextmanager
async def _results(url: str) -> AsyncIterator[Counter[str]]:
    """Count the results of each submission, from a queue that survives its readers."""
    seen: Counter[str] = Counter()

    async def read() -> None:
        async for delivery in deliveries:
            seen[msgspec.json.decode(delivery.body)["SubmissionID"]] += 1
            delivery.ack()

    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("assignment_exchange", "direct", durable=True)
        await channel.declare_queue("results_queue", durable=True)
        await channel.bind_queue("results_queue", "assignment_exchange", "results")
        async with channel.consume("results_queue") as deliveries:
            reading = asyncio.create_task(read())
            yield seen
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _hand_in(submitter: Submitter, students: range) -> list[str]:
    sent = [await submitter.send(student, CC, b"x = 1\n", "x.py") for student in students]
    await asyncio.gather(*(confirmed for _, confirmed in sent))
    return [identity for identity, _ in sent]


async def _mark_again(database: Database, roles: Killed, number: int, kills: int, deadline: float) -> None:
    """Have all of it marked again as the page does, while roles are killed."""
    begin = partial(regrading.begin, selection=Selection(CC.name), course=Course(), who="cleo", remark="mended")
    run = await database.write(partial(begin, by_coordinator=True))
    assert len(run.left) == number
    for _ in range(kills):
        await roles.kill()
    found: dict[str, int] = {}
    while (
        await database.read(regrading.begun) is not None
        or (found := await database.read(course.counts)) != {"confirmed": number}
        or await database.read(outbox.count) > 0
    ):
        assert asyncio.get_running_loop().time() < deadline, f"{found} after {roles.kills}"
        await asyncio.sleep(0.1)


async def confirm_all(
    url: str,
    database_url: str,
    folder: Path,
    number: int,
    *,
    kills: int,
    pause: float,
    seed: int,
    within: float,
    again: int = 0,
    arguments: Sequence[str] = (),
) -> None:
    """Submit `number` files while roles are killed; check that each is confirmed once, with one history.

    again: if it is not 0, all of them are marked again while so many roles are killed, each once.
    """
    rounds = 2 if again else 1
    more = {"RABBITRY_BROKER": url, "RABBITRY_DATABASE": database_url}
    more |= {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    deadline = asyncio.get_running_loop().time() + within
    with Database(database_url) as database:
        async with contextlib.AsyncExitStack() as stack:
            results = await stack.enter_async_context(_results(url))
            roles = stack.enter_context(Killed(more, seed, pause, arguments))
            await roles.ready()
            identities = []
            async with Submitter(Wiring(), url) as submitter:
                for begin in range(0, number, number // kills):
                    students = range(begin + 1, min(number, begin + number // kills) + 1)
                    identities += await _hand_in(submitter, students)
                    await roles.kill()
            while (found := await database.read(course.counts)) != {"confirmed": number}:
                assert asyncio.get_running_loop().time() < deadline, f"{found} after {roles.kills}"
                await asyncio.sleep(0.1)
            if again:
                await _mark_again(database, roles, number, again, deadline)
            while sum(one >= rounds for one in results.values()) < number:
                assert asyncio.get_running_loop().time() < deadline, f"{len(results)} results"
                await asyncio.sleep(0.1)
        hops = await database.read(course.histories)
    assert hops.keys() == set(identities) == set(results)
    statuses = ("confirmed", "corrected", "submitted", "validated")
    assert {tuple(sorted(hop.status for hop in one)) for one in hops.values()} == {tuple(sorted(statuses * rounds))}
    assert (await counts(url, ["grading.dead"])) == {"grading.dead": 0}
    repeated = sum(results.values()) - number * rounds
    assert repeated < number, "more were repeated than a few"
    print(f"{number} assignments, kills: {dict(roles.kills)}, results repeated: {repeated}", file=sys.stderr)


@pytest.mark.timeout(480)
@ON_EMBEDDED
async def test_a_hundred_assignments_survive_killed_roles(broker_url: str, one_url: str, tmp_path: Path) -> None:
    await confirm_all(broker_url, one_url, tmp_path, 102, kills=6, pause=0.05, seed=1, within=450, again=6)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_ten_thousand_assignments_survive_killed_roles(broker_url: str, one_url: str, tmp_path: Path) -> None:
    await confirm_all(broker_url, one_url, tmp_path, 10_000, kills=60, pause=0.1, seed=2, within=800)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_six_hundred_assignments_are_marked_again_once(broker_url: str, one_url: str, tmp_path: Path) -> None:
    await confirm_all(broker_url, one_url, tmp_path, 600, kills=6, pause=0.1, seed=3, within=500, again=60)
