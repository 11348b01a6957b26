"""Hashes and buckets, compared with values that Erlang/OTP 25 and RabbitMQ 3.10.8 print."""

from itertools import islice

import pytest

from rabbitry.broker._exchanges.jump_hash import UNDEFINED, bucket, hash_field, hash_text
from rabbitry.broker._exchanges.jump_hash import _uniform as uniform


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 13_708_901),
        (b"a", 112_802_447),
        (b"abc", 98_228_475),
        (b"hello world, this is longer than twelve", 132_132_998),
    ],
)
def test_a_text_is_hashed_as_erlang_does(data: bytes, expected: int) -> None:
    assert hash_text(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", 116_351_706), (b"v", 83_007_481), (b"hello world, this", 122_314_790)]
)
def test_a_header_is_hashed_as_erlang_does(data: bytes, expected: int) -> None:
    assert hash_field("longstr", data) == expected


def test_numbers_are_those_of_erlangs_generator() -> None:
    expected = [
        0.3524409836262642,
        0.6709089196544433,
        0.21832916993242477,
        0.7929846687514441,
        0.7612419593308178,
        0.6138986130443359,
        0.5252812945478292,
        0.021160251099106752,
        0.15474854507239794,
        0.839212325981632,
        0.13820928892182763,
        0.5470155014649807,
        0.5840201620703597,
        0.11438759525279651,
        0.4697610936604175,
        0.6948767425135707,
        0.38759963045025025,
        0.7574745945310546,
        0.43970156834300234,
        0.16813272179851163,
    ]
    assert list(islice(uniform(5), len(expected))) == expected


def test_a_key_stays_or_moves_to_a_new_bucket_when_buckets_are_added() -> None:
    for key in (UNDEFINED, *map(hash_text, (b"%d" % number for number in range(200)))):
        chosen = [bucket(key, buckets) for buckets in range(1, 40)]
        assert chosen[0] == 0
        for before, buckets in enumerate(range(2, 40)):
            assert chosen[before + 1] in (chosen[before], buckets - 1)


def test_buckets_get_equal_shares() -> None:
    found = [bucket(hash_text(b"%d" % number), 5) for number in range(5_000)]
    assert all(850 < found.count(number) < 1_150 for number in range(5))
