"""Recognizes archives, and files that can't be what a scheme asks for, by their names and first bytes."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath
from typing import Final

MAX_NAME: Final = 200
"""UTF-8 bytes of one component of a name; file systems allow 255."""
HEAD: Final = 512
"""Bytes examined at the start of a submission."""

_TARS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
_COMPRESSED: Final = (".gz", ".bz2", ".xz")
_SIGNATURES: Final = (b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_OTHER_ARCHIVES: Final = {
    b"Rar!\x1a\x07": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x1f\x9d": "a Z archive",
    b"LZIP": "an lzip archive",
    b"MSCF": "a Windows cabinet",
    b"xar!": "a xar archive",
}
_DOCUMENTS: Final = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an Office document",
    b"%PDF-": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
}
_OFFICE: Final = {".docx", ".docm", ".xlsx", ".xlsm", ".pptx", ".odt", ".ods", ".odp", ".pages", ".numbers", ".key"}
_TEXTS: Final = {
    ".py", ".java", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".js", ".ts", ".go", ".rs", ".rb", ".pl", ".php", ".r",
    ".hs", ".ml", ".kt", ".scala", ".swift", ".lua", ".sh", ".sql", ".m", ".s", ".asm", ".f90", ".jl", ".lisp", ".scm",
    ".txt", ".md", ".csv", ".tex", ".html", ".css", ".json", ".xml", ".yaml", ".toml",
}  # fmt: skip


def is_archive(name: str, data: bytes) -> bool:
    """Return whether a submission is unpacked: judged by its suffix, or by its first bytes if its name has no dot."""
    lower = safe_name(name).lower()
    if "." in lower:
        return lower.endswith((".zip", *_TARS, *_COMPRESSED))
    return data.startswith(_SIGNATURES) or data[257:262] == b"ustar"


def is_tar(name: str) -> bool:
    """Return whether a name is that of a tar, compressed or not."""
    return safe_name(name).lower().endswith(_TARS)


def without_compression(name: str) -> str:
    """Return the name of the file in a compressed file."""
    safe = safe_name(name)
    return safe_name(safe[: safe.rindex(".")]) if safe.lower().endswith(_COMPRESSED) else safe


def unsuitable(name: str, data: bytes, wanted: str | None) -> str | None:
    """Return why a submission can't be marked as one file, as text for its student, or None.

    `wanted` is the file name that the scheme asks for, if any.
    """
    own = PurePath(safe_name(name)).suffix.lower()
    suffix = None if wanted is None else PurePath(wanted).suffix.lower()
    is_wanted = own == suffix and suffix not in _TEXTS
    if what := _first(_OTHER_ARCHIVES, data):
        why = f"is {what}, which can't be unpacked here: submit a .zip or a .tar.gz"
        return None if is_wanted else f"{safe_name(name)!r} {why}"
    if wanted is None or is_wanted:
        return None
    what = _first(_DOCUMENTS, data)
    if data.startswith(_SIGNATURES[:2]):
        what = "an Office document" if own in _OFFICE else "a ZIP archive"
    if own == ".ipynb":
        what = "a Jupyter notebook"
    if what is None:
        return None
    how = "rename it so that it ends in .zip" if what == "a ZIP archive" else "submit that file itself, or a .zip"
    return f"{safe_name(name)!r} is {what}, but {wanted!r} is required: {how}"


def safe_name(name: str) -> str:
    """Return the last component of a name, without characters that file systems or command lines misread."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c if c.isprintable() and not unicodedata.category(c).startswith("C") else "_" for c in last).strip()
    kept = kept.encode("utf-8", "replace")[-MAX_NAME:].decode("utf-8", "ignore")
    if kept.startswith("-"):
        kept = "_" + kept[1:]
    return kept if kept not in {"", ".", ".."} else "submission"


def _first(signatures: dict[bytes, str], data: bytes) -> str | None:
    return next((what for signature, what in signatures.items() if data.startswith(signature)), None)
