"""Reads an archive in a sandbox and writes its entries to stdout; the program outside checks and stores them.

A separate script that imports nothing of Rabbitry: `unpacker.py KIND NAME < ARCHIVE`. KIND is "tar" if the
archive has a tar's name, else "any"; NAME is the name for a single compressed file. The output consists of records:
one byte for the kind, four for the length, and the payload.

B  it began                      E  an entry, as JSON: name, kind, whether it is executable
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
_MAX_NAME: Final = 5000  # characters passed on; the program outside allows fewer
_FOLDER_OF_DOS: Final = 0x10
_OPENERS: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))

Entry = tuple[str, str, bool, IO[bytes] | None]
"""The name, the kind, whether it is executable, and a file's content."""


def main() -> None:
    """Write records until the archive ends or can't be read."""
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
    except Exception as error:  # noqa: BLE001  # archive readers raise many kinds of errors on damaged archives
        why = str(error) or type(error).__name__
        if type(error).__module__ == "builtins" and not isinstance(error, OSError | EOFError | NotImplementedError):
            why = f"it is damaged ({why})"  # an internal error of the reader, whose text alone would not help a student
        _send(b"W", why[:500].encode("utf-8", "replace"))
    else:
        _send(b"Z")


def _send(kind: bytes, payload: bytes = b"") -> None:
    sys.stdout.buffer.write(kind + len(payload).to_bytes(4) + payload)
    sys.stdout.buffer.flush()


def entries(archive: IO[bytes], kind: str, name: str) -> Iterator[Entry]:
    """Yield an archive's entries, recognized by content. The caller must read each one's data before the next."""
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
    if not info.flag_bits & 0x800:  # not marked as UTF-8, but macOS writes UTF-8 without the mark
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.orig_filename
    return name.replace("\\", "/")


def _check_overlap(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse files that share compressed bytes, by which a small archive can unpack to a very large one."""
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
            # tarfile takes these for the archive's end, and would silently leave out the files after them.
            raise tarfile.ReadError(f"it is cut off, or damaged: {error}") from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # tarfile reads such headers whole, and some versions parse them in quadratic time (CVE-2024-6232).
        if not self.isreg() and not self.isdir() and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header takes more room than {_MAX_HEADER} bytes")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # tarfile's own hook
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
