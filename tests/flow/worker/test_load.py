"""The share of the handlers of a stage that are busy, on average."""

import asyncio

import pytest

from rabbitry.flow.worker import _load
from rabbitry.flow.worker._load import Load
from tests.support.waiting import eventually


async def test_the_average_follows_what_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_load, "_LOOK", 0.001)
    handled = 5
    load = Load(lambda: handled, 10)
    looking = asyncio.create_task(load.run())
    try:
        await eventually(lambda: load.busy() == pytest.approx(0.5, abs=0.01), "the average")
        handled = 30  # more than may be handled at once wait for a handler
        await eventually(lambda: load.busy() == pytest.approx(1.0, abs=0.01), "the greatest average")
        handled = 0
        await eventually(lambda: load.busy() == pytest.approx(0.0, abs=0.01), "no handler is busy")
        assert not looking.done()
    finally:
        looking.cancel()


async def test_looks_keep_no_step_with_what_happens_at_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks, busy = 0.0, 0, 0.0
    sleep = asyncio.sleep

    async def pass_time(seconds: float) -> None:
        nonlocal now, looks, busy
        now, looks, busy = now + seconds, looks + 1, busy + load.busy()
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pass_time)
    # In a fifth of the time: what is returned each _LOOK, and is in hand until it is published.
    load = Load(lambda: 10 if now % _load._LOOK < _load._LOOK / 5 else 0, 10)
    looking = asyncio.create_task(load.run())
    while looks < 1000:
        await sleep(0)
    looking.cancel()
    assert 0.1 < busy / looks < 0.3
