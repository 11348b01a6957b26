"""When tokens fall due; the publishing of them is tested with the limiter."""

import random

from rabbitry.flow._rate import parse_rate
from rabbitry.flow.worker._minter import Bucket

TEN = parse_rate("10/s")


def test_a_token_is_due_after_each_interval() -> None:
    number, bucket = Bucket(100.0).due(TEN, 0, 100.35)
    assert (number, round(bucket.until, 6)) == (3, 100.3)
    assert round(bucket.pause(TEN, 100.35), 6) == 0.05
    assert bucket.due(TEN, 0, 100.36) == (0, bucket)


def test_no_more_than_a_second_of_tokens_wait() -> None:
    assert Bucket(100.0).due(TEN, 0, 1000.0) == (10, Bucket(1000.0))
    assert Bucket(100.0).due(TEN, 7, 1000.0) == (3, Bucket(1000.0))
    number, full = Bucket(100.0).due(TEN, 10, 1000.0)
    assert (number, full) == (0, Bucket(1000.0, is_full=True))
    assert full.pause(TEN, 1000.0) == 0.25


def test_the_time_in_which_a_full_bucket_was_used_brings_no_token() -> None:
    assert Bucket(1000.0, is_full=True).due(TEN, 0, 1000.25) == (0, Bucket(1000.25))


def test_a_clock_that_was_ahead_stops_nothing() -> None:
    assert Bucket(100.5).due(TEN, 0, 100.0) == (0, Bucket(100.5))
    assert Bucket(5000.0).due(TEN, 0, 100.0) == (0, Bucket(100.0))


def test_a_slow_rate_is_looked_at_again_before_its_token_is_due() -> None:
    assert Bucket(100.0).pause(parse_rate("1/d"), 100.0) == 30.0


def test_whatever_is_used_and_when_never_more_than_the_rate_and_a_second_of_it() -> None:
    chance = random.Random(5)
    bucket, waiting, now, used = Bucket(0.0), 0, 0.0, []
    for _ in range(3000):
        number, bucket = bucket.due(TEN, waiting, now)
        waiting += number
        take = chance.choice([0, 0, waiting, chance.randint(0, waiting)])
        waiting -= take
        used += [now] * take
        now += chance.choice([0.01, 0.05, 0.3, 1.7])
    for first in range(0, len(used), 7):
        for last in range(first, min(len(used), first + 100)):
            assert last - first + 1 <= TEN.burst + TEN.per_second * (used[last] - used[first]) + 1
    assert len(used) > 500
