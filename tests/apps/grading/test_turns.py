"""One student's flood does not hold up the others."""

import asyncio
import threading
from contextlib import suppress

import pytest

from rabbitry.apps.grading import turns
from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.records import Database
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Submitter
from rabbitry.apps.grading.turns import CROWD, IN_HAND, MOST_WAITING, Turns
from rabbitry.flow.exceptions import Retry
from tests.apps.grading._running import CC, WITHIN, recorded, role_set
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


class _Line:
    """Students in a line for one place."""

    def __init__(self) -> None:
        self.turns = Turns(1)
        self.had: list[str] = []
        self._go = asyncio.Semaphore(0)

    async def mark(self, student: str) -> None:
        async with self.turns.turn(student):
            await self._go.acquire()
            self.had.append(student)

    async def begin(self, *students: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.mark(student)) for student in students]
        await asyncio.sleep(0)
        return tasks

    def go(self, number: int = 1) -> None:
        for _ in range(number):
            self._go.release()


async def test_waiting_students_have_their_turns_one_after_another() -> None:
    line = _Line()
    tasks = await line.begin("a", "a", "a", "a", "b", "b", "c")
    line.go(7)
    await asyncio.gather(*tasks)
    assert line.had == ["a", "a", "b", "c", "a", "b", "a"]


async def test_a_student_s_further_submissions_are_put_off_and_in_a_crowd_all_but_one() -> None:
    line = _Line()
    tasks = await line.begin(*["a"] * (MOST_WAITING + 2))
    with pytest.raises(Retry) as error:
        await tasks.pop()
    assert (error.value.after, error.value.count) == (turns.LATER, False)
    others = [str(number) for number in range(CROWD - MOST_WAITING)]
    tasks += await line.begin(*others)
    assert await asyncio.gather(*await line.begin("0"), return_exceptions=True) != [None]
    tasks += await line.begin("z")
    line.go(len(tasks))
    await asyncio.gather(*tasks)
    assert line.had[:2] == ["a", "a"]
    assert line.had.index("z") == len(others) + 2
    assert CROWD < IN_HAND


async def test_a_place_is_given_on_when_its_holder_or_a_waiting_one_is_cancelled() -> None:
    line = _Line()
    held, waiting, last = await line.begin("a", "b", "c")
    waiting.cancel()
    held.cancel()
    await asyncio.gather(held, waiting, return_exceptions=True)
    line.go()
    await last
    # Cancelled in the moment in which the place is given.
    held, waiting, last = await line.begin("a", "b", "c")
    line.go()
    await held
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    line.go()
    await last
    assert line.had == ["c", "a", "c"]


async def test_a_demonstrator_that_stops_gives_back_what_waits() -> None:
    line = _Line()
    held, waiting = await line.begin("a", "b")
    line.turns.close()
    line.go()
    await held
    for task in (waiting, *await line.begin("c")):
        with pytest.raises(Retry, match="is stopping") as error:
            await task
        assert error.value.count is False


async def test_a_flood_does_not_hold_up_another_student(
    broker_url: str, one_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LATER", 1.0)
    go, marked = threading.Semaphore(0), list[bytes]()

    def mark(solution: bytes, name: str) -> Decision:
        assert go.acquire(timeout=WITHIN)
        marked.append(solution)
        return Decision("automatic", 1.0)

    flood = 4 * MOST_WAITING
    async with Submitter(Wiring(), broker_url) as submitter:
        for number in range(flood):
            await submitter.submit(666, CC, f"flood {number}".encode(), "x.py")
        await submitter.submit(7, CC, b"honest", "x.py")
    async with role_set(broker_url, one_database, markers={CC.name: mark}) as roles:
        await eventually(lambda: "7" in roles.turns.waiting, "the other student's turn", within=WITHIN)
        while b"honest" not in marked:  # which of the threads that wait gets a permit is not known
            assert len(marked) < MOST_WAITING, marked
            number = len(marked)
            go.release()
            await eventually(lambda n=number: len(marked) > n, "a mark", within=WITHIN)  # type: ignore[misc] # a lambda's default has no type
        go.release(flood)
        found = await recorded(one_database, "confirmed", flood + 1)
    assert len(found) == len(marked) == flood + 1
