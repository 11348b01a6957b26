"""The limits of the control group that this process runs in: a container's, mostly. Version 1 and 2 (cgroups(7))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

_OCTAL = re.compile(r"\\([0-7]{3})")


class Limits(msgspec.Struct, frozen=True):
    """The limits and the use of a control group, at one moment. None is: no limit, or not known."""

    memory: int | None = None
    """Bytes that it may have."""
    memory_used: int | None = None
    """Bytes that it has, without what the kernel can drop (files that were read)."""
    cpus: float | None = None
    """Processors' worth of time that it may use."""
    cpu_seconds: float | None = None
    """Processor time that it has used so far."""


@dataclass(frozen=True)
class _Group:
    """A control group: its folder, those above it that this process sees, itself first, and its version."""

    folders: tuple[Path, ...]
    unified: bool


def limits(memory: int, processors: int, root: Path = Path("/")) -> Limits | None:
    """Return the limits below what the machine has; None if there are none.

    Args:
        memory: bytes that the machine has.
        processors: processors that the machine has.
        root: where `/proc` and the control groups are.
    """
    most, used = _memory(root)
    if most is None or most >= memory:
        most = used = None
    cpus, seconds = _cpu(root)
    if cpus is None or cpus >= processors:
        cpus = seconds = None
    return None if most is None and cpus is None else Limits(most, used, cpus, seconds)


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Return the smallest limit of memory, from this group upwards, and what the group that has it uses."""
    group = _group("memory", root)
    if group is None:
        return None, None
    limit, current, droppable = (
        ("memory.max", "memory.current", "inactive_file")
        if group.unified
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    found = [(most, folder) for folder in group.folders if (most := _number(folder / limit)) is not None]
    if not found:
        return None, None
    most, folder = min(found, key=lambda each: each[0])
    used = _number(folder / current)
    return most, None if used is None else max(used - (_field(folder / "memory.stat", droppable) or 0), 0)


def _cpu(root: Path) -> tuple[float | None, float | None]:
    """Return the smallest limit of processor time, from this group upwards, and what the group that has it used."""
    found: list[tuple[float, Path, Path]] = []  # limit, the group that has it, the top of its hierarchy
    if group := _group("cpu", root):
        shares = ((_quota(folder, unified=group.unified), folder) for folder in group.folders)
        found += [(share, folder, group.folders[-1]) for share, folder in shares if share is not None]
    if pinned := _group("cpuset", root):
        folder = pinned.folders[0]
        number = _listed(folder / "cpuset.cpus.effective") or _listed(folder / "cpuset.effective_cpus")
        found += [(float(number), folder, pinned.folders[-1])] if number else []
    if not found:
        return None, None
    share, folder, top = min(found, key=lambda each: each[0])
    usage = _field(folder / "cpu.stat", "usage_usec")
    if usage is not None:
        return share, usage / 1e6
    # Version 1 counts in a hierarchy of its own, where the same group need not be.
    accounted = _group("cpuacct", root)
    usage = _number(accounted.folders[-1] / folder.relative_to(top) / "cpuacct.usage") if accounted else None
    return share, None if usage is None else usage / 1e9


def _quota(folder: Path, *, unified: bool) -> float | None:
    if unified:
        quota, _, period = _text(folder / "cpu.max").partition(" ")
    else:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", -1, or no such controller here
    return int(quota) / int(period)


def _group(controller: str, root: Path) -> _Group | None:
    """Return this process's group for a controller: of version 1 if that has it, else of version 2."""
    paths = dict[str, str]()
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)  # version 2 has the empty name
    unified: _Group | None = None
    for mounted, point, kind, options in _mounts(root):
        if kind == "cgroup" and controller in options and controller in paths:
            return _Group(tuple(_upwards(root, point, mounted, paths[controller])), unified=False)
        if kind == "cgroup2" and "" in paths and unified is None:
            unified = _Group(tuple(_upwards(root, point, mounted, paths[""])), unified=True)
    return unified


def _mounts(root: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield of each mounted hierarchy the group that is mounted, where, `cgroup` or `cgroup2`, and its options."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, separator, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if separator and len(fields) > 4 and len(kinds) > 2 and kinds[0].startswith("cgroup"):
            yield _unescaped(fields[3]), _unescaped(fields[4]), kinds[0], kinds[2].split(",")


def _upwards(root: Path, point: str, mounted: str, path: str) -> Iterator[Path]:
    """Yield the folder of the group `path` and those above it, up to where its hierarchy is mounted.

    A container without a namespace of its own reads the host's path in /proc/self/cgroup, while its own group is what
    is mounted.
    """
    top = root / point.lstrip("/")
    below = mounted.rstrip("/") + "/"
    folder = top / path[len(below) :] if path.startswith(below) and ".." not in path else top
    while not folder.is_dir() and folder != top:
        folder = folder.parent
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _listed(path: Path) -> int:
    """Count the processors of a list such as `0-3,8`; 0 if there is none."""
    number = 0
    for part in _text(path).split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return 0
        number += int(last or first) - int(first) + 1
    return number


def _field(path: Path, name: str) -> int | None:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
