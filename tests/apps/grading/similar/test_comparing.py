"""Pairs of programs, and their matching parts."""

from array import array
from collections.abc import Sequence

from rabbitry.apps.grading.similar.comparing import MOST_PAIRS, Pair, Part, pairs, parts
from rabbitry.apps.grading.similar.course import LEAST
from rabbitry.apps.grading.similar.documents import Document, joined
from rabbitry.apps.grading.similar.fingerprints import all_runs
from tests.apps.grading.similar.programs import DISGUISED, ORIGINAL, OWN, STARTER
from tests.apps.grading.similar.test_fingerprints import fingerprints


def _document(text: str) -> Document:
    found = joined([("a.py", text.encode())])
    assert found is not None
    return found


def _found(texts: Sequence[str], starter: str = "") -> list[Pair]:
    return pairs([fingerprints(text, starter=starter) for text in texts], least=LEAST)


def test_renamed_and_reordered_programs_are_found_and_unrelated_ones_are_not() -> None:
    (pair,) = _found([OWN, ORIGINAL, DISGUISED])
    assert (pair.one, pair.other) == (1, 2)
    assert pair.similarity > 0.7
    assert pairs([fingerprints(OWN), fingerprints(ORIGINAL)], least=0.05) == []


def test_a_copied_function_in_a_longer_program_is_found_by_its_share() -> None:
    copied = ORIGINAL[ORIGINAL.index("def shortest") : ORIGINAL.index("def read")]
    found = pairs([fingerprints(OWN + copied), fingerprints(ORIGINAL)], least=0.2)
    assert [pair.contained > 0.3 for pair in found] == [True]


def test_programs_that_share_only_starter_code_are_not_similar() -> None:
    mine = STARTER + "\n\ndef shortest(graph, start):\n    return {}\n"
    assert len(_found([mine, ORIGINAL])) == 1
    assert _found([mine, ORIGINAL], STARTER) == []


def test_what_most_submissions_share_is_left_out() -> None:
    base = array("q", range(100))
    own = [array("q", [*base, *range(1000 * number, 1000 * number + 50)]) for number in range(1, 31)]
    assert pairs(own, least=0.1) == []
    assert len(pairs(own, least=0.1, common=30)) == 30 * 29 // 2


def test_the_most_similar_pairs_come_first_and_their_number_is_bounded() -> None:
    own = [array("q", range(number, number + 100)) for number in range(200)]
    found = pairs(own, least=0.3, common=200)
    assert len(found) == MOST_PAIRS
    assert found == sorted(found, key=lambda pair: -pair.similarity)
    assert found[0].similarity == 0.99


def test_matching_parts_are_marked_in_both_texts_whatever_their_order() -> None:
    left, right = parts(_document(ORIGINAL), _document(DISGUISED))
    assert "".join(part.text for part in left) == ORIGINAL
    assert "".join(part.text for part in right) == DISGUISED

    def of(found: Sequence[Part], text: str) -> int | None:
        return next(part.block for part in found if text in part.text)

    for mine, theirs in (("heapq.heappop(queue)", "heapq.heappop(heap)"), ("parts = line", "cells = row")):
        assert of(left, mine) == of(right, theirs) is not None
    assert of(right, "My own work") is None
    assert {part.block for part in left} == {part.block for part in right}


def test_no_part_of_starter_code_or_of_another_program_is_marked() -> None:
    starter = all_runs([_document(STARTER)])
    left, _ = parts(_document(ORIGINAL), _document(ORIGINAL), starter)
    assert "heappop" in "".join(part.text for part in left if part.block)
    assert "enumerate" not in "".join(part.text for part in left if part.block)
    assert [part.block for part in parts(_document(ORIGINAL), _document(OWN))[0]] == [None]
