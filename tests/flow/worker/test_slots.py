"""Limits of calls at once hold over all workers, whatever becomes of these; on both brokers."""

import asyncio
from pathlib import Path

import pytest

import rabbitry
from tests.flow._running import eventually_holds, put
from tests.flow.worker._over_kills import calls_over_kills


@pytest.mark.timeout(300)
async def test_workers_that_are_killed_never_run_more_at_once(broker_url: str, path: Path) -> None:
    assert (await calls_over_kills(broker_url, path, "run", 60, [10, 30])).most_at_once() == 2


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
