"""Ids by their beginnings."""

import pytest

from rabbitry._ids import NoSuchID, pick

IDS = ["abcd", "abcd", "abce", "ab", "xyz"]


def test_an_id_or_its_unique_prefix_is_found() -> None:
    assert pick("abcd", IDS, "letter") == "abcd"  # it is there twice
    assert pick("ab", IDS, "letter") == "ab"  # though others begin so
    assert pick("x", IDS, "letter") == "xyz"


@pytest.mark.parametrize(
    ("given", "why", "is_ambiguous"),
    [
        ("abc", "several ids: abcd, abce", True),
        ("abcde", "no letter", False),
        ("", "no letter", False),
        ("ABC", "no", False),
    ],
)
def test_an_unknown_or_ambiguous_prefix_is_refused(given: str, why: str, is_ambiguous: bool) -> None:
    with pytest.raises(NoSuchID, match=why) as raised:
        pick(given, IDS, "letter")
    assert raised.value.is_ambiguous == is_ambiguous


def test_no_ids_are_listed_for_the_public() -> None:
    with pytest.raises(NoSuchID, match="at least 3"):
        pick("x", IDS, "letter", least=3)
    with pytest.raises(NoSuchID) as raised:
        pick("abc", IDS, "letter", least=3)
    assert "abcd" not in str(raised.value)
