"""Two attempts side by side, of archives file by file."""

import pytest

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.comparison import Attempt, compared
from rabbitry.exceptions import UsageError
from tests.apps.grading.test_contents import zipped

_OLD = zipped(("a.py", b"a = 1\nb = 2\n"), ("gone.py", b"x\n"), ("same.py", b"s\n"), ("z.bin", b"\0"))
_NEW = zipped(("all/a.py", b"a = 1\nb = 3\n"), ("all/fresh.py", b"y\n"), ("all/same.py", b"s\n"), ("all/z.bin", b"\1"))


def _sides(found: dict[str, object]) -> list[tuple[object, ...]]:
    rows = found["rows"]
    assert isinstance(rows, list)
    return [(row["kind"], row["old"], row["before"], row["new"], row["after"]) for row in rows]


def test_archives_are_compared_by_the_paths_of_their_files() -> None:
    before, after = Attempt("old.zip", _OLD), Attempt("new.zip", _NEW)
    found = compared(before, after)
    assert [(one["path"], one["change"]) for one in found["files"]] == [
        ("a.py", "changed"), ("fresh.py", "new"), ("gone.py", "removed"), ("z.bin", "changed")
    ]  # fmt: skip
    assert (found["name"], found["path"], found["unlisted"], found["is_binary"]) == ("old.zip", "a.py", 0, False)
    assert _sides(found) == [("same", 1, "a = 1", 1, "a = 1"), ("changed", 2, "b = 2", 2, "b = 3")]
    assert _sides(compared(before, after, "fresh.py")) == [("changed", None, "", 1, "y")]
    assert _sides(compared(before, after, "gone.py")) == [("changed", 1, "x", None, "")]
    assert _sides(compared(before, after, "same.py")) == []
    assert compared(before, after, "z.bin")["is_binary"]
    with pytest.raises(NoSuchID, match=r"has no file 'b\.py'"):
        compared(before, after, "b.py")


def test_a_file_is_compared_with_the_one_of_its_name_in_an_archive() -> None:
    found = compared(Attempt("a.py", b"a = 1\nb = 2\n"), Attempt("new.zip", _NEW), "a.py")
    assert _sides(found)[1:] == [("changed", 2, "b = 2", 2, "b = 3")]
    assert [one["change"] for one in found["files"]] == ["changed", "new", "new", "new"]


def test_equal_archives_have_no_changes() -> None:
    found = compared(Attempt("a.zip", _OLD), Attempt("b.zip", _OLD))
    assert (found["files"], found["path"], found["rows"]) == ([], None, [])


def test_files_that_are_no_archives_are_compared_whatever_their_names() -> None:
    found = compared(Attempt("a.py", "ä\n".encode("cp1252")), Attempt("b.py", "ä\nb\n".encode("utf-16")))
    assert (found["files"], found["path"]) == (None, None)
    assert _sides(found) == [("same", 1, "ä", 1, "ä"), ("changed", None, "", 2, "b")]
    with pytest.raises(UsageError, match="is not text"):
        compared(Attempt("a.py", b"\0"), Attempt("b.py", b"x"))


def test_an_archive_that_is_not_safe_is_not_compared() -> None:
    with pytest.raises(UsageError, match=r"a name with `\.\.`"):
        compared(Attempt("a.zip", zipped(("../a.py", b"x"))), Attempt("b.zip", _NEW))
