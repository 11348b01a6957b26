"""A submission beside the student's attempt before, of an archive file by file."""

from __future__ import annotations

from typing import Any, NamedTuple

from rabbitry.apps.grading.changes import changes
from rabbitry.apps.grading.contents import MOST_FILES, Contents, is_shown_unpacked, opened
from rabbitry.apps.grading.message import readable
from rabbitry.apps.grading.showing import beginning
from rabbitry.exceptions import UsageError


class Attempt(NamedTuple):
    """A file as it was handed in."""

    name: str
    data: bytes


def compared(before: Attempt, after: Attempt, path: str = "") -> dict[str, Any]:
    """Return the changed lines of two attempts, for the page. Blocks, for up to some seconds.

    Args:
        before: The attempt before.
        after: The later one.
        path: If one of the two is an archive, the file in it that is compared; the first that differs, if it is empty.

    Raises:
        UsageError: They can't be compared; the text says why.
        NoSuchID: Neither has a file at the path.
        FilesError: This machine can't unpack an archive.
    """
    if not (is_shown_unpacked(before.data, before.name) or is_shown_unpacked(after.data, after.name)):
        texts = readable(before.data), readable(after.data)
        if texts[0] is None or texts[1] is None:
            raise UsageError("one of the two attempts is not text: download both")
        return {"name": before.name, "path": None, "files": None, "unlisted": 0, **_lines(*texts)}
    with opened(before.data, before.name) as old, opened(after.data, after.name) as new:
        files = _differing(old, new)
        chosen = path or (files[0]["path"] if files else "")
        about = {
            "name": before.name, "path": chosen or None, "files": files[:MOST_FILES],
            "unlisted": max(len(files) - MOST_FILES, 0),
        }  # fmt: skip
        return about | (_lines(*_texts(old, new, chosen)) if chosen else _lines("", ""))


def _differing(old: Contents, new: Contents) -> list[dict[str, str]]:
    """Return the files that differ, with what became of each."""
    found = []
    for path in sorted({*old.paths, *new.paths}):
        if not old.has(path):
            found.append({"path": path, "change": "new"})
        elif not new.has(path):
            found.append({"path": path, "change": "removed"})
        elif old.read(path) != new.read(path):
            found.append({"path": path, "change": "changed"})
    return found


def _texts(old: Contents, new: Contents, path: str) -> tuple[str | None, str | None]:
    """Return both texts of a file; empty for the side that does not have it."""
    if not old.has(path):
        return "", readable(new.read(path))
    return readable(old.read(path)), readable(new.read(path)) if new.has(path) else ""


def _lines(before: str | None, after: str | None) -> dict[str, Any]:
    if before is None or after is None:
        return {"rows": [], "is_cut": False, "is_binary": True}
    parts = beginning(before), beginning(after)
    return {"rows": changes(*parts), "is_cut": parts != (before, after), "is_binary": False}
