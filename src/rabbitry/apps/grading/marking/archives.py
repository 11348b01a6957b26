"""Turns a submission into files in a folder; archives are unpacked, unsafe ones refused with the reason.

No archive is parsed in this process: a sandbox reads it (`_unpacker.py`) and passes its entries on in a simple format.
Names are checked here, links and devices are never created, and sizes are measured, not taken from the archive.
"""

from __future__ import annotations

import io
import os
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from rabbitry._decode import json_decoder
from rabbitry.apps.grading.exceptions import SandboxFailed, SubmissionRefused
from rabbitry.apps.grading.marking import _unpacker
from rabbitry.apps.grading.marking._confine import Confinement, interpreter
from rabbitry.apps.grading.marking._formats import (
    HEAD,
    MAX_NAME,
    is_archive,
    is_tar,
    safe_name,
    unsuitable,
    without_compression,
)
from rabbitry.apps.grading.marking._workspace import put, workspace
from rabbitry.apps.grading.marking.sandbox import confinement, run_in_bounds, why_it_ended
from rabbitry.apps.grading.marking.scheme import Limits, Size
from rabbitry.exceptions import Undecodable

__all__ = ["MAX_ENTRIES", "MAX_SUBMISSION", "is_archive", "safe_name", "unpack"]

MAX_SUBMISSION: Final = 16 * 1024 * 1024
"""Bytes of a submission before unpacking."""
MAX_ENTRIES: Final = 2000
MAX_DEPTH: Final = 20
MAX_PATH: Final = 1000
"""Bytes of a path."""
MAX_NESTED: Final = 3
"""Archives nested in each other, each the only content of the one around it."""

_BLOCK: Final = 4096  # the least that a file takes
_MAX_RECORD: Final = 64 * 1024
_MIB: Final = 1024 * 1024
_LEAST_SECONDS: Final = 5  # of CPU time, to unpack an archive of any size
_NOT_IN_NAMES: Final = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line separators
# Files that file managers add.
_JUNK: Final = {
    "__macosx", ".ds_store", ".appledouble", ".localized", ".spotlight-v100", ".trashes", ".fseventsd", "icon\r",
    ".temporaryitems", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",
}  # fmt: skip


def unpack(
    data: bytes,
    name: str,
    folder: Path,
    *,
    room: int,
    file: str | None = None,
    shut_in: Confinement | None = None,
) -> None:
    """Write a submission's files into the empty `folder`. Blocks.

    `room` is the limit of their size on disk in bytes. `file` is the file name for a submission that is not an archive;
    its own name by default. If an archive holds a single folder, its content is unpacked; if it holds a single
    archive, that one is unpacked instead. Files that file managers add are left out. `shut_in` is the confinement in
    which archives are read; by default the strongest that works here.
    Raises SubmissionRefused with the reason, when the folder may already hold some files; SandboxFailed if the sandbox
    failed, not the archive.
    """
    if not data:
        raise SubmissionRefused("the submission is empty")
    shut_in = (shut_in or confinement(allow_weak=True)).for_own_programs()
    with closing(_Writer(folder, room)) as writer:
        if not _is_unpacked(name, data, file):
            if why := unsuitable(name, data, file):
                raise SubmissionRefused(why)
            _check_size(len(data))
            writer.begin((file or safe_name(name),), executable=False)
            writer.write(data)
            return
        for _ in range(MAX_NESTED):
            _check_size(len(data))
            _unpack_one(data, name, writer, file, shut_in)
            writer.close()
            if not writer.files:
                raise SubmissionRefused("the archive holds no file")
            _lift_only_folder(folder)
            only = _only_file(folder)
            if only is None or not is_archive(only.name, _head(only)):
                break
            _check_size(only.stat().st_size)
            data, name = only.read_bytes(), only.name
            only.unlink()
            writer.files = 0
        else:
            raise SubmissionRefused(f"the archive holds archives nested more than {MAX_NESTED} deep")
    if only is not None and (why := unsuitable(only.name, _head(only), None)):
        raise SubmissionRefused(f"in the archive, {why}")


def _is_unpacked(name: str, data: bytes, file: str | None) -> bool:
    if file is not None and without_compression(file) != file and not is_tar(file):
        return False  # the scheme asks for the compressed file itself
    return is_archive(name, data)


def _check_size(size: int) -> None:
    if size > MAX_SUBMISSION:
        raise SubmissionRefused(f"the submission has {size} bytes, more than {MAX_SUBMISSION}")


def _unpack_one(data: bytes, name: str, writer: _Writer, file: str | None, shut_in: Confinement) -> None:
    if why := unsuitable(name, data, None):
        raise SubmissionRefused(why)
    seconds = _LEAST_SECONDS + writer.room // (16 * _MIB)
    limits = Limits(
        cpu_seconds=min(seconds, 3600),
        wall_seconds=min(20.0 + 2 * seconds, 3600.0),
        memory=Size(256 * _MIB),
        processes=8,
        file_size=Size(_MIB),
        disk=Size(_MIB),
    )
    entries = _Entries(writer)
    with workspace() as own:
        put(own, "part")
        put(own / "part", "stdin", data)
        put(own / "part", "unpacker.py", Path(_unpacker.__file__).read_bytes())
        argv = [str(interpreter()), "-I", "-B", f"{shut_in.inside(own)}/part/unpacker.py"]
        argv += ["tar" if is_tar(name) else "any", file or without_compression(name)]
        outcome = run_in_bounds(shut_in, own, argv, limits, take_stdout=entries.take)
    if entries.ended:
        return
    if outcome.stopped is None and not entries.began:
        said = outcome.stderr.decode("utf-8", "replace").strip()[-300:]
        raise SandboxFailed(f"the sandbox could not start to unpack an archive: {said}")
    why = why_it_ended(outcome, limits) or f"exited with {outcome.code}"
    raise SubmissionRefused(f"the archive can't be unpacked within bounds: the program that reads it {why}")


class _Entry(Struct):
    name: str
    what: Literal[
        "file",
        "folder",
        "a symbolic link",
        "a hard link",
        "a device",
        "a named pipe",
        "a special file",
        "a sparse file",
        "an encrypted file",
    ]
    executable: bool


_decode_entry = json_decoder(_Entry)


class _Entries:
    """Parses the records of `_unpacker.py`, in pieces of any size, and stores the entries."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._left = bytearray()
        self._is_junk = False
        self.began = False
        self.ended = False

    def take(self, data: bytes) -> None:
        """Store the complete records. Raises SubmissionRefused."""
        self._left += data
        while len(self._left) >= 5:
            end = 5 + int.from_bytes(self._left[1:5])
            if end > 5 + _MAX_RECORD:
                raise SubmissionRefused("the archive can't be read: the program that reads it failed")
            if len(self._left) < end:
                return
            kind, payload = self._left[:1], bytes(self._left[5:end])
            del self._left[:end]
            self._take(bytes(kind), payload)

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == b"C" and not self._is_junk:
            self._writer.write(payload)
        elif kind == b"E":
            self._begin(payload)
        elif kind == b"B":
            self.began = True
        elif kind == b"Z":
            self.ended = True
        elif kind == b"W":
            raise SubmissionRefused(f"the archive can't be read: {payload.decode('utf-8', 'replace')[:200]}")

    def _begin(self, payload: bytes) -> None:
        try:
            entry = _decode_entry(payload)
        except Undecodable as error:
            raise SubmissionRefused("the archive can't be read: the program that reads it failed") from error
        self._is_junk = _is_junk(entry.name)
        if self._is_junk:
            return
        if entry.what not in {"file", "folder"}:
            raise _refused(entry.name, entry.what)
        parts = _components(entry.name, may_be_top=entry.what == "folder")
        if entry.what == "folder":
            self._writer.make_folder(parts)
        else:
            self._writer.begin(parts, executable=entry.executable)


def _is_junk(name: str) -> bool:
    return any(part.casefold() in _JUNK or part.startswith("._") for part in name.split("/"))


def _components(name: str, *, may_be_top: bool) -> tuple[str, ...]:
    """Check and split an entry's name. Empty for the archive's top folder, if that is allowed."""
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
        if any(unicodedata.category(letter) in _NOT_IN_NAMES for letter in part):
            raise _refused(name, "a name with control characters")
        if len(part.encode()) > MAX_NAME:
            raise _refused(name, f"a name of more than {MAX_NAME} bytes")
    if len("/".join(parts).encode()) > MAX_PATH:
        raise _refused(name, f"a name of more than {MAX_PATH} bytes, folders included")
    return parts


def _refused(name: str, what: str) -> SubmissionRefused:
    shown = name if len(name) <= 80 else name[:80] + "…"
    return SubmissionRefused(f"the archive contains {what}, which is not allowed: {shown!r}")


class _Writer:
    """Writes files into a folder and counts their size."""

    def __init__(self, folder: Path, room: int) -> None:
        self._folder = folder
        self._entries = 0
        self._file: io.BufferedWriter | None = None
        self.room = room
        self._most = room
        self.files = 0

    def make_folder(self, parts: tuple[str, ...]) -> None:
        self._count(parts)
        self._make(parts)

    def begin(self, parts: tuple[str, ...], *, executable: bool) -> None:
        """Create a file; `write` appends to it."""
        self.close()
        self._count(parts)
        self._make(parts[:-1])
        self.files += 1
        try:
            # Exclusive: no file is written twice, and no link is followed.
            made = os.open(self._folder.joinpath(*parts), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError as error:
            raise _refused("/".join(parts), "the same name twice") from error
        self._file = io.BufferedWriter(io.FileIO(made, "wb"))
        os.fchmod(made, 0o755 if executable else 0o644)

    def write(self, content: bytes) -> None:
        if self._file is None:
            raise SubmissionRefused("the archive can't be read: the program that reads it failed")
        self._take(len(content))
        self._file.write(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

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
                path.chmod(0o755)  # for any umask: another user reads it
            except FileExistsError as error:
                if not path.is_dir():
                    raise _refused("/".join(parts), "a file that is also a folder") from error

    def _take(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise SubmissionRefused(f"the submission takes more than the {self._most} bytes on disk that it may have")


def _lift_only_folder(folder: Path) -> None:
    """Make the content of a single top folder the submission, because most programs pack it that way."""
    inside = list(folder.iterdir())
    if len(inside) != 1 or not inside[0].is_dir():
        return
    aside = inside[0].rename(folder / f".{os.urandom(8).hex()}")
    for path in aside.iterdir():
        path.rename(folder / path.name)
    aside.rmdir()


def _only_file(folder: Path) -> Path | None:
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_file() else None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)
