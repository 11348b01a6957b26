"""Worker processes that are added and taken away."""

import asyncio
import logging

import pytest

from rabbitry.cli._scaling import Range
from rabbitry.cli._supervising import Workers
from rabbitry.runtime.children import Child
from rabbitry.runtime.output import ExitCode
from tests.support.waiting import eventually

_GOOD = ["broker", "--memory", "--port", "0", "--no-management"]
_BAD = ["broker", "--no-such-option"]


class _Scene:
    """Workers made of other commands, of which those of the numbers in `bad` can't start."""

    def __init__(self, size: Range, *bad: int) -> None:
        self.made: list[int] = []
        self.children: dict[int, Child] = {}
        self._bad = bad
        self.workers = Workers(self._make, size, patience=60.0)
        self.stop = asyncio.Event()

    def _make(self, number: int) -> Child:
        self.made.append(number)
        self.children[number] = Child(f"worker {number}", _BAD if number in self._bad else _GOOD, {})
        return self.children[number]


async def test_the_last_is_taken_away_first_and_its_number_is_used_again_once_it_has_ended() -> None:
    scene = _Scene(Range(1, 2))
    scene.workers.resize(2)
    supervising = asyncio.create_task(scene.workers.supervise(scene.stop))
    await asyncio.gather(*(child.ready.wait() for child in scene.children.values()))
    scene.workers.resize(1)
    scene.workers.resize(2)
    assert (scene.made, scene.workers.size) == ([1, 2], 1), "port 2 is in use until its process has ended"

    def added() -> bool:
        scene.workers.resize(2)
        return scene.workers.size == 2

    await eventually(added, "its number to be free")
    assert scene.made == [1, 2, 2]
    scene.workers.resize(1)  # it ends while all are told to
    scene.stop.set()
    assert await asyncio.wait_for(supervising, 90) == ExitCode.DONE


async def test_an_added_one_that_can_not_start_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    scene = _Scene(Range(1, 3), 2)
    scene.workers.resize(1)
    supervising = asyncio.create_task(scene.workers.supervise(scene.stop))
    with caplog.at_level(logging.ERROR, "rabbitry.cli._supervising"):
        scene.workers.resize(2)
        await eventually(lambda: scene.workers.size == 1, "the second one to fail")
    scene.workers.resize(3)
    assert scene.made == [1, 2]
    assert "from now on there are at most 1 worker processes" in caplog.text
    assert not supervising.done()
    scene.stop.set()
    assert await asyncio.wait_for(supervising, 90) == ExitCode.DONE


async def test_none_is_added_while_all_are_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = _Scene(Range(1, 3))
    end = Child.end

    async def end_under_a_backlog(child: Child, patience: float) -> None:
        scene.workers.resize(3)
        await end(child, patience)

    monkeypatch.setattr(Child, "end", end_under_a_backlog)
    scene.workers.resize(1)
    supervising = asyncio.create_task(scene.workers.supervise(scene.stop))
    await scene.children[1].ready.wait()
    scene.stop.set()
    assert await asyncio.wait_for(supervising, 90) == ExitCode.DONE
    assert scene.made == [1]


async def test_one_of_the_first_that_can_not_start_ends_all() -> None:
    scene = _Scene(Range(2, 3), 2)
    scene.workers.resize(2)
    assert await asyncio.wait_for(scene.workers.supervise(scene.stop), 90) == ExitCode.USAGE
