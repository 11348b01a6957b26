"""Pauses grow from attempt to attempt, up to a limit, and differ from program to program."""

import pytest

from rabbitry.runtime.backoff import Backoff


@pytest.mark.parametrize(("attempt", "most"), [(1, 2.0), (2, 3.0), (3, 4.5), (8, 30.0), (10**6, 30.0)])
def test_pauses_grow_up_to_the_longest_one(attempt: int, most: float) -> None:
    pauses = {Backoff(2.0, 30.0, growth=1.5, spread=0.2).pause(attempt) for _ in range(50)}
    assert 0.8 * most <= min(pauses) < max(pauses) <= most


def test_pauses_without_jitter_are_exact() -> None:
    backoff = Backoff(0.5, 30.0, spread=0)
    assert [backoff.pause(attempt) for attempt in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_first_pause_beyond_the_longest_is_cut() -> None:
    assert Backoff(600.0, 0.01).pause(1) <= 0.01
