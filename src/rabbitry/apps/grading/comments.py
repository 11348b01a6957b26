"""Comments on lines of a submitted file. They travel in the History, in the hop of the person who made them.

A hop has them as `comments`, a list of objects with `line` and `text`, so that its signature covers them and programs
that know nothing of them pass them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rabbitry.exceptions import UsageError

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
    """A comment on a line. line: counted from 1; lines end with a line feed, and are those of the file as text."""

    line: int
    text: str


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
        if not 1 <= one.line <= last:
            raise UsageError(f"a comment on line {one.line}, and the file has the lines 1 to {last}")
        if not one.text.strip() or len(one.text) > LONGEST:
            raise UsageError(f"the comment on line {one.line} must have 1 to {LONGEST} characters")


def number_of_lines(text: str) -> int:
    """Return the number of lines of a text; a line feed at its end begins none."""
    return text.count("\n") + (not text.endswith("\n"))


def comments_of(hop: Mapping[str, Any]) -> tuple[LineComment, ...]:
    """Return the comments of a hop received over the wire, by line, without those that are invalid or too many."""
    given = hop.get(COMMENTS)
    found, room = [], MOST_TEXT
    for one in given[:MOST] if isinstance(given, list) else ():
        line, text = (one.get("line"), one.get("text")) if isinstance(one, dict) else (None, None)
        if not isinstance(line, int) or isinstance(line, bool) or not 1 <= line < 1 << 31 or not isinstance(text, str):
            continue
        room -= len(text)
        if text.strip() and len(text) <= LONGEST and room >= 0:
            found.append(LineComment(line, text.encode(errors="replace").decode()))
    return tuple(sorted(found, key=lambda one: one.line))


def as_sent(comments: Sequence[LineComment]) -> list[dict[str, Any]]:
    """Return comments as the value of a hop's `comments`."""
    return [asdict(one) for one in comments]
