"""Fingerprints: the same for programs that differ in names, comments and order, others for other programs."""

from collections.abc import Sequence

from rabbitry.apps.grading.similar.documents import joined
from rabbitry.apps.grading.similar.fingerprints import MOST_TOKENS, all_runs, lexed, read, winnowed
from tests.apps.grading.similar.programs import JAVA, ORIGINAL, STARTER


def fingerprints(text: str, name: str = "a.py", starter: str = "") -> Sequence[int]:
    """Return the fingerprints of a program."""
    document, begun = joined([(name, text.encode())]), joined([("a.py", starter.encode())])
    assert document is not None
    return winnowed(lexed(document), all_runs([begun]) if begun is not None else ())


def test_names_texts_numbers_comments_and_layout_do_not_count() -> None:
    other = ORIGINAL.replace("distances", "d").replace('"inf"', '"Infinity"').replace("    ", "  # x\n\t")
    same = ORIGINAL.replace("candidate", "other_name").replace("found", "f").replace("3", "4")
    assert len(fingerprints(ORIGINAL)) > 20
    assert fingerprints(same) == fingerprints(ORIGINAL)
    assert len(set(fingerprints(other)) & set(fingerprints(ORIGINAL))) > 20
    assert fingerprints(JAVA.replace("cents", "balance").replace("amount", "sum"), "A.java") == fingerprints(
        JAVA, "A.java"
    )


def test_starter_code_has_no_fingerprints() -> None:
    assert len(fingerprints(STARTER, starter=STARTER)) == 0
    rest = fingerprints(ORIGINAL, starter=STARTER)
    assert 5 < len(rest) < len(fingerprints(ORIGINAL))


def test_a_short_text_has_none_and_a_long_one_is_cut() -> None:
    assert len(fingerprints("x = 1\n")) == 0
    long = joined([("a.py", b"x\n" * (MOST_TOKENS + 9))])
    assert long is not None
    assert read(long)[1] == "only its first 100000 tokens are compared"


def test_comments_hide_no_code() -> None:
    hidden, plain = joined([("a.py", f"{'# x' * 400_000}\n{ORIGINAL}".encode())]), joined([("a.py", ORIGINAL.encode())])
    assert hidden is not None
    assert plain is not None
    assert read(hidden) == (read(plain)[0], None)
