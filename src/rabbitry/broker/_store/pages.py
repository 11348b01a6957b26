"""A reader of SQLite's file format, page by page, for databases that SQLite itself refuses as malformed.

SQLite loses a damaged page with everything below it; this reader visits every remaining page. The write-ahead log
counts, up to its last complete transaction. See https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from rabbitry.broker._store.files import log_path, read_at
from rabbitry.exceptions import RabbitryError
from rabbitry.runtime.files import exists

Value = int | float | str | bytes | None
_MAGIC: Final = b"SQLite format 3\0"
_PAGE_SIZE: Final = 4096
"""Page size assumed if the header is damaged: SQLite's default, which all stores have."""
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_KINDS: Final = frozenset({_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE})
_LOG_HEADER, _FRAME_HEADER = 32, 24
_LONGEST: Final = 256 << 20
"""Largest row, in bytes, that is considered valid: more than a message of 128 MiB."""


class Row(NamedTuple):
    """A row: its values, and its row id if its table has them (-1 elsewhere)."""

    number: int
    values: tuple[Value, ...]


class Malformed(RabbitryError):
    """A page or a row is damaged."""


class Image:
    """A database and its log as they are on the disk; read-only.

    unreadable: number of pages and headers that the disk failed to read. log_frames: number of valid frames of the log.
    log_damage: a description of the log's damage, "" if none is known.
    """

    def __init__(self, database: Path) -> None:
        self._file = open(database, "rb") if exists(database) else None  # noqa: SIM115 # closed by close()
        self.unreadable = 0
        header = self.head(100)
        self.has_header = header.startswith(_MAGIC)
        size = int.from_bytes(header[16:18], "big")
        size = 65536 if size == 1 else size
        is_size = self.has_header and size >= 512 and not size & (size - 1)
        self.page_size = size if is_size else _PAGE_SIZE
        self.log_damage = ""
        self.log_frames = 0
        self._log: dict[int, int] = {}
        self._log_file = None
        pages = 0
        log = log_path(database)
        if exists(log):
            self._log_file = open(log, "rb")  # noqa: SIM115 # closed by close()
            pages = self._read_log()
        there = database.stat().st_size // self.page_size if self._file is not None else 0
        self.pages = max(there, pages, *self._log, 0)
        first = self._page(1) if self.pages else b""
        self.has_header = first.startswith(_MAGIC)
        self.application = int.from_bytes(first[68:72], "big")
        self.version = int.from_bytes(first[60:64], "big")

    def head(self, size: int) -> bytes:
        """Return the first bytes of the database's file; none if the disk can't read them."""
        return b"" if self._file is None else self._read(self._file, 0, size) or b""

    def _read(self, file: BinaryIO, start: int, size: int) -> bytes | None:
        data = read_at(file, start, size)
        self.unreadable += data is None
        return data

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._log_file):
            if file is not None:
                file.close()

    def _read_log(self) -> int:
        """Read the log's frames up to the last commit. Return the database's page count then, 0 without a commit."""
        assert self._log_file is not None  # noqa: S101 # the caller opened it
        header = self._read(self._log_file, 0, _LOG_HEADER)
        if header is not None and (len(header) < _LOG_HEADER or not header.strip(b"\0")):
            return 0
        order = "<"
        sums: tuple[int, int] | None = None
        salts = b""
        if header is None:
            self.log_damage = "its header can't be read"
        elif _is_whole(header):
            order = ">" if header[3] & 1 else "<"
            sums, salts = struct.unpack(">II", header[24:]), header[16:24]
        else:
            self.log_damage = "its header is damaged"
        taken: dict[int, int] = {}
        pages = number = 0
        size = _FRAME_HEADER + self.page_size
        while True:
            at = _LOG_HEADER + number * size + _FRAME_HEADER
            frame = self._read(self._log_file, at - _FRAME_HEADER, size)
            if frame is not None and len(frame) < size:
                break
            number += 1
            if frame is None:
                self.log_damage = self._rest_of_log(salts, number) or f"frame {number} can't be read"
                break
            page, commit = struct.unpack(">II", frame[:8])
            salts = salts or frame[8:16]  # without a header, those of the first frame
            if frame[8:16] != salts or not page:
                break
            stored: tuple[int, int] = struct.unpack(">II", frame[16:24])
            if sums is not None and _checksum(order, frame[24:], _checksum(order, frame[:8], sums)) != stored:
                self.log_damage = self.log_damage or self._rest_of_log(salts, number)
                break
            sums = stored
            taken[page] = at
            if commit:
                self._log.update(taken)
                taken.clear()
                pages, self.log_frames = commit, number
        return pages

    def _rest_of_log(self, salts: bytes, number: int) -> str:
        """Return a description of confirmed commits behind a damaged frame; "" for none."""
        assert self._log_file is not None  # noqa: S101 # the caller reads it
        lost = 0
        size = _FRAME_HEADER + self.page_size
        for start in range(_LOG_HEADER + number * size, os.fstat(self._log_file.fileno()).st_size, size):
            head = self._read(self._log_file, start, _FRAME_HEADER)
            if head is None:
                continue
            if len(head) < _FRAME_HEADER or head[8:16] != salts:
                break
            lost += head[4:8] != b"\0\0\0\0"
        return f"frame {number} is damaged, and {lost} transactions behind it are lost" if lost else ""

    def _page(self, number: int) -> bytes:
        at = self._log.get(number)
        file = self._file if at is None else self._log_file
        if file is None:
            return b""
        # If the disk can't read it, this page counts as damaged and the others do not.
        return self._read(file, (number - 1) * self.page_size if at is None else at, self.page_size) or b""

    def page(self, number: int) -> bytes:
        """Return a page.

        Raises:
            Malformed: The page does not exist.
        """
        page = self._page(number) if 0 < number <= self.pages else b""
        if len(page) < self.page_size:
            raise Malformed(f"page {number} is not in the file")
        return page

    # -- trees -----------------------------------------------------------------------------------------

    def free_pages(self) -> bytearray:
        """Return a byte for each page, by number: 1 if it is free.

        Raises:
            Malformed: The data are damaged.
        """
        free = bytearray(self.pages + 1)
        first = self.page(1)
        trunk = int.from_bytes(first[32:36], "big") if self.has_header else 0
        while trunk:
            if trunk > self.pages:
                raise Malformed("the list of free pages is damaged")
            if free[trunk]:
                raise Malformed(f"the list of free pages comes back to page {trunk}")
            free[trunk] = 1
            page = self.page(trunk)
            trunk, count = struct.unpack(">II", page[:8])
            if count > self.page_size // 4 - 2:
                raise Malformed("the list of free pages is damaged")
            leaves = struct.unpack_from(f">{count}I", page, 8)
            if any(not 1 < leaf <= self.pages for leaf in leaves):
                raise Malformed("the list of free pages is damaged")
            for leaf in leaves:
                free[leaf] = 1
        return free

    def children(self, number: int) -> list[int]:
        """Return the child pages of a page; none for a leaf.

        Raises:
            Malformed: The data are damaged.
        """
        page = self.page(number)
        kind, cells, start = self._cells(number, page)
        if kind in (_LEAF_INDEX, _LEAF_TABLE):
            return []
        children = [int.from_bytes(page[at : at + 4], "big") for at in cells]
        return [*children, int.from_bytes(page[start + 8 : start + 12], "big")]

    def rows(self, number: int) -> Iterator[Row | Malformed]:
        """Yield the rows of one page; a row that can't be read is yielded as its error.

        Raises:
            Malformed: The data are damaged.
        """
        page = self.page(number)
        kind, cells, _ = self._cells(number, page)
        if kind == _INTERIOR_TABLE:
            return
        for at in cells:
            try:
                yield self._row(page, at + 4 if kind == _INTERIOR_INDEX else at, is_table=kind == _LEAF_TABLE)
            except (Malformed, IndexError, struct.error, UnicodeDecodeError) as error:
                yield Malformed(f"a row of page {number}: {error}")

    def _cells(self, number: int, page: bytes) -> tuple[int, tuple[int, ...], int]:
        start = 100 if number == 1 else 0
        kind = page[start]
        if kind not in _KINDS:
            raise Malformed(f"page {number} is damaged")
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        pointers = start + (12 if kind in (_INTERIOR_INDEX, _INTERIOR_TABLE) else 8)
        if pointers + 2 * count > self.page_size:
            raise Malformed(f"page {number} is damaged")
        cells = struct.unpack_from(f">{count}H", page, pointers)
        if any(not pointers <= at < self.page_size for at in cells):
            raise Malformed(f"page {number} is damaged")
        return kind, cells, start

    def _row(self, page: bytes, at: int, *, is_table: bool) -> Row:
        size, at = _varint(page, at)
        number = -1
        if is_table:
            number, at = _varint(page, at)
        usable = self.page_size
        least = (usable - 12) * 32 // 255 - 23
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if size > _LONGEST:
            raise Malformed("it is too long")
        local = size
        if size > most:
            local = least + (size - least) % (usable - 4)
            local = local if local <= most else least
        payload = bytearray(page[at : at + local])
        following = int.from_bytes(page[at + local : at + local + 4], "big") if local < size else 0
        while len(payload) < size:
            more = self.page(following)
            following = int.from_bytes(more[:4], "big")
            payload += more[4 : 4 + size - len(payload)]
        return Row(number, _values(payload))


def _is_whole(header: bytes) -> bool:
    """Return whether the header of a log has its magic number and checksum."""
    order = ">" if header[3] & 1 else "<"
    sums = struct.unpack(">II", header[24:])
    return int.from_bytes(header[:4], "big") & ~1 == 0x377F0682 and _checksum(order, header[:24], (0, 0)) == sums


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Serial type → bytes of an integer."""


def _values(payload: bytearray) -> tuple[Value, ...]:
    end, at = _varint(payload, 0)
    if end > len(payload):
        raise Malformed("its header is too long")
    types = []
    while at < end:
        kind, at = _varint(payload, at)
        types.append(kind)
    values: list[Value] = []
    view = memoryview(payload)  # a slice would copy a message of 128 MiB
    at = end
    for kind in types:
        if kind in (0, 8, 9):
            values.append((None, 0, 1)[max(0, kind - 7)])
            continue
        size = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2)
        data = view[at : at + size]
        if size < 0 or len(data) < size:
            raise Malformed("it is cut")
        at += size
        if kind in _INTEGERS:
            values.append(int.from_bytes(data, "big", signed=True))
        elif kind == 7:
            values.append(struct.unpack(">d", data)[0])
        else:
            values.append(str(data, "utf-8") if kind & 1 else bytes(data))
    return tuple(values)


def _checksum(order: str, data: bytes, before: tuple[int, int]) -> tuple[int, int]:
    first, second = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next(words) + first) & 0xFFFFFFFF
    return first, second
