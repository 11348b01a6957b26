"""How often a condition is looked at, and what is raised if it never holds."""

import time

import pytest

from tests.support.waiting import Looks, eventually, eventually_awaited, eventually_blocking


@pytest.mark.parametrize(
    ("waited", "took", "pause"),
    [
        (0.0, 0.0, 0.01),
        (0.3, 0.0, 0.01),
        (2.0, 0.0, 0.04),
        (60.0, 0.0, 0.1),
        (0.3, 0.02, 0.18),  # a tenth of the time
        (60.0, 5.0, 1.0),
    ],
)
def test_a_dear_condition_and_one_that_has_not_held_for_long_are_looked_at_less_often(
    waited: float, took: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    looks = Looks(90)
    now += waited - took
    looks.begin()
    now += took
    assert looks.pause("it") == pytest.approx(pause)


async def test_what_never_holds_is_named_when_the_time_is_up() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(AssertionError, match=r"not within 0\.02 s: a miracle"):
        await eventually(lambda: False, "a miracle", within=0.02)
    with pytest.raises(AssertionError, match=r"not within 0\.02 s: a miracle"):
        await eventually_awaited(never, "a miracle", within=0.02)
    with pytest.raises(AssertionError, match=r"not within 0\.02 s: a miracle"):
        eventually_blocking(lambda: False, "a miracle", within=0.02)


async def test_the_value_that_held_is_returned() -> None:
    values = iter([0, None, 7])
    assert await eventually(lambda: next(values), "a number") == 7
