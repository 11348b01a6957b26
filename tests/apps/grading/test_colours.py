"""Syntax colours: nothing of a text is lost, and its parts have their kinds."""

import sys

import pytest

from rabbitry.apps.grading.colours import MOST, coloured
from tests.apps.grading.similar.programs import JAVA, ORIGINAL


@pytest.mark.parametrize(
    ("text", "name"),
    [(ORIGINAL, "a.py"), (JAVA, "A.java"), ("\r\n\tx = '\u202e'\n\n", "a.py"), ("a\nb", "README"), ("", "")],
)
def test_the_pieces_make_the_text(text: str, name: str) -> None:
    assert "".join(piece for piece, _ in coloured(text, name)) == text


def test_pieces_have_the_kinds_of_their_tokens() -> None:
    found = coloured('def f(x):  # why\n    return "a" if x and 1 else len(x)\n', "a.py")
    kinds = {piece.strip(): kind for piece, kind in found}
    assert kinds["def"] == kinds["and"] == "keyword"
    assert (kinds["f"], kinds["# why"], kinds['"a"'], kinds["1"]) == ("name", "comment", "string", "number")
    assert kinds["len"] == "builtin"


def test_a_long_text_is_not_coloured() -> None:
    assert coloured("x = 1\n" * MOST, "a.py") == [("x = 1\n" * MOST, None)]


def test_a_text_that_cannot_be_read_is_not_coloured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert coloured("a = 1", "a.py") == [("a = 1", None)]
    assert "without colours: not read: FileNotFoundError" in caplog.text
