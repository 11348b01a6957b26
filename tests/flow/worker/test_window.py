"""The messages that a worker has in hand: fewer where they are large, and batches of fewer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow._options import MOST_BATCH_BYTES
from rabbitry.flow.worker import Worker, _window
from rabbitry.flow.worker._window import FIRST, LARGEST, Window
from tests.flow._running import counts, eventually_holds
from tests.support.waiting import eventually, eventually_awaited

MOST = 200
HALF = b"x" * (LARGEST // 2)


def taken(window: Window, sizes: list[int]) -> int:
    for size in sizes:
        window.take(size)
    return window.size


def test_a_window_begins_small_and_grows_if_it_is_full_of_small_messages() -> None:
    window = Window(1, MOST)
    assert (window.size, window.limit) == (FIRST, FIRST)
    assert taken(window, [100] * (FIRST - 1)) == FIRST
    assert taken(window, [100]) == 2 * FIRST
    assert taken(window, [100] * MOST) == MOST
    assert window.limit == 0


def test_a_window_shrinks_if_its_messages_are_large() -> None:
    window = Window(1, MOST)
    taken(window, [100] * MOST)
    for _ in range(MOST):
        window.settle(100)
    assert taken(window, [LARGEST // 10] * 11) == 10
    assert window.limit == 10
    assert taken(window, [50 * LARGEST]) == 1


def test_a_window_stays_if_more_of_its_messages_would_be_too_much() -> None:
    window = Window(1, MOST)
    assert taken(window, [LARGEST // FIRST] * FIRST) == FIRST


def test_a_window_has_room_for_all_concurrent_handlers() -> None:
    assert Window(100, MOST).size == 100
    assert taken(Window(100, MOST), [LARGEST] * 100) == 100
    assert Window(4, 8).limit == 0


def test_lost_messages_do_not_count_for_the_window() -> None:
    window = Window(1, MOST)
    taken(window, [LARGEST // 2] * 2)
    window.clear()
    assert taken(window, [100] * FIRST) == 2 * FIRST


async def test_a_window_that_was_not_full_for_a_while_is_small_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_window, "PAUSE", 0.01)
    limits: list[int] = []

    class Channel:
        async def limit(self, unsettled: int) -> None:
            limits.append(unsettled)

    window = Window(1, MOST)
    running = asyncio.create_task(window.run(Channel(), FIRST))  # type: ignore[arg-type] # all of a channel that it uses
    try:
        taken(window, [100] * MOST)
        await eventually(lambda: limits == [0], "the limit is lifted")
        for _ in range(MOST - 50):
            window.settle(100)
        await eventually(lambda: limits == [0, 50 + FIRST], "there is room for some beside what is in hand")
        for _ in range(50):
            window.settle(100)
        await eventually(lambda: limits == [0, 50 + FIRST, FIRST], "the limit is as at first")
    finally:
        running.cancel()
        await asyncio.wait((running,))


@asynccontextmanager
async def holding(url: str, app: rabbitry.App, bodies: list[bytes]) -> AsyncIterator[Worker]:
    """Run a worker of which each handler waits for ever, beside a queue that holds these messages."""
    async with app.worker(url, connect_attempts=1):
        pass
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        for body in bodies:
            await channel.send(body, routing_key=f"{app.name}.handle", properties=Properties(delivery_mode=1))
        await channel.wait_for_confirms()
    worker = app.worker(url, connect_attempts=1)
    async with worker:
        yield worker
        await worker.stop(0.0)


def in_hand(worker: Worker) -> int:
    settler = worker._engine._settler
    return 0 if settler is None else settler.in_hand


@pytest.mark.parametrize("single_active", [False, True])
async def test_few_large_messages_are_prefetched(broker_url: str, no_leaks: None, single_active: bool) -> None:
    app = rabbitry.App(f"large{single_active}")

    @app.stage("in", concurrency=2, batch=50, within=0, single_active=single_active)
    async def handle(bodies: list[bytes]) -> None:
        await asyncio.Event().wait()

    async with holding(broker_url, app, [HALF] * (FIRST + 4)) as worker:
        intake = worker._engine.intakes[0]
        await eventually(lambda: intake._channel is not None and intake._channel._core._limit == 2, "a limit of two")

        async def is_steady() -> bool:
            ready = await counts(broker_url, [f"{app.name}.handle"])
            return ready[f"{app.name}.handle"] + in_hand(worker) == FIRST + 4

        await eventually_awaited(is_steady, "all messages in the queue or in hand")
        assert 2 <= in_hand(worker) <= FIRST


async def test_small_messages_are_prefetched_up_to_the_limit(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("small")

    @app.stage("in", concurrency=1, batch=50, within=0)
    async def handle(bodies: list[bytes]) -> None:
        await asyncio.Event().wait()

    async with holding(broker_url, app, [b"small"] * 110) as worker:
        await eventually(lambda: in_hand(worker) == 100, "twice what can be handled at once")
        await eventually_holds(broker_url, "small.handle", 10)


@pytest.mark.parametrize("batch_bytes", [None, 3000])
async def test_a_batch_is_cut_by_its_bytes(broker_url: str, batch_bytes: int | None) -> None:
    app = rabbitry.App(f"cut{batch_bytes}")
    seen: list[int] = []

    @app.stage("in", batch=500, within=100, batch_bytes=batch_bytes)
    async def handle(bodies: list[bytes]) -> None:
        seen.append(len(bodies))

    most = batch_bytes or MOST_BATCH_BYTES
    third = b"x" * (most // 3)
    async with app.worker(broker_url, connect_attempts=1):
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            for _ in range(6):
                await channel.send(third, routing_key=f"{app.name}.handle")
            await channel.send(b"x" * 2 * most, routing_key=f"{app.name}.handle")
            await channel.wait_for_confirms()
        await eventually(lambda: sum(seen) == 7, "all messages, though no time was up")
    assert seen == [3, 3, 1]
