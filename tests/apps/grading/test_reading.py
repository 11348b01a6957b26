"""How many submitted files are read at once for the page."""

import asyncio
import threading

import pytest

from rabbitry.apps.grading.exceptions import ReadingBusy
from rabbitry.apps.grading.reading import AT_ONCE, MOST, MOST_EACH, Reading
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


async def test_a_student_leaves_room_for_others() -> None:
    reading, go_on = Reading(), threading.Event()
    mine = [asyncio.create_task(reading.run(lambda: go_on.wait(WITHIN), student="7")) for _ in range(MOST_EACH)]
    await eventually(lambda: reading._present == MOST_EACH, "all of them wait or are read")
    with pytest.raises(ReadingBusy, match=f"{MOST_EACH} files are being read for student 7"):
        await reading.run(lambda: True, student="7")
    others = [asyncio.create_task(reading.run(lambda: True, student=who)) for who in ("8", None)]
    go_on.set()
    assert all(await asyncio.gather(*mine, *others))
    assert not reading._of_students
