"""The lines that a student changed since the attempt before, both texts side by side."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Final

from rabbitry.apps.grading.exceptions import LexingFailed
from rabbitry.apps.grading.lexing import Lexing
from rabbitry.exceptions import UsageError

_CPU_SECONDS: Final = 2
"""CPU time for the comparison: lines that repeat often take quadratic time. Two texts of 5,000 lines take 0.1 s."""
_AROUND: Final = 3
"""Equal lines shown before and after a change."""


def changes(before: str, after: str) -> list[dict[str, Any]]:
    """Return the changed lines of two texts and some around them, as rows. Blocks, for up to some seconds.

    Raises:
        UsageError: The texts can't be compared within the limits.
    """
    try:
        with Lexing(_CPU_SECONDS) as process:
            return process.run(_rows, before, after)
    except LexingFailed as error:
        raise UsageError(f"the two attempts could not be compared: {error}") from error


def _rows(before: str, after: str) -> list[dict[str, Any]]:
    """Return the rows: `old` and `new` are the lines' numbers, None where that side has no line."""
    olds, news = ([] if text == "" else text.removesuffix("\n").split("\n") for text in (before, after))
    rows: list[dict[str, Any]] = []
    shown = 0
    for group in SequenceMatcher(None, olds, news, autojunk=False).get_grouped_opcodes(_AROUND):
        if group[0][1] > shown:
            rows.append(_skipped(group[0][1] - shown))
        for kind, old, old_end, new, new_end in group:
            for one, other in zip_longest(range(old, old_end), range(new, new_end)):
                rows.append({
                    "kind": "same" if kind == "equal" else "changed",
                    "old": None if one is None else one + 1,
                    "new": None if other is None else other + 1,
                    "before": "" if one is None else olds[one],
                    "after": "" if other is None else news[other],
                    "skipped": 0,
                })  # fmt: skip
        shown = group[-1][2]
    if shown < len(olds) and rows:
        rows.append(_skipped(len(olds) - shown))
    return rows


def _skipped(number: int) -> dict[str, Any]:
    return {"kind": "skipped", "old": None, "new": None, "before": "", "after": "", "skipped": number}
