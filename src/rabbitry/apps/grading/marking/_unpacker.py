"""Reads an archive within a sandbox and writes the entries to stdout; the program outside checks and stores them.

A script of its own that imports nothing of Rabbitry's: `unpacker.py KIND NAME < ARCHIVE`. KIND is "tar" if the
archive's name says so, and "any" otherwise; NAME is what a single compressed file is called. Its output are records:
a byte for the kind, four for the length, and the payload.

B  it began                      E  an entry, as JSON: name, what it is, whether it is executable
C  a piece of that file          W  why the archive can't be read
Z  the end of the archive
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import stat
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, Final

_CHUNK: Final = 64 * 1024
_MAX_HEADER: Final = 8 * 1024  # bytes of one header of a tar with long names or other attributes
_MAX_NAME: Final = 5000  # characters that are passed on; the program outside allows fewer
_FOLDER_OF_DOS: Final = 0x10
_OPENERS: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))

Entry = tuple[str, str, bool, IO[bytes] | None]
"""The name, what it is, whether it is executable, and the content of a file."""


def main() -> None:
    """Write records until the archive's end, or until it can't be read."""
    kind, name = sys.argv[1:]
    _send(b"B")
    try:
        with open(0, "rb") as archive:
            for path, what, executable, content in entries(archive, kind, name):
                said = {"name": path[:_MAX_NAME], "what": what, "executable": executable}
                _send(b"E", json.dumps(said).encode())
                while content is not None and (chunk := content.read(_CHUNK)):
                    _send(b"C", chunk)
    except BrokenPipeError:
        raise
    except MemoryError:
        _send(b"W", b"it takes too much memory")
    except RecursionError:
        _send(b"W", b"its headers are nested too deeply")
    except Exception as error:  # noqa: BLE001  # readers of archives raise errors of many kinds on damaged ones
        why = str(error) or type(error).__name__
        if type(error).__module__ == "builtins" and not isinstance(error, OSError | EOFError | NotImplementedError):
            why = f"it is damaged ({why})"  # a mishap within the reader, whose words alone tell a student nothing
        _send(b"W", why[:500].encode("utf-8", "replace"))
    else:
        _send(b"Z")


def _send(kind: bytes, payload: bytes = b"") -> None:
    sys.stdout.buffer.write(kind + len(payload).to_bytes(4) + payload)
    sys.stdout.buffer.flush()


def entries(archive: IO[bytes], kind: str, name: str) -> Iterator[Entry]:
    """Read an archive by its content, whatever its name ends in; the content of each before the next is asked for."""
    head = archive.read(6)
    archive.seek(0)
    opener = next((opener for signature, opener in _OPENERS if head.startswith(signature)), None)
    if opener is None:
        tar = archive.read(512)[257:262] == b"ustar"
        archive.seek(0)
        yield from _untar(archive) if (tar or kind == "tar") and not head.startswith(b"PK") else _unzip(archive)
        return
    with opener(archive) as opened:
        content = io.BufferedReader(opened, _CHUNK)
        if kind == "tar" or content.peek(512)[257:262] == b"ustar":
            yield from _untar(content)
        else:
            yield name, "file", False, content


def _unzip(file: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _check_overlap(infos)
        for info in infos:
            name = _zip_name(info)
            mode = info.external_attr >> 16 if info.create_system in {3, 19} else 0  # Unix, macOS
            kind = stat.S_IFMT(mode)
            if name.endswith("/") or kind == stat.S_IFDIR or info.external_attr & _FOLDER_OF_DOS:
                yield name, "folder", False, None
            elif kind not in {0, stat.S_IFREG}:
                yield name, _SPECIAL.get(kind, "a special file"), False, None
            elif info.flag_bits & 1:
                yield name, "an encrypted file", False, None
            else:
                with archive.open(info) as content:
                    yield name, "file", bool(mode & stat.S_IXUSR), content


def _zip_name(info: zipfile.ZipInfo) -> str:
    r"""Decode an entry's name; Windows programs may write `\` between its components."""
    name = info.orig_filename
    if not info.flag_bits & 0x800:  # not said to be UTF-8, though macOS writes it so
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.orig_filename
    return name.replace("\\", "/")


def _check_overlap(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse files that share their compressed bytes, by which a small archive becomes a very large one."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise zipfile.BadZipFile(f"entries overlap: {info.filename[:80]!r}")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size


_BROKEN_HEADER: Final = (
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]  # typeshed leaves it out
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]  # typeshed leaves it out
)


class _Member(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except _BROKEN_HEADER as error:
            # tarfile takes these for the archive's end, and the files behind it would be missing without a word.
            raise tarfile.ReadError(f"it is cut off, or damaged: {error}") from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # tarfile reads such headers whole, and some versions search them in quadratic time (CVE-2024-6232).
        if not self.isreg() and not self.isdir() and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header takes more room than {_MAX_HEADER} bytes")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # tarfile's way to extend it
        return found


def _untar(file: IO[bytes]) -> Iterator[Entry]:
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member, errors="surrogateescape") as archive:
        for info in archive:
            name = _tar_name(info.name)
            if info.issparse() or info.type == tarfile.GNUTYPE_SPARSE:
                yield name, "a sparse file", False, None
            elif info.isdir():
                yield name + "/", "folder", False, None
            elif not info.isreg():
                yield name, _SPECIAL_TAR.get(info.type, "a special file"), False, None
            else:
                yield name, "file", bool(info.mode & stat.S_IXUSR), archive.extractfile(info)


def _tar_name(name: str) -> str:
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode().replace("\\", "/")
    except UnicodeDecodeError:
        return raw.decode("latin-1").replace("\\", "/")


_SPECIAL: Final = {stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_SPECIAL_TAR: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}

if __name__ == "__main__":
    main()
