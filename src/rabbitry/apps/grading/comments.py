"""Comments on lines of a submitted file. They travel in the History, in the hop of the person who made them.

A hop has them as `comments`, a list of objects with `line`, `text`, in a notebook `cell` and, in an archive, `file`.
Therefore its signature covers them, and programs that know nothing of them pass them on.
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
"""Characters of all comments of a hop, with the paths of their files; each later hop carries them on."""
LONGEST_PATH: Final = 1_000
"""Characters of the path of a file in an archive."""


_KEYS: Final = ("line", "text", "cell", "file")


@dataclass(frozen=True, slots=True)
class LineComment:
    """A comment on a line. line: counted from 1; lines end with a line feed, and are those of the file as text.

    cell: of a notebook, counted from 1, in which the line is; None for a line of the file. file: the path of the file
    in a submitted archive, as it is unpacked; None if the submission is no archive.
    """

    line: int
    text: str
    cell: int | None = None
    file: str | None = None

    @property
    def size(self) -> int:
        """The characters that it takes in a hop."""
        return len(self.text) + len(self.file or "")


def check_comments(comments: Sequence[LineComment], solution: str | None, *, is_archive: bool = False) -> None:
    """Raise UsageError if comments can't be made.

    Args:
        comments: The comments of a decision.
        solution: The text that they are on; None if the file is not text.
        is_archive: Whether they are on files in an archive.
    """
    if not comments:
        return
    if solution is None and not is_archive:
        raise UsageError("comments on lines, and the file is not text: write them into the feedback or remark")
    if len(comments) > MOST or sum(one.size for one in comments) > MOST_TEXT:
        raise UsageError(f"a decision has at most {MOST} comments on lines, with {MOST_TEXT} characters in all")
    last = MOST_LINES if solution is None else number_of_lines(solution)
    for one in comments:
        _check_file(one, is_archive=is_archive)
        # The cells of a notebook and the lines in an archive are not counted: that takes a process with limits.
        most = last if one.cell is None else MOST_LINES
        if not 1 <= one.line <= most or not (one.cell is None or 1 <= one.cell <= MOST_LINES):
            place = place_of(asdict(one))
            raise UsageError(f"a comment on {place}, and lines and cells are counted from 1, lines here to {most}")
        if not one.text.strip() or len(one.text) > LONGEST:
            raise UsageError(f"the comment on {place_of(asdict(one))} must have 1 to {LONGEST} characters")


def _check_file(one: LineComment, *, is_archive: bool) -> None:
    if one.file is None and is_archive:
        raise UsageError(f"a comment on {place_of(asdict(one))}, and the submission is an archive: name the file in it")
    if one.file is not None and not is_archive:
        raise UsageError(f"a comment on {place_of(asdict(one))}, and the submission is no archive: name no file")
    if one.file is not None and not 1 <= len(one.file) <= LONGEST_PATH:
        raise UsageError(f"a comment on a file in the archive, whose path must have 1 to {LONGEST_PATH} characters")


def number_of_lines(text: str) -> int:
    """Return the number of lines of a text; a line feed at its end begins none."""
    return text.count("\n") + (not text.endswith("\n"))


def comments_of(hop: Mapping[str, Any]) -> tuple[LineComment, ...]:
    """Return the comments of a hop received over the wire, by line, without those that are invalid or too many."""
    given = hop.get(COMMENTS)
    found, room = [], MOST_TEXT
    for one in given[:MOST] if isinstance(given, list) else ():
        line, text, cell, file = [one.get(name) for name in _KEYS] if isinstance(one, dict) else [None] * len(_KEYS)
        if not _is_number(line) or not (cell is None or _is_number(cell)) or not isinstance(text, str):
            continue
        if not (file is None or (isinstance(file, str) and 1 <= len(file) <= LONGEST_PATH)):
            continue
        made = LineComment(line, _valid(text), cell, None if file is None else _valid(file))
        room -= made.size
        if text.strip() and len(text) <= LONGEST and room >= 0:
            found.append(made)
    return tuple(sorted(found, key=lambda one: (one.file or "", one.cell or 0, one.line)))


def _valid(text: str) -> str:
    """Return a text as valid UTF-8."""
    return text.encode(errors="replace").decode()


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_LINES


def as_sent(comments: Sequence[LineComment]) -> list[dict[str, Any]]:
    """Return comments as the value of a hop's `comments`."""
    return [{name: value for name, value in asdict(one).items() if value is not None} for one in comments]


def place_of(comment: Mapping[str, Any]) -> str:
    """Return the place of a comment, given as JSON data, for people."""
    parts = [comment["file"]] if comment.get("file") is not None else []
    if comment.get("cell") is not None:
        parts.append(f"cell {comment['cell']}")
    return ", ".join([*parts, f"line {comment['line']}"])
