"""The text of a submission that is compared: one file, the source files of an archive, or a notebook's code."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from rabbitry._decode import decode_json
from rabbitry._words import reason
from rabbitry.apps.grading.exceptions import FilesError, SandboxFailed
from rabbitry.apps.grading.marking import is_archive
from rabbitry.apps.grading.marking.archives import unpack
from rabbitry.apps.grading.notebooks import SUFFIX
from rabbitry.exceptions import Undecodable

MOST: Final = 10_000_000
"""Bytes of text (of notebooks, characters of code) that are compared of one submission; what is over is left out.

It is as much as a submission may have by default, so that no file begins with comments that hide the rest of it.
"""
LARGEST_NOTEBOOK: Final = 5_000_000
"""Bytes of the largest notebook that is read, with its pictures. One of empty cells takes 23 times as much memory."""
_APPLE_DOUBLE: Final = b"\0\5\x16\7"
"""The beginning of the files that macOS puts into archives beside each file, under names that end as its does."""
_ROOM: Final = 64 * 1024 * 1024
"""Bytes that an unpacked archive may take on disk."""
_SOURCES: Final = frozenset({
    ".py", ".ipynb", ".java", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".js", ".mjs", ".ts", ".jsx", ".tsx",
    ".go", ".rs", ".rb", ".pl", ".php", ".r", ".hs", ".ml", ".kt", ".scala", ".swift", ".lua", ".sh", ".sql", ".m",
    ".asm", ".s", ".f90", ".jl", ".lisp", ".scm", ".txt", ".md", ".tex",
})  # fmt: skip


class File(NamedTuple):
    """A file in a document: its name, and where its text begins and ends."""

    name: str
    begin: int
    end: int


class Document(NamedTuple):
    """The text of a submission. Each file begins with its name if there are several.

    is_cut: some text is left out, or a source file that can't be read as text.
    """

    text: str
    files: tuple[File, ...]
    is_cut: bool = False


class _Cell(msgspec.Struct):
    cell_type: str = ""
    source: list[str] | str = ""


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def document_of(data: bytes, name: str) -> Document | None:
    """Return the text of a submission; None if there is none to compare. Blocks, for an archive in the sandbox.

    Args:
        data: The file as it was handed in.
        name: Its name.

    Raises:
        SubmissionRefused: The archive is not safe or damaged. The text names the reason.
        FilesError: This machine can't unpack the archive, because a disk is full, for instance.
    """
    if not is_archive(name, data):
        return joined([(name or "solution", data)])
    try:
        with tempfile.TemporaryDirectory(prefix="rabbitry-similar-") as folder:
            unpack(data, name, Path(folder), room=_ROOM)
            return document_of_folder(Path(folder))
    except (SandboxFailed, OSError) as error:
        why = reason(error, is_named=False)
        raise FilesError(f"the archive {name!r} can't be unpacked: {why}") from error


def document_of_folder(folder: Path) -> Document | None:
    """Return the text of a folder's source files; None if there is none. Blocks."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SOURCES)
    return joined((str(path.relative_to(folder)), _beginning(path)) for path in paths if _is_plain(path))


def joined(files: Iterable[tuple[str, bytes]]) -> Document | None:
    """Return a document of files, given by name and content; None if none of them is text."""
    texts = []
    left, is_cut = MOST, False
    for name, data in files:
        found = _text(name, data)
        if found is None:
            is_cut = is_cut or (data != b"" and not data.startswith(_APPLE_DOUBLE))
            continue
        text, is_longer = found
        # Also if the part that is read is blank: what follows it may be copied.
        is_cut = is_cut or is_longer or len(text.rstrip()) > left
        if left > 0 and text.strip():
            texts.append((name, text[:left]))
            left -= len(text[:left])
    if not texts:
        return None
    whole, parts = "", []
    for name, text in texts:
        if len(texts) > 1:
            whole += f"{'' if not whole else chr(10)}===== {name} =====\n"
        known_as = f"{name[: -len(SUFFIX)]}.py" if _is_notebook(name) else name
        parts.append(File(known_as, len(whole), len(whole) + len(text)))
        whole += text
    return Document(whole, tuple(parts), is_cut)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_NOTEBOOK + 1 if _is_notebook(path.name) else MOST + 1)


def _is_notebook(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def _text(name: str, data: bytes) -> tuple[str, bool] | None:
    """Return the text of a file's first MOST bytes, and whether it has more; None if no text of it can be read."""
    if _is_notebook(name):
        if len(data) > LARGEST_NOTEBOOK:
            return None
        try:
            cells = decode_json(data, _Notebook).cells
        except Undecodable:
            return None
        sources = (cell.source for cell in cells if cell.cell_type == "code")
        return "\n\n".join(source if isinstance(source, str) else "".join(source) for source in sources), False
    part = data[:MOST]
    is_utf16 = part.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as some editors on Windows save
    text = part.decode("utf-16" if is_utf16 else "utf-8", errors="replace")
    return None if "\0" in text else (text.replace("\r\n", "\n"), len(data) > MOST)
