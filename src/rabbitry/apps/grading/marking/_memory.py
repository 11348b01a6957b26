"""The memory that all processes of a submission use together, as far as the kernel shows it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_CHUNK: Final = 64 * 1024
_STATUS: Final = re.compile(rb"^(VmRSS|VmPTE|RssShmem):\s+(\d+) kB$", re.MULTILINE)
_PSS: Final = re.compile(rb"^(Pss_Anon|Pss_File|Pss_Shmem):\s+(\d+) kB$", re.MULTILINE)
# Memory shared by processes without a file: start, end, offset, number of the object.
_SHARED: Final = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S{3}s ([0-9a-f]+) \S+ (\d+) +/dev/zero", re.MULTILINE)


class Memory(NamedTuple):
    """Bytes, and memory mappings, each of which costs the kernel some bytes that it does not report."""

    bytes: int
    mappings: int


class MemoryWatch:
    """Measures the memory of processes repeatedly.

    Shared memory without a file belongs to no process: it stays after the process that filled it has ended or
    returned its pages, as long as any process maps a piece of it. Therefore the objects are counted: by the allocated
    size of each if this user may read it (root), else by the largest size seen.
    """

    def __init__(self) -> None:
        self._objects: dict[int, int] = {}

    def look(self, pids: Iterable[int], bound: int, most_mappings: int) -> Memory:
        """Return the memory of the processes; if it is near the bound, exactly: shared pages count once.

        Counting stops beyond `most_mappings`, because it would take long.
        """
        pids = list(pids)
        mappings, objects = 0, dict[int, int]()
        for pid in pids:
            mappings += _look_at_mappings(pid, most_mappings - mappings, objects)
            if mappings > most_mappings:
                return Memory(0, mappings)
        self._objects = {number: max(size, self._objects.get(number, 0)) for number, size in objects.items()}
        shared = sum(self._objects.values())
        used = [_read(pid, "status", _STATUS) for pid in pids]
        resident, tables, of_files = (_sum(used, name) for name in (b"VmRSS", b"VmPTE", b"RssShmem"))
        roughly = resident - of_files + max(shared, of_files) + tables
        if roughly <= bound:
            return Memory(roughly, mappings)
        exact = [_read(pid, "smaps_rollup", _PSS) for pid in pids]
        if not any(exact):  # this user may not read them
            return Memory(roughly, mappings)
        own = _sum(exact, b"Pss_Anon") + _sum(exact, b"Pss_File")
        return Memory(own + max(shared, _sum(exact, b"Pss_Shmem")) + tables, mappings)


def _read(pid: int, name: str, wanted: re.Pattern[bytes]) -> dict[bytes, int]:
    """Return figures of a process in bytes; none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return {}
    return {key: int(value) * 1024 for key, value in wanted.findall(text)}


def _sum(figures: list[dict[bytes, int]], name: bytes) -> int:
    return sum(found.get(name, 0) for found in figures)


def _look_at_mappings(pid: int, most: int, objects: dict[int, int]) -> int:
    """Return how many mappings a process has, or a number beyond `most`; note the sizes of its shared objects."""
    mappings, left = 0, b""
    try:
        with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
            while mappings <= most and (more := file.read(_CHUNK)):
                text, _, left = (left + more).rpartition(b"\n")
                mappings += text.count(b"\n") + 1
                if b"/dev/zero" in text:
                    _note_shared(pid, text, objects)
    except OSError:  # the process is gone
        pass
    return mappings


def _note_shared(pid: int, text: bytes, objects: dict[int, int]) -> None:
    for start, end, offset, number in _SHARED.findall(text):
        first, last = int(start, 16), int(end, 16)
        try:
            size = os.stat(f"/proc/{pid}/map_files/{first:x}-{last:x}").st_blocks * 512
        except OSError:  # not root, or the process is gone
            size = int(offset, 16) + last - first
        objects[int(number)] = max(size, objects.get(int(number), 0))
