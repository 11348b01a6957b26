"""Submitted files as the page shows them: text in pieces with syntax colours, and the comments on its lines.

Of an archive the page shows a list of its files, and the text of the chosen one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rabbitry.apps.grading.comments import comments_of
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.apps.grading.message import LONGEST_NAME, Assignment, readable
from rabbitry.apps.grading.personal import marks_of
from rabbitry.exceptions import UsageError

LONGEST: Final = 200_000
"""Characters of a text that are shown."""
MOST_LINES: Final = 5_000
"""Lines of a text that are shown; the page draws a row for each."""
MOST_COMMENTS: Final = 1_000
"""Comments of a History that are shown: its latest ones."""


def shown(data: bytes, name: str, path: str = "") -> dict[str, Any]:
    """Return a file as the page shows it. Blocks, for up to some seconds.

    Args:
        data: The file.
        name: Its name, which tells the language.
        path: A file in it, if it is an archive; empty for the archive's list.

    Raises:
        NoSuchID: It has no file at the path.
        UsageError: There is a path, and the archive is not safe.
        FilesError: There is a path, and this machine can't unpack the archive.
    """
    from rabbitry.apps.grading.contents import MOST_FILES, is_shown_unpacked, opened

    if path:
        with opened(data, name) as contents:
            return shown_text(readable(contents.read(path)), path)
    if not is_shown_unpacked(data, name):
        return shown_text(readable(data), name)
    try:
        with opened(data, name) as contents:
            unlisted = max(len(contents.paths) - MOST_FILES, 0)
            return shown_text(None, name) | {"files": contents.listed(), "unlisted": unlisted}
    except (UsageError, FilesError) as error:  # it can be downloaded, and marked, none the less
        return shown_text(None, name) | {"refused": str(error)}


def shown_assignment(assignment: Assignment) -> dict[str, Any]:
    """Return the file of an assignment as the page shows it. Blocks, for up to some seconds."""
    if not assignment.is_binary or (data := assignment.file()) is None:
        return shown_text(assignment.readable_text(), assignment.name)
    return shown(data, assignment.name)


def shown_text(text: str | None, name: str) -> dict[str, Any]:
    """Return a text as the page shows it; None for a file that is not text. Blocks, for up to some seconds."""
    from rabbitry.apps.grading.colours import coloured
    from rabbitry.apps.grading.notebooks import SUFFIX, cells_of

    no_archive = {"files": None, "unlisted": 0, "refused": None}
    if text is None:
        return {"pieces": [], "notebook": None, "is_cut": False, "is_binary": True} | no_archive
    part = beginning(text)
    cells = cells_of(text.encode()) if name.lower().endswith(SUFFIX) else None
    pieces = coloured(part, name) if cells is None else [(part, None)]
    is_cut = len(part) < len(text)
    return {"pieces": pieces, "notebook": cells, "is_cut": is_cut, "is_binary": False} | no_archive


def beginning(text: str) -> str:
    """Return as much of a text as is shown."""
    part = "\n".join(text[:LONGEST].split("\n", MOST_LINES)[:MOST_LINES])
    # The line feed of the last line shown stays, so that a text which is not cut is shown whole.
    return text if text[len(part) :] == "\n" else part


def comments_in(hops: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the comments on lines of a History with the role and the name of the person who made each.

    The History may have come over the wire. Each comment repeats both names, therefore these are cut: a name of 10 MB
    would otherwise be sent 200 times.
    """
    found: list[dict[str, Any]] = []
    for hop in reversed(hops):
        names = {name: str(hop.get(name) or "")[:LONGEST_NAME] for name in ("role", "who")}
        said = [{**asdict(one), **names} for one in comments_of(hop)]
        for mark in marks_of(hop):
            said += [{**asdict(one), **names, "who": mark.who} for one in mark.comments]
        found[:0] = said
        if len(found) >= MOST_COMMENTS:
            break
    return found[-MOST_COMMENTS:]
