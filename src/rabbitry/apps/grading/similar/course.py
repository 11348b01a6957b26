"""The similar solutions of a module: of each student the submission that counts, from the kept files."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from rabbitry._words import reason
from rabbitry.apps.grading.exceptions import FilesError, LexingFailed, SubmissionRefused
from rabbitry.apps.grading.files import Fetcher
from rabbitry.apps.grading.lexing import Lexing
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.records.course import Submission
from rabbitry.apps.grading.similar.comparing import Part, pairs, parts
from rabbitry.apps.grading.similar.documents import Document, document_of, document_of_folder
from rabbitry.apps.grading.similar.fingerprints import all_runs, read
from rabbitry.exceptions import RabbitryError, UsageError

LEAST: Final = 0.3
"""The least similarity of a pair that is listed, by default."""
_SHOWN: Final = 10_000
"""Characters shown of the beginning and of the end of a part that matches nothing."""
MOST_SUBMISSIONS: Final = 10_000
"""Submissions that are compared at a time."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is sought. starter: hashes of runs that don't count. least: the least similarity that is listed, 0 to 1.

    common: how many submissions may share a fingerprint before it counts as common; None for the usual number.
    """

    module: str
    starter: frozenset[int] = frozenset()
    least: float = LEAST
    common: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The pairs of a module. compared: submissions; left_out: those not read, or not wholly, with the reason."""

    pairs: list[dict[str, Any]]
    compared: int
    left_out: dict[str, str]


def starter_runs(paths: Iterable[Path]) -> frozenset[int]:
    """Return the hashes of the runs of starter code. Blocks.

    Raises:
        UsageError: A file or folder can't be read, has no source text, or takes too long to compare.
    """
    documents = []
    for path in paths:
        try:
            found = document_of_folder(path) if path.is_dir() else document_of(path.read_bytes(), path.name)
        except (OSError, SubmissionRefused) as error:
            raise UsageError(f"starter code {path}: {reason(error, is_named=False)}") from error
        if found is None:
            raise UsageError(f"starter code {path}: there is no source text")
        documents.append(found)
    if not documents:
        return frozenset()
    try:
        with Lexing() as lexing:
            return lexing.run(all_runs, documents)
    except LexingFailed as error:
        raise UsageError(f"the starter code can't be compared: {error}") from error


def counting(rows: Iterable[Mapping[str, Any]]) -> list[Submission]:
    """Return the submissions that count, one for each student and module, of the rows of all (`looking.rows`)."""
    return [msgspec.convert(row, Submission) for row in rows if row["counts"]]


def similar(
    rows: Sequence[Submission],
    files: Fetcher,
    search: Search,
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Result:
    """Return the similar solutions of a module. Blocks, for seconds to minutes; one file is in memory at a time.

    The texts are read in a process of its own; a submission that takes too long there is left out.

    Args:
        rows: The submissions of the module that count.
        files: The kept files.
        search: What is sought.
        is_wanted: Called after each submission; if it returns False, the comparison ends with an error.

    Raises:
        RabbitryError: The comparison is not wanted any more.
        UsageError: The module has too many submissions.
    """
    module = search.module
    if len(rows) > MOST_SUBMISSIONS:
        raise UsageError(f"module {module!r} has {len(rows)} submissions, and at most {MOST_SUBMISSIONS} are compared")
    left_out: dict[str, str] = {}
    compared: list[Submission] = []
    found: list[array[int]] = []
    with Lexing() as lexing:
        for row in rows:
            if not is_wanted():
                raise RabbitryError(f"the comparison of module {module!r} was stopped")
            own = _fingerprints(files, row, search.starter, lexing)
            if isinstance(own, str):
                left_out[row.id] = own
                continue
            compared.append(row)
            found.append(own[0])
            if own[1] is not None:
                left_out[row.id] = own[1]
    listed = [
        {
            "one": _described(compared[pair.one]),
            "other": _described(compared[pair.other]),
            "similarity": round(pair.similarity, 4),
            "contained": round(pair.contained, 4),
            "shared": pair.shared,
        }
        for pair in pairs(found, least=search.least, common=search.common)
    ]
    return Result(listed, len(compared), left_out)


def compared(files: Fetcher, one: Submission, other: Submission, course: Course) -> dict[str, Any]:
    """Return two submissions' texts in parts, those that match with a number. Blocks.

    Args:
        files: The kept files.
        one: A submission.
        other: Another one.
        course: The course, for the starter code of the first one's module.

    Raises:
        UsageError: A submission has no text to compare, or one that takes too long.
        FilesError: A file can't be read.
    """
    rows = one, other
    known = course.modules.get(rows[0].module)
    documents = [_document(files, row) for row in rows]
    starter = starter_runs(known.starter if known is not None else ())
    try:
        with Lexing() as lexing:
            both = lexing.run(parts, documents[0], documents[1], starter)
    except LexingFailed as error:
        raise UsageError(f"submissions {rows[0].id} and {rows[1].id} could not be compared: {error}") from error
    return {name: _described(row) | {"parts": [_as_dict(part) for part in own]}
            for name, row, own in zip(("one", "other"), rows, both, strict=True)}  # fmt: skip


def _document(files: Fetcher, row: Submission) -> Document:
    try:
        found = None if row.kept is None else document_of(files.fetch(row.kept), row.name)
    except SubmissionRefused as error:
        raise UsageError(f"submission {row.id} has no text to compare: {error}") from error
    if found is None:
        raise UsageError(f"submission {row.id} has no text to compare, or its file is not kept")
    return found


def _described(row: Submission) -> dict[str, Any]:
    return {"id": row.id, "student": row.student, "name": row.name}


def _as_dict(part: Part) -> dict[str, Any]:
    """Return a part as JSON data; of a long one that matches nothing, its beginning and end."""
    text = part.text
    if part.block is None and len(text) > 2 * _SHOWN:
        left_out = f"\n… {len(text) - 2 * _SHOWN} characters that match nothing …\n"
        text = text[:_SHOWN] + left_out + text[-_SHOWN:]
    return {"text": text, "block": part.block}


def _fingerprints(
    files: Fetcher, row: Submission, starter: frozenset[int], lexing: Lexing
) -> tuple[array[int], str | None] | str:
    """Return the fingerprints of a submission and what of it is not compared, or why it has none."""
    if row.kept is None:
        return "its file is not kept"
    try:
        found = document_of(files.fetch(row.kept), row.name)
        return "there is no text to compare" if found is None else lexing.run(read, found, starter)
    except (FilesError, SubmissionRefused) as error:
        return str(error)
    except LexingFailed as error:
        return f"it could not be compared: {error}"
