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
    await eventually(lambda: reading.present < MOST, "who leaves makes room")
    another = asyncio.create_task(reading.run(read))
    await eventually(lambda: reading.present == MOST, "another waits")
    assert here == AT_ONCE
    go_on.set()
    await asyncio.gather(*waiting, another)
    assert (here, reading.present) == (MOST, 0)


async def test_a_student_leaves_room_for_others() -> None:
    reading, go_on = Reading(), threading.Event()
    mine = [asyncio.create_task(reading.run(lambda: go_on.wait(WITHIN), student="7")) for _ in range(MOST_EACH)]
    await eventually(lambda: reading.present == MOST_EACH, "all of them wait or are read")
    with pytest.raises(ReadingBusy, match=f"{MOST_EACH} files are being read for student 7"):
        await reading.run(lambda: True, student="7")
    others = [asyncio.create_task(reading.run(lambda: True, student=who)) for who in ("8", None)]
    go_on.set()
    assert all(await asyncio.gather(*mine, *others))
    assert reading.present == 0


async def test_files_of_one_student_are_read_one_after_another_and_in_turn_with_others() -> None:
    reading, order = Reading(), list[str]()
    go_on, begun = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(WITHIN)
        order.append("slow")

    mine = [asyncio.create_task(reading.run(slow, student="7")) for _ in range(MOST_EACH)]
    await eventually(begun.is_set, "the first one is read")
    # The other place is free for others while the student's own files wait.
    await asyncio.wait_for(reading.run(lambda: order.append("other"), student="8"), WITHIN)
    await asyncio.wait_for(reading.run(lambda: order.append("staff")), WITHIN)
    assert order == ["other", "staff"]
    go_on.set()
    await asyncio.gather(*mine)
    assert order.count("slow") == MOST_EACH
