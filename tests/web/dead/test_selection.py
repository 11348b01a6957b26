"""Groups of dead letters, and which of them a request selects."""

import pytest

from rabbitry.amqp.client import Properties
from rabbitry.exceptions import UsageError
from rabbitry.flow.wiring.dead_letters import DeadLetter, letter_of
from rabbitry.telemetry import Masking
from rabbitry.web.dead.selection import MOST_GROUPS, Groups, Selection, kind_of, mark_of

_MASKING = Masking()


def _letter(body: bytes = b"{}", **headers: str) -> DeadLetter:
    named = {f"x-rabbitry-{name.replace('_', '-')}": value for name, value in headers.items()}
    return letter_of(Properties(headers=named, message_id=headers.pop("id", None)), body)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("KeyError: 'price'", "KeyError: 'price'"),
        ("order 17 of 2026-11-27 has no price", "order # of # has no price"),
        ("no file 3f2a9c0d-11e4-4e55-9a01-0242ac120002 here", "no file # here"),
        ("<Thing at 0x7f00c0ffee>", "<Thing at #>"),
        ("a facade of decades", "a facade of decades"),
        ("\n first\nsecond", "first"),
        ("no login token=ab12 for 7", "no login token=••• for #"),
        ("", ""),
        ("x" * 1000, "x" * 300),
    ],
)
def test_errors_of_one_kind_differ_by_numbers_and_ids_alone(error: str, kind: str) -> None:
    assert kind_of(error, _MASKING) == kind


def test_errors_made_to_slow_the_sorting_down_are_cut() -> None:
    for text in ("a-" * 2000, "-" * 4000, "f" * 4000, "a" * 7 + " " * 4000):  # no backtracking that takes for ever
        assert kind_of(text, _MASKING) == text.strip()[:300]


def test_a_mark_is_of_one_message_and_its_copies() -> None:
    letters = [
        _letter(b"a", id="1"), _letter(b"b", id="1"), _letter(b"a", id="2"), _letter(b"a", id="1", failed_at="x"),
        _letter(b"a", id="\udcff"),
    ]  # fmt: skip
    marks = [mark_of(letter, 1) for letter in letters]
    assert len({*marks, mark_of(letters[0], 2)}) == 6
    assert mark_of(_letter(b"a", id="1"), 1) == marks[0]


def test_groups_are_counted_with_their_first_and_last_time() -> None:
    groups = Groups(_MASKING)
    for at in ("2026-02", "2026-01", "2026-03"):
        groups.add(_letter(stage="s", reason="failed", error=f"order {at}", failed_at=at))
    groups.add(_letter(stage="t", reason="failed", error="order 1"))
    first, second = groups.shown()
    assert (first["count"], first["first"], first["last"]) == (3, "2026-01", "2026-03")
    assert (first["kind"], first["example"]) == ("order #-#", "order 2026-02")
    assert (second["stage"], second["count"]) == ("t", 1)


def test_the_number_of_groups_is_bounded() -> None:
    groups = Groups(_MASKING)
    for number in range(MOST_GROUPS + 5):
        groups.add(_letter(stage="abc"[number % 3] * (number // 3 + 1)))
    assert (len(groups.shown()), groups.others) == (MOST_GROUPS, 5)


def test_a_selection_is_all_a_group_or_one() -> None:
    letter = _letter(stage="s", reason="failed", error="no 1")
    group = Selection("/", "shop", stage="s", reason="failed", kind="no #")
    one = Selection("/", "shop", mark=mark_of(letter, 2))
    everything = Selection("/", "shop", everything=True)
    for selection in (group, one, everything):
        selection.check()
        assert selection.takes(letter, 2, _MASKING)
    other = _letter(stage="s", reason="failed", error="yes")
    assert [selection.takes(other, 2, _MASKING) for selection in (group, everything)] == [False, True]
    assert not one.takes(_letter(b"other", stage="s", reason="failed", error="no 1"), 5, _MASKING)


@pytest.mark.parametrize(
    "selection",
    [
        Selection("/", "shop"),
        Selection("/", "shop", stage="s"),
        Selection("/", "shop", stage="s", reason="r"),
        Selection("/", "shop", everything=True, mark="m"),
        Selection("/", "shop", stage="s", mark="m"),
        Selection("/", "shop", stage="s", reason="r", kind="k", everything=True),
    ],
)
def test_what_is_selected_must_be_explicit(selection: Selection) -> None:
    with pytest.raises(UsageError, match="select dead letters in one way"):
        selection.check()
