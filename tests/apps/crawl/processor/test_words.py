"""Keywords, fingerprints and languages of texts."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.crawl.processor.language import declared_language, language_of
from rabbitry.apps.crawl.processor.words import _hashes, fingerprint_of, keywords_of, words_of

TEXT = (
    "The otter lives at the river and eats fish. In winter the river freezes, and the otter makes a hole in the ice. "
    "An otter needs clean water, and fish that live in it; where the water is dirty there are no otters and no fish. "
)


def _difference(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


def _words(number: int, seed: int) -> list[str]:
    choose = random.Random(seed)
    return [choose.choice(["river", "otter", "fish", "ice", "winter", "hole", "water"]) + "s"[: choose.randrange(2)]
            for _ in range(number)]  # fmt: skip


def test_equal_texts_have_the_same_fingerprint_in_every_process() -> None:
    code = f"from rabbitry.apps.crawl.processor.words import *; print(fingerprint_of(words_of({TEXT!r})))"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(other) == fingerprint_of(words_of(TEXT))
    assert -(2**63) <= int(other) < 2**63


def test_texts_with_few_changes_have_near_fingerprints() -> None:
    words = _words(2000, 1)
    changed = list(words)
    changed[700], changed[1500] = "elsewhere", "now"
    assert _difference(fingerprint_of(words), fingerprint_of(changed)) <= 5
    assert _difference(fingerprint_of(words), fingerprint_of(["now", *words])) <= 5


def test_the_same_words_in_another_order_have_another_fingerprint() -> None:
    words = [f"word{number}" for number in range(500)]
    assert _difference(fingerprint_of(words), fingerprint_of(random.Random(1).sample(words, 500))) > 15


def test_the_fingerprint_is_the_majority_of_all_pairs() -> None:
    """Compare with a plain version, bit by bit."""
    words = _words(333, 2)
    counts = [0] * 64
    for one, other in pairwise(words):
        following = int.from_bytes(_hashes[other], "little")
        rotated = (following << 24 | following >> 40) & (2**64 - 1)
        pair = int.from_bytes(_hashes[one], "little") ^ rotated
        for bit in range(64):
            counts[bit] += 1 if pair >> bit & 1 else -1
    assert fingerprint_of(words) & (2**64 - 1) == sum(1 << bit for bit in range(64) if counts[bit] > 0)


def test_too_few_words_have_no_fingerprint() -> None:
    assert fingerprint_of([]) == 0
    assert fingerprint_of(words_of("Page not found")) == 0
    assert fingerprint_of(["a"] * 10) != 0


def test_keywords_are_frequent_and_not_common() -> None:
    keywords = keywords_of(words_of(TEXT), "Of otters", "en")
    assert keywords[0] == "otters"
    assert set(keywords[:5]) >= {"otter", "fish", "river"}
    assert not {"the", "and", "it", "where"} & set(keywords)
    assert len(keywords) <= 10


def test_keywords_of_a_language_without_stop_words_and_of_one_without_spaces() -> None:
    assert keywords_of(words_of("ala bala ala"), "", "xx")[:2] == ["ala", "bala"]
    assert "天气" in keywords_of(words_of("今天的天气很好。明天的天气不好。天气预报。"), "", "zh")
    assert keywords_of([], "", "") == []


@pytest.mark.parametrize(
    ("text", "declared", "language"),
    [
        (TEXT * 2, "", "en"),
        (TEXT * 2, "de", "en"),  # templates name the program that made them
        ("Der Otter lebt am Fluss und frisst Fische, auch im Winter, wenn es kalt ist. " * 5, "en", "de"),
        ("Der Otter", "nl", "nl"),
        ("", "fr", "fr"),
        ("", "", ""),
        ("これは日本語のページです。", "", "ja"),
        ("これは日本語のページです。" * 50, "en", "ja"),
        ("这是一个中文网页，介绍天气预报和新闻。", "", "zh"),
        ("日本国憲法", "ja", "ja"),
        ("이것은 한국어 페이지입니다. 날씨와 뉴스", "", "ko"),
        ("นี่คือหน้าเว็บภาษาไทย", "", "th"),
        ("Это обычная страница на русском языке о погоде и новостях", "", "ru"),
        ("1234 5678 " * 100, "", ""),
    ],
)
def test_the_language_is_that_of_the_text(text: str, declared: str, language: str) -> None:
    assert language_of(text, declared) == language


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("en-GB", "en"),
        ("DE", "de"),
        (" fr, en", "fr"),
        ("zh_Hans", "zh"),
        ("x-default", ""),
        ("english", ""),
        (None, ""),
    ],
)
def test_a_declared_language_is_its_primary_tag(tag: str | None, language: str) -> None:
    assert declared_language(tag) == language


@given(st.text(), st.text(max_size=20), st.text(max_size=5))
def test_any_text_has_keywords_and_a_fingerprint(text: str, title: str, language: str) -> None:
    words = words_of(text)
    fingerprint_of(words)
    keywords_of(words, title, language)
    language_of(text, language)
