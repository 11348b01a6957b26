"""How many submitted files are read at once for the page."""

import asyncio
import threading

import pytest

from rabbitry.apps.grading.exceptions import ReadingBusy
from rabbitry.apps.grading.reading import AT_ONCE, MOST, Reading
from tests.support.waiting import WITHIN, eventually


async def test_few_are_read_at_once_and_no_more_wait_than_may() -> None:
    reading, go_on, here = Reading(), threading.Event(), 0

    def read() -> int:
        nonlocal here
        here += 1
        assert go_on.wait(WITHIN)
        return here

    waiting = [asyncio.create_task(reading.run(read)) for _ in range(MOST)]
    await eventually(lambda: here == AT_ONCE, "the first are read")
    with pytest.raises(ReadingBusy, match=f"{MOST} submitted files are being read for others: try again"):
        await reading.run(read)
    waiting.pop().cancel()
    await eventually(lambda: reading._present < MOST, "who leaves makes room")
    another = asyncio.create_task(reading.run(read))
    await eventually(lambda: reading._present == MOST, "another waits")
    assert here == AT_ONCE
    go_on.set()
    await asyncio.gather(*waiting, another)
    assert (here, reading._present) == (MOST, 0)
