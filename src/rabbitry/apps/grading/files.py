"""The files of a course as they were handed in, by their SHA-256: each content once, compressed, in a folder or bucket.

A file is on disk before `keep` returns. A name in the store is never written to again, so that a copy, a backup or a
second coordinator can read it at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import platformdirs
from sqlalchemy.engine import make_url

from rabbitry._words import reason
from rabbitry.apps.grading.buckets import Bucket
from rabbitry.apps.grading.exceptions import FileLost, FilesError
from rabbitry.exceptions import UsageError
from rabbitry.runtime.parent import RECORDS_FOLDER

VARIABLE: Final = "RABBITRY_FILES"
"""The environment variable that names where the files are kept."""
_UNFINISHED: Final = "unfinished"
"""The folder of files that are being written."""
_ABANDONED: Final = 3600.0
"""Seconds after which a file that was never finished is removed: its writer was killed."""
_COUNTED_FOR: Final = 10.0
"""Seconds after which the bytes of all files are read again: other coordinators store files, too."""
_FAILED_FOR: Final = 5.0
"""Seconds after which they are read again if that failed. Until then files are refused without another wait."""
_NAME: Final = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})\.z")
_USED: Final = re.compile(rf"{_UNFINISHED}|[0-9a-f]{{2}}")
"""The folders that `put` makes, which stay if their files are removed."""
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is kept: the SHA-256 of its content in hexadecimal digits, and its size in bytes.

    packed: the bytes that it takes, compressed; None if this is not known here.
    """

    sha256: str
    size: int
    packed: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, data: bytes) -> Kept:
        """Return the hash and size of a content."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))


class Store(Protocol):
    """A place that holds compressed files by name. Its functions block."""

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None if it is not there. Raises FilesError."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Store a file for good before returning. Raises FilesError."""
        ...

    def get(self, name: str, most: int, offset: int = 0) -> bytes | None:
        """Return the `most` bytes of a file after the first `offset`; None if it is not there. Raises FilesError."""
        ...

    def listed(self, folder: str) -> dict[str, int]:
        """Return the bytes of the files in a folder by their names. Raises FilesError."""
        ...

    def is_unused(self) -> bool:
        """Return whether no file was ever stored here, as in an empty folder that nothing is mounted on. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound on all files together. total: the most bytes, compressed.

    used: returns the bytes of all files that are recorded. It blocks, and raises RecordsError.
    """

    total: int
    used: Callable[[], int]


class Fetcher:
    """The kept files of a course, to be read: where they are kept, or through a coordinator. Its functions block."""

    def __init__(self, get: Callable[[Kept], bytes | None], place: str) -> None:
        """Read the files of a place. get: returns a compressed file; None if it is not there."""
        self._get = get
        self.place: str = place

    def fetch(self, kept: Kept) -> bytes:
        """Return a kept file.

        Raises:
            FileLost: It is not there, or damaged.
            FilesError: The store can't be read.
        """
        packed = self._get(kept)
        if packed is None:
            raise _lost(kept, self.place)
        try:
            data = zlib.decompressobj().decompress(packed, kept.size + 1)
        except zlib.error as error:
            raise FileLost(f"the file {kept.sha256} in {self.place} is damaged: {error}") from error
        if Kept.of(data) != kept:
            raise FileLost(f"the file {kept.sha256} in {self.place} is damaged: its content has another hash")
        return data


class Files(Fetcher):
    """The kept files of a course in the place that holds them. Its functions block."""

    def __init__(self, place: str, *, largest: int | None = None, bound: Bound | None = None) -> None:
        """Use the files of a place, which is made with the first file.

        Args:
            place: A folder, or a bucket as s3://BUCKET/PREFIX?endpoint=URL&region=NAME.
            largest: The most bytes of a file to keep; None for no limit.
            bound: The bound on all files; None for no limit.

        Raises:
            UsageError: The place can't hold files.
        """
        self._store: Store = Bucket.at(place) if place.startswith("s3://") else _Folder(_folder(place))
        self._room = None if bound is None else _Room(self._store, bound)
        self._largest = largest
        super().__init__(lambda kept: self._store.get(_name(kept), most_packed(kept)), str(self._store))

    def keep(self, data: bytes) -> Kept | None:
        """Store a file for good; None if it is larger than the limit, and then it is not stored.

        Raises:
            FilesError: The store can't be written to, or is full.
            RecordsError: The bytes of all files can't be read.
        """
        if self._largest is not None and len(data) > self._largest:
            return None
        kept = Kept.of(data)
        size = self._store.size(_name(kept))
        if size is None:
            packed = zlib.compress(data, 6)
            size = len(packed)
            with self._room.taken(size) if self._room is not None else contextlib.nullcontext():
                self._store.put(_name(kept), packed)
        return replace(kept, packed=size)

    def listed(self, first: str) -> dict[str, int]:
        """Return the bytes that files take, by their hashes. Raises FilesError.

        Args:
            first: The first two digits of the hashes.
        """
        named = ((_NAME.fullmatch(name), size) for name, size in self._store.listed(first).items())
        return {match[1]: size for match, size in named if match is not None}

    def is_unused(self) -> bool:
        """Return whether no file was ever stored in this place. Raises FilesError."""
        return self._store.is_unused()

    def part(self, kept: Kept, offset: int, most: int) -> bytes:
        """Return a part of a kept file as it is stored, compressed; empty at its end.

        Raises:
            FileLost: The file is not there.
            FilesError: The store can't be read.
        """
        found = self._store.get(_name(kept), max(0, min(most, most_packed(kept) - offset)), offset)
        if found is None:
            raise _lost(kept, self.place)
        return found


def default_place(database: str) -> str:
    """Return where files are kept if no place is named: beside a SQLite file, else in the folder of the records.

    Args:
        database: The URL of the records.
    """
    url = make_url(database)
    if url.get_backend_name() == "sqlite" and url.database:
        file = Path(url.database)
        return str(file.with_name(f"{file.stem}-files").absolute())
    return str(Path(os.environ.get(RECORDS_FOLDER) or platformdirs.user_data_path("rabbitry")) / "grading-files")


def _name(kept: Kept) -> str:
    return f"{kept.sha256[:2]}/{kept.sha256}.z"


def most_packed(kept: Kept) -> int:
    """Return how many bytes a kept file takes at most, compressed."""
    # zlib's worst case is data that does not compress: 5 bytes for each 16 KiB, and 6 bytes.
    return kept.size + kept.size // 1000 + 1000


def _lost(kept: Kept, place: str) -> FileLost:
    return FileLost(
        f"the file {kept.sha256} is not in {place}: name the place where the coordinator keeps the files, "
        f"with --files or {VARIABLE}"
    )


def emptied(place: object) -> FilesError:
    """Return the error of a place that holds nothing although files are recorded."""
    return FilesError(
        f"the place of files {place} is empty, but files are recorded: mount it, or name the right one with --files or "
        f"{VARIABLE}"
    )


def _folder(place: str) -> Path:
    if found := _URL.match(place):  # the rest may hold a password
        raise UsageError(f"the place of files is a URL with {found[0]}: use a folder or an s3:// URL")
    if not place.strip() or "\0" in place:
        raise UsageError("the place of files is empty: name a folder")
    folder = Path(place).absolute()
    try:
        is_other = folder.exists() and not folder.is_dir()
    except OSError as error:
        raise UsageError(f"the place of files {str(folder)!r} can't be used: {reason(error)}") from error
    if is_other:
        raise UsageError(f"the place of files {str(folder)!r} is not a folder: name another one with --files")
    return folder


class _Room:
    """The room for files in a place, by what is recorded of all coordinators and what this one stored since."""

    def __init__(self, store: Store, bound: Bound) -> None:
        self._store = store
        self._bound = bound
        self._lock = threading.Lock()
        self._recorded = 0
        self._since = self._before = 0
        """Bytes stored here since that was read, and in the time before: these may not have been recorded yet."""
        self._reading: Future[None] | None = None
        """The last read of what is recorded, which may not be done yet: threads that need it wait for the same one."""
        self._read_at = 0.0

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Count a new file, which the block stores.

        Raises:
            FilesError: All files would take more than the limit, or the place has lost those that are recorded.
            RecordsError: The bytes of all files can't be read. Of several threads all wait for one read at most.
        """
        self._read()
        with self._lock:
            used = self._recorded + self._since + self._before
            if used + size > self._bound.total:
                raise FilesError(
                    f"the files in {self._store} take {used} bytes, and a file of {size} more would exceed the "
                    f"limit of {self._bound.total}: raise largest_total in the course's configuration, or remove some"
                )
            self._since += size
        try:
            if self._recorded and self._store.is_unused():
                raise emptied(self._store)
            yield
        except BaseException:  # its message comes again, and is not to take the room each time
            with self._lock:
                # It may have been read anew in the meantime; then the file is counted a little longer.
                self._since = max(0, self._since - size)
            raise

    def _read(self) -> None:
        """Read what is recorded, unless that was done a short time ago. Raises RecordsError."""
        with self._lock:
            reading = self._reading
            if is_mine := reading is None or self._is_old(reading):
                reading = self._reading = Future()
        if not is_mine:
            reading.result()
            return
        try:
            recorded = self._bound.used()
        except BaseException as error:
            self._read_at = time.monotonic()
            reading.set_exception(error)
            raise
        with self._lock:
            self._recorded, self._read_at = recorded, time.monotonic()
            self._since, self._before = 0, self._since
        reading.set_result(None)

    def _is_old(self, reading: Future[None]) -> bool:
        """Return whether the outcome of a read does not hold any more."""
        if not reading.done():
            return False
        lasts = _COUNTED_FOR if reading.exception() is None else _FAILED_FOR
        return time.monotonic() > self._read_at + lasts


class _Folder:
    """A folder that only its user can read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_swept = False
        self._durable: set[Path] = set()
        """Folders whose own names are durable. Another process may have made them, and been killed before they were."""

    def __str__(self) -> str:
        return str(self._folder)

    def size(self, name: str) -> int | None:
        path = self._folder / name
        try:
            if not path.is_file():
                return None
            # Another thread, or a process that was killed, may have stored it without making its name durable yet.
            self._make_durable(path.parent)
            return path.stat().st_size
        except OSError as error:
            raise FilesError(f"the file {path} can't be looked up: {reason(error, is_named=False)}") from error

    def put(self, name: str, data: bytes) -> None:
        path = self._folder / name
        aside = self._folder / _UNFINISHED
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self._folder, aside, path.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._sweep()
            file, unfinished = tempfile.mkstemp(dir=aside)
            try:
                with os.fdopen(file, "wb") as target:
                    target.write(data)
                    target.flush()
                    os.fsync(target.fileno())
                # A second coordinator may store the same content at the same time: the bytes are the same.
                os.replace(unfinished, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(unfinished)
                raise
            self._make_durable(path.parent)
        except OSError as error:
            raise FilesError(f"the file {path} can't be written: {reason(error, is_named=False)}") from error

    def get(self, name: str, most: int, offset: int = 0) -> bytes | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FilesError(f"the file {path} can't be read: {reason(error, is_named=False)}") from error

    def _make_durable(self, folder: Path) -> None:
        """Make the names in a folder durable; with its first use also its own, and that of the folder around it."""
        _sync(folder)
        if folder not in self._durable:
            _sync(self._folder)
            with contextlib.suppress(PermissionError):  # then another user made the folder there
                _sync(self._folder.parent)
            self._durable.add(folder)

    def listed(self, folder: str) -> dict[str, int]:
        try:
            return {f"{folder}/{path.name}": path.stat().st_size for path in (self._folder / folder).glob("*")}
        except OSError as error:
            raise FilesError(f"the files in {self._folder} can't be counted: {reason(error)}") from error

    def is_unused(self) -> bool:
        try:
            return not any(_USED.fullmatch(path.name) for path in self._folder.iterdir())
        except FileNotFoundError:
            return True
        except OSError as error:
            raise FilesError(f"the place of files {self._folder} can't be read: {reason(error)}") from error

    def _sweep(self) -> None:
        """Remove what was never finished, once: only a process that stores files may remove any."""
        if self._is_swept:
            return
        self._is_swept = True
        oldest = time.time() - _ABANDONED
        for path in (self._folder / _UNFINISHED).glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
