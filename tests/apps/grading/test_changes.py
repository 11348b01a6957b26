"""The changed lines of two attempts, also of texts that are hard to compare."""

import random

import pytest

from rabbitry.apps.grading import changes as module
from rabbitry.apps.grading.changes import changes
from rabbitry.exceptions import UsageError


def test_changed_lines_stand_side_by_side_with_some_around_them() -> None:
    before = "".join(f"{number}\n" for number in range(1, 21))
    after = before.replace("10\n", "ten\nmore\n").replace("20\n", "")
    rows = changes(before, after)
    assert [(row["old"], row["new"], row["before"], row["after"]) for row in rows if row["kind"] == "changed"] == [
        (10, 10, "10", "ten"), (None, 11, "", "more"), (20, None, "20", "")
    ]  # fmt: skip
    assert [row["skipped"] for row in rows if row["kind"] == "skipped"] == [6, 3]
    assert [row["old"] for row in rows if row["kind"] == "same"] == [7, 8, 9, 11, 12, 13, 17, 18, 19]
    assert changes(before, before) == []


def test_lines_left_out_at_the_end_are_counted() -> None:
    same = "x\n" * 9
    assert changes(f"a\n{same}", f"b\n{same}")[-1]["skipped"] == 6


def test_texts_that_take_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPU_SECONDS", 1)
    lines = random.Random(1).choices("ab", k=40_000)
    before, after = "\n".join(lines[:20_000]), "\n".join(lines[20_000:])
    with pytest.raises(UsageError, match="could not be compared: not read within 1 s of CPU time"):
        changes(before, after)
