"""Comments on lines of a submitted file. They travel in the History, in the hop of the person who made them.

A hop has them as `comments`, a list of objects with `line`, `text` and, in a notebook, `cell`. Therefore its signature
covers them, and programs that know nothing of them pass them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeGuard

from rabbitry.exceptions import UsageError

MOST_LINES: Final = 1_000_000_000
"""The largest number of a line or cell."""
COMMENTS: Final = "comments"
"""The key of a hop."""
MOST: Final = 200
"""Comments of one hop."""
LONGEST: Final = 2_000
"""Characters of a comment."""
MOST_TEXT: Final = 100_000
"""Characters of all comments of a hop; each later hop carries them on."""


@dataclass(frozen=True, slots=True)
class LineComment:
    """A comment on a line. line: counted from 1; lines end with a line feed, and are those of the file as text.

    cell: of a notebook, counted from 1, in which the line is; None for a line of the file.
    """

    line: int
    text: str
    cell: int | None = None


def check_comments(comments: Sequence[LineComment], solution: str | None) -> None:
    """Raise UsageError if comments can't be made. solution: the text that they are on; None if the file is no text."""
    if not comments:
        return
    if solution is None:
        raise UsageError("comments on lines, and the file is not text: write them into the feedback or remark")
    if len(comments) > MOST or sum(len(one.text) for one in comments) > MOST_TEXT:
        raise UsageError(f"a decision has at most {MOST} comments on lines, with {MOST_TEXT} characters in all")
    last = number_of_lines(solution)
    for one in comments:
        # A notebook's cells are not counted: reading it takes a process with limits.
        most = last if one.cell is None else MOST_LINES
        if not 1 <= one.line <= most or not (one.cell is None or 1 <= one.cell <= MOST_LINES):
            place = place_of(asdict(one))
            raise UsageError(f"a comment on {place}, and lines and cells are counted from 1, lines here to {most}")
        if not one.text.strip() or len(one.text) > LONGEST:
            raise UsageError(f"the comment on {place_of(asdict(one))} must have 1 to {LONGEST} characters")


def number_of_lines(text: str) -> int:
    """Return the number of lines of a text; a line feed at its end begins none."""
    return text.count("\n") + (not text.endswith("\n"))


def comments_of(hop: Mapping[str, Any]) -> tuple[LineComment, ...]:
    """Return the comments of a hop received over the wire, by line, without those that are invalid or too many."""
    given = hop.get(COMMENTS)
    found, room = [], MOST_TEXT
    for one in given[:MOST] if isinstance(given, list) else ():
        line, text, cell = (one.get("line"), one.get("text"), one.get("cell")) if isinstance(one, dict) else [None] * 3
        if not _is_number(line) or not (cell is None or _is_number(cell)) or not isinstance(text, str):
            continue
        room -= len(text)
        if text.strip() and len(text) <= LONGEST and room >= 0:
            found.append(LineComment(line, text.encode(errors="replace").decode(), cell))
    return tuple(sorted(found, key=lambda one: (one.cell or 0, one.line)))


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_LINES


def as_sent(comments: Sequence[LineComment]) -> list[dict[str, Any]]:
    """Return comments as the value of a hop's `comments`."""
    return [{name: value for name, value in asdict(one).items() if value is not None} for one in comments]


def place_of(comment: Mapping[str, Any]) -> str:
    """Return the place of a comment, given as JSON data, for people."""
    cell = comment.get("cell")
    return f"line {comment['line']}" if cell is None else f"cell {cell}, line {comment['line']}"
