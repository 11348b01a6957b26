"""A submission becomes files in a folder; archives are unpacked, unsafe ones refused with the reason.

Nothing here trusts an archive: names are checked before anything is written, links and devices are
never made, and what counts is what comes out, not what the archive says of itself.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from rabbitry.exceptions import SubmissionRefused

MAX_SUBMISSION: Final = 16 * 1024 * 1024
"""Bytes of a submission as it comes."""
MAX_ENTRIES: Final = 2000
MAX_DEPTH: Final = 20
MAX_NAME: Final = 200
"""Bytes of a name's component in UTF-8; file systems take 255."""

_BLOCK: Final = 4096  # what a file takes at least
_CHUNK: Final = 64 * 1024
_TAR_OVERHEAD: Final = 8 * 1024  # of headers for each entry, long names included
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,  # names that are no text, numbers that are none
    ArithmeticError,
    LookupError,
    NotImplementedError,  # zipfile: a compression that it doesn't know
    RuntimeError,  # zipfile: encrypted
)
"""What Python's readers of archives raise on damaged ones."""

_TARS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(name: str, data: bytes) -> bool:
    """Return whether a submission is unpacked: by its name's end, or by its first bytes if it has no dot."""
    return _kind(name, data) is not None


def unpack(data: bytes, name: str, folder: Path, *, room: int, file: str | None = None) -> None:
    """Write a submission's files into `folder`, which is empty. Blocks.

    `room` is how many bytes they may take on disk. `file` names a submission that is one file and no
    archive; it is stored under its own name otherwise. An archive that holds one folder alone is
    unpacked without that folder.
    Raises SubmissionRefused with the reason; the folder may hold some files by then.
    """
    if not data:
        raise SubmissionRefused("the submission is empty")
    if len(data) > MAX_SUBMISSION:
        raise SubmissionRefused(f"the submission has {len(data)} bytes, more than {MAX_SUBMISSION}")
    writer = _Writer(folder, room)
    kind = _kind(name, data)
    if kind is None:
        writer.write((file or safe_name(name),), io.BytesIO(data), executable=False)
        return
    try:
        for parts, content, executable in _unzip(data) if kind == ".zip" else _untar(data, kind, room):
            if content is None:
                writer.make_folder(parts)
            else:
                writer.write(parts, content, executable=executable)
    except _BROKEN as error:
        raise SubmissionRefused(f"the archive can't be read: {str(error)[:200] or type(error).__name__}") from error
    if not writer.files:
        raise SubmissionRefused("the archive holds no file")
    _lift_only_folder(folder)


def safe_name(name: str) -> str:
    """Return the last component of a name, without what file systems and command lines mistake."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c if c.isprintable() and not unicodedata.category(c).startswith("C") else "_" for c in last).strip()
    kept = kept.encode("utf-8", "replace")[-MAX_NAME:].decode("utf-8", "ignore")
    if kept.startswith("-"):
        kept = "_" + kept[1:]
    return kept if kept not in {"", ".", ".."} else "submission"


_Entry = tuple[tuple[str, ...], IO[bytes] | None, bool]
"""Components of the name, the content or None for a folder, and whether it is executable."""


def _kind(name: str, data: bytes) -> str | None:
    lower = safe_name(name).lower()
    for suffix in (".zip", *_TARS):
        if lower.endswith(suffix):
            return suffix
    if "." in lower:
        return None
    signatures = {b"PK\3\4": ".zip", b"\x1f\x8b": ".tar.gz", b"BZh": ".tar.bz2", b"\xfd7zXZ\0": ".tar.xz"}
    for signature, kind in signatures.items():
        if data.startswith(signature):
            return kind
    return ".tar" if data[257:262] == b"ustar" else None


def _unzip(data: bytes) -> Iterator[_Entry]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            kind = stat.S_IFMT(mode)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _refused(info.filename, _SPECIAL.get(kind, "a special file"))
            if info.is_dir():
                yield _components(info.filename), None, False
                continue
            with archive.open(info) as content:
                yield _components(info.filename), content, bool(mode & stat.S_IXUSR)


def _untar(data: bytes, kind: str, room: int) -> Iterator[_Entry]:
    bounded = _Bounded(_decompress(data, kind), room + MAX_ENTRIES * _TAR_OVERHEAD)
    with tarfile.open(fileobj=bounded, mode="r|", errors="strict") as archive:
        for info in archive:
            if info.sparse is not None or info.type == tarfile.GNUTYPE_SPARSE:
                raise _refused(info.name, "a sparse file")
            if info.isdir():
                yield _components(info.name, may_be_top=True), None, False
                continue
            if not info.isreg():
                raise _refused(info.name, _SPECIAL_TAR.get(info.type, "a special file"))
            content = archive.extractfile(info)
            if content is None:
                raise _refused(info.name, "a special file")
            with content:
                yield _components(info.name), content, bool(info.mode & stat.S_IXUSR)


def _decompress(data: bytes, kind: str) -> io.BufferedIOBase:
    compressed = io.BytesIO(data)
    if kind.endswith("gz"):
        return gzip.GzipFile(fileobj=compressed)
    if kind.endswith("bz2"):
        return bz2.BZ2File(compressed)
    if kind.endswith("xz"):
        return lzma.LZMAFile(compressed)
    return compressed


_SPECIAL: Final = {stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_SPECIAL_TAR: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


def _components(name: str, *, may_be_top: bool = False) -> tuple[str, ...]:
    """Check an entry's name and split it. Empty for the archive's top folder, where that may be."""
    if name.startswith("/") or name[1:2] == ":":
        raise _refused(name, "an absolute name")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise _refused(name, "a name with `..`")
    if not parts and not may_be_top:
        raise _refused(name, "an empty name")
    if len(parts) > MAX_DEPTH:
        raise _refused(name, f"nested more than {MAX_DEPTH} folders deep")
    for part in parts:
        if "\\" in part or not part.isprintable():
            raise _refused(name, "a name with a backslash or control characters")
        if len(part.encode("utf-8", "surrogateescape")) > MAX_NAME:
            raise _refused(name, f"a name of more than {MAX_NAME} bytes")
    return parts


def _refused(name: str, what: str) -> SubmissionRefused:
    shown = name if len(name) <= 80 else name[:80] + "…"
    return SubmissionRefused(f"the archive has {what} in it, which is not allowed: {shown!r}")


class _Writer:
    """Writes files into a folder and counts what they take."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder = folder
        self._room = room
        self._entries = 0
        self.files = 0

    def make_folder(self, parts: tuple[str, ...]) -> None:
        self._count(parts)
        self._make(parts)

    def write(self, parts: tuple[str, ...], content: IO[bytes], *, executable: bool) -> None:
        self._count(parts)
        self._make(parts[:-1])
        self.files += 1
        try:
            # Not over anything: no file twice, and nothing is followed.
            made = os.open(self._folder.joinpath(*parts), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError as error:
            raise _refused("/".join(parts), "a name twice") from error
        with open(made, "wb") as file:
            os.fchmod(made, 0o755 if executable else 0o644)
            while chunk := content.read(min(_CHUNK, self._room + 1)):
                self._take(len(chunk))
                file.write(chunk)

    def _count(self, parts: tuple[str, ...]) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise SubmissionRefused(f"the archive has more than {MAX_ENTRIES} entries")
        self._take(_BLOCK * len(parts))

    def _make(self, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            path = self._folder.joinpath(*parts[:depth])
            try:
                path.mkdir()
                path.chmod(0o755)  # whatever the umask is: another user reads it
            except FileExistsError as error:
                if not path.is_dir():
                    raise _refused("/".join(parts), "a file that is a folder too") from error

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise SubmissionRefused("the submission takes more room than its marking scheme allows (`disk`)")


class _Bounded(io.RawIOBase):
    """Reads at most so many bytes: what a compressed tar may come to, headers and all."""

    def __init__(self, source: io.BufferedIOBase, left: int) -> None:
        self._source = source
        self._left = left

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise SubmissionRefused("the submission takes more room than its marking scheme allows (`disk`)")
        return data


def _lift_only_folder(folder: Path) -> None:
    """Where all is in one folder, as most programs pack it, that folder's content is the submission."""
    inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
    if len(inside) != 1 or not inside[0].is_dir():
        return
    aside = inside[0].rename(folder / f".{os.urandom(8).hex()}")
    for path in aside.iterdir():
        path.rename(folder / path.name)
    aside.rmdir()
