"""Limits of calls at once hold over all workers, whatever becomes of these; on both brokers."""

import asyncio
from pathlib import Path

import pytest

import rabbitry
from rabbitry.flow.wiring import topology
from tests.flow._running import eventually_holds, put
from tests.flow.worker._limited import app as limited
from tests.flow.worker._over_kills import limited_worker as worker
from tests.support.waiting import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an empty file."""
    path = tmp_path / "calls"
    path.touch()
    return path


def most_at_once(lines: list[str]) -> int:
    """Return how many calls ran at once at most. A line `x PID` is written just before a worker is killed."""
    running: set[tuple[str, str]] = set()
    most = 0
    for line in lines:
        what, pid, *number = line.split()
        if what == "+":
            running.add((pid, number[0]))
        elif what == "-":
            running.discard((pid, number[0]))
        else:
            running = {call for call in running if call[0] != pid}
        most = max(most, len(running))
    return most


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_never_run_more_at_once(broker_url: str, path: Path) -> None:
    def lines() -> list[str]:
        return path.read_text().splitlines()

    def note(line: str) -> None:
        with path.open("a") as file:
            file.write(line)

    async with rabbitry.connect(broker_url) as connection:
        await topology.declare(connection, limited.spec())
    async with limited.publisher(broker_url) as publisher:
        await asyncio.gather(*(publisher.publish(each, key="run") for each in range(60)))
    loop = asyncio.get_running_loop()
    workers = [worker(broker_url, path) for _ in range(4)]
    try:
        for part in (10, 30):
            await eventually(lambda part=part: len(lines()) >= 2 * part, "calls", within=120)  # type: ignore[misc] # of a lambda
            victim = next((each for each in workers if f" {each.pid} " in lines()[-1]), workers[0])
            workers.remove(victim)
            note(f"x {victim.pid}\n")
            victim.kill()
            await loop.run_in_executor(None, victim.wait)
            workers.append(worker(broker_url, path))
        numbers = {str(number) for number in range(60)}
        await eventually(
            lambda: {line.split()[2] for line in lines() if line.startswith("-")} == numbers, "all calls", within=120
        )
    finally:
        for each in workers:
            each.kill()
            each.wait()
    assert most_at_once(lines()) == 2


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_slots_go_from_worker_to_worker(broker_url: str, queue_type: str, no_leaks: None) -> None:
    app = rabbitry.App("slotted", queue_type=queue_type)  # type: ignore[arg-type] # one of the two
    running: list[int] = []
    most = 0
    tried: list[int] = []

    @app.stage("in", then="out", total_concurrency=1, rate="1000/s", attempts=2, delays=[0])
    async def handle(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(number)
        tried.append(number)
        if tried.count(number) == 1 and number % 5 == 0:
            raise ValueError("once more")
        return number

    app.output("out", queue="slotted.out")
    async with app.worker(broker_url) as worker, app.worker(broker_url), rabbitry.connect(broker_url) as connection:
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(20)))
        await eventually_holds(broker_url, "slotted.out", 20)
        await put(broker_url, "slotted.slot.handle.1", b"")  # a second token gives no second slot
        await asyncio.gather(*(worker.publish(number, key="in") for number in range(20, 30)))
        await eventually_holds(broker_url, "slotted.out", 30)
        async with await connection.channel() as channel:
            await channel.delete_queue("slotted.slot.handle.1")
        await worker.publish(31, key="in")
        await eventually_holds(broker_url, "slotted.out", 31)
    assert most == 1


def test_a_batch_has_no_slot() -> None:
    app = rabbitry.App("batched")

    async def many(numbers: list[int]) -> None: ...

    with pytest.raises(rabbitry.AppError, match="total_concurrency=… is for stages without batch=…"):
        app.stage("in", batch=10, total_concurrency=2)(many)
