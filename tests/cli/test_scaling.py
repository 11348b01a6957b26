"""How many worker processes run, decided look by look."""

import pytest

from rabbitry.cli._scaling import Backlog, Bounds, Range, Rules, Step, parse_range
from rabbitry.exceptions import UsageError
from tests.support import commands

_BOUNDS = Bounds(backlog=100, age=10.0, quiet=60.0)


class _Scene:
    """Rules that look once a second."""

    def __init__(self, least: int, most: int) -> None:
        self.rules = Rules(Range(least, most), _BOUNDS)
        self.running = least
        self.now = 1000.0

    def look(self, waiting: int, age: float = 0.0) -> Step | None:
        self.now += 1
        step = self.rules.decide(self.now, self.running, Backlog(waiting, age))
        if step is not None:
            self.running = step.size
        return step

    def looks_until_a_step(self, waiting: int, age: float = 0.0, most: int = 5000) -> int:
        return next(number for number in range(1, most) if self.look(waiting, age) is not None)


@pytest.mark.parametrize(("text", "found"), [("1", (1, 1)), ("4", (4, 4)), ("2:2", (2, 2)), ("1:1000", (1, 1000))])
def test_a_range_is_a_number_or_two(text: str, found: tuple[int, int]) -> None:
    assert parse_range(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("4:2", "'4:2' has the greater number first: give MIN:MAX, e.g. 2:4"),
        ("0:3", "'0:3' is out of range: give numbers from 1 to 1000"),
        ("0", "'0' is out of range"),
        ("1:1001", "'1:1001' is out of range"),
        ("a:b", "'a:b' is no number of processes: give N or MIN:MAX, e.g. 4 or 1:8"),
        ("1:", "'1:' is no number"),
        ("-1", "'-1' is no number"),
        ("1:2:3", "'1:2:3' is no number"),
        ("", "'' is no number"),
        ("1\n", r"'1\\n' is no number"),
    ],
)
def test_another_range_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"^--processes {why}"):
        parse_range(text)


def test_the_command_refuses_a_range_in_one_line() -> None:
    done = commands.run("worker", "no_such_module:app", "--processes", "4:2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rabbitry: --processes '4:2' has the greater number first: give MIN:MAX, e.g. 2:4\n"


def test_a_backlog_is_answered_at_once_and_within_the_range() -> None:
    scene = _Scene(1, 4)
    assert scene.look(100) is None
    assert scene.look(101) == Step(2, "messages waiting: 101")
    assert scene.look(200) is None
    assert scene.look(100_000) == Step(4, "messages waiting: 100000")
    assert scene.look(100_000, 1000.0) is None


def test_messages_that_wait_for_long_bring_one_process_in_each_such_time() -> None:
    scene = _Scene(1, 3)
    assert scene.look(1, 0.0) is None
    assert scene.looks_until_a_step(1, 11.0) == 11  # the first processes have that time too
    assert scene.running == 2
    assert scene.looks_until_a_step(1, 22.0) == 11
    assert scene.running == 3
    assert [scene.look(1, 1000.0) for _ in range(200)] == [None] * 200


def test_after_a_quiet_time_there_is_one_less_down_to_the_least() -> None:
    scene = _Scene(2, 4)
    assert scene.look(400) == Step(4, "messages waiting: 400")
    assert [scene.look(301) for _ in range(200)] == [None] * 200, "all four are needed"
    assert scene.looks_until_a_step(300) == 60
    assert scene.running == 3
    assert scene.looks_until_a_step(0) == 60
    assert scene.running == 2
    assert [scene.look(0) for _ in range(200)] == [None] * 200


def test_a_load_between_two_numbers_does_not_flap() -> None:
    """Each step down that has to be undone at once makes the next come later, up to 16 times as late."""
    scene = _Scene(1, 3)
    scene.look(200)
    quiet = []
    for _ in range(7):
        quiet.append(scene.looks_until_a_step(0))
        assert scene.running == 1
        assert scene.look(200) is not None
    assert quiet == [60, 120, 240, 480, 960, 960, 960]
    scene.look(300)
    assert [scene.looks_until_a_step(0) for _ in range(2)] == [960, 960]
    scene.look(0)
    assert scene.running == 1
    for _ in range(1000):
        scene.look(0)
    scene.look(200)
    assert scene.looks_until_a_step(0) == 60, "two steps down in a row set it back"


def test_a_time_without_looks_is_not_quiet() -> None:
    scene = _Scene(1, 2)
    scene.look(200)
    scene.now += 1000  # the broker was away
    assert scene.looks_until_a_step(0) == 61
