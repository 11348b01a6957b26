"""Workers of a join killed at each step, and copies of everything: each job is joined, by one message alone."""

import asyncio
import os
import random
import signal
from collections import defaultdict
from pathlib import Path

import pytest

from tests.flow._running import bodies, counts, dead_of, gathered
from tests.flow.worker._join_victim import CONCURRENCY, PARTS, make_app
from tests.support import commands
from tests.support.launcher import Launched, launch
from tests.support.waiting import eventually_awaited

JOBS = 20
QUEUES = [f"jobs.{name}" for stage in ("split", "work", "join") for name in (stage, f"suspects.{stage}")]


def victim(arguments: list[str]) -> Launched:
    """Start a worker that kills itself."""
    with open(os.devnull, "wb") as nowhere:
        output = nowhere.fileno()
        module = "tests.flow.worker._join_victim"
        return launch(arguments, commands.environment(), output, output, module=module)


def runs_of(log: str) -> list[list[str]]:
    """Return what the runs of the join wrote: job, message and delivery."""
    return [line.split() for line in Path(log).read_text().splitlines()]


async def kill(arguments: list[str]) -> None:
    """Run a worker until it kills itself."""
    process = victim(arguments)
    try:
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait, 90)
    finally:
        process.kill()
        process.wait()
    assert code == -signal.SIGKILL, f"exit code {code}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["plain", "idempotent"])
async def test_one_message_runs_the_join_of_a_job_whatever_is_killed(
    broker_url: str, tmp_path: Path, kind: str
) -> None:
    store, log = f"sqlite:///{tmp_path}/joins.sqlite3", str(tmp_path / "log")
    app = make_app(store, log, kind)
    chance = random.Random(7)
    copies = 2 if kind == "idempotent" else 1
    async with app.publisher(broker_url) as publisher:
        for number in [*range(JOBS)] * copies:
            await publisher.publish(number, key="job")
    steps = ("delivered", "handled", "sent", "confirmed", "acked", "confirmed")
    for step in steps:
        await kill([broker_url, store, log, kind, step, str(chance.randint(5, 60))])
    wanted = {" ".join(f"{number}.{part}" for part in range(PARTS)) for number in range(JOBS)}

    # Copies wait in the retry queues until the note of the first one has come.
    queues = QUEUES + ["jobs.retry.1s", "jobs.retry.5s", "jobs.retry.30s"] * (copies - 1)

    async def is_over() -> bool:
        return not any((await counts(broker_url, queues)).values())

    async with app.worker(broker_url, connect_attempts=1) as worker:
        out = (await gathered(broker_url, ["jobs.joined"], wanted))["jobs.joined"]
        await eventually_awaited(is_over, "the copies of parts to be handled")
        assert await worker.stop()
    out.update(body.decode() for body in await bodies(broker_url, "jobs.joined"))
    assert set(out) == wanted
    assert await dead_of(broker_url, app) == []
    owners: defaultdict[str, set[str]] = defaultdict(set)
    runs = runs_of(log)
    for job, message, _ in runs:
        owners[job].add(message)
    # A copy that is in hand when its worker is killed may be split before the note of the other one has come back.
    assert JOBS <= len(owners) <= JOBS + (copies - 1) * CONCURRENCY * len(steps)
    assert all(len(messages) == 1 for messages in owners.values())
    assert len({(message, attempt) for _, message, attempt in runs}) == len(runs), "it ran again without a death"
