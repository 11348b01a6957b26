"""The filter of keys has every key that was added to it, and few others."""

import random

import pytest

from rabbitry.apps.crawl.keeper import bloom
from rabbitry.apps.crawl.keeper.bloom import Filter


def keys(seed: int, count: int) -> list[int]:
    """Return keys of 20 hosts, as those of addresses."""
    chance = random.Random(seed)
    hosts = [chance.getrandbits(12) << 44 for _ in range(20)]
    return [chance.choice(hosts) | chance.getrandbits(44) for _ in range(count)]


def test_all_keys_that_were_added_and_few_others_may_be_in_it() -> None:
    added, others = keys(1, 80_000), keys(2, 10_000)
    found = Filter()
    assert found.may_have(added) == []
    found.add(added)
    assert not found.is_full
    assert found.may_have(added) == added
    assert len(found.may_have(others)) < 0.03 * len(others)


def test_it_is_full_once_it_is_wrong_too_often_unless_it_is_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Filter(100_000)
    full = []
    for seed in (1, 2):
        found.add(keys(seed, 100_000))
        full.append(found.is_full)
    assert full == [False, True]
    assert len(found) == 200_000
    monkeypatch.setattr(bloom, "_LARGEST", 1 << 14)
    found = Filter(10**9)
    found.add(keys(3, 150_000))
    assert not found.is_full
