"""The one sample type, for contracts `pi_utilization` and `system_info` alike."""

from __future__ import annotations

import msgspec


class Net(msgspec.Struct, frozen=True):
    """Bytes a second over the interval, received and sent."""

    rx: float
    tx: float


class DiskRate(msgspec.Struct, frozen=True):
    """Bytes a second over the interval, read and written."""

    read: float
    write: float


class Memory(msgspec.Struct, frozen=True):
    """Bytes; `used` is what is not available, `percent` that of the total."""

    total: int
    available: int
    used: int
    percent: float


class Space(msgspec.Struct, frozen=True):
    """Bytes of a file system or of swap; `percent` is `used` of `total`, 0 to 100.

    Blocks of a file system that are reserved for root are no part of `total`, so that it is full at 100 %.
    """

    total: int
    used: int
    free: int
    percent: float


class Share(msgspec.Struct, frozen=True):
    """Bytes of memory that a control group may have, and what it has of them."""

    total: int
    used: int
    percent: float


class Container(msgspec.Struct, frozen=True):
    """The limits of the control group that the agent runs in, beside those of the machine. None: no such limit.

    `cpus` is the processors' worth of time that it may use, `cpu` the busy fraction 0..1 of that over the interval.
    """

    memory: Share | None = None
    cpus: float | None = None
    cpu: float | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The published sample: JSON with these names.

    `machine` tells this machine from others of its name. `cpu` and `cores` are busy fractions 0..1 over the interval,
    `cpu_percent` is 100 times `cpu`. `uplinks` are the interfaces of `net` whose traffic is the machine's own, each
    byte in one of them. `disk` is the file system at `/`, `filesystems` are all local ones by mount point, `disks`
    whole block devices. `load` is over 1, 5 and 15 minutes, `temperatures` are in °C, `uptime` in seconds. `container`
    is None if the agent runs without limits of its own.
    """

    timestamp: str
    hostname: str
    machine: str = ""
    platform: str
    cpu: float
    cpu_percent: float
    cores: list[float]
    net: dict[str, Net]
    uplinks: list[str] = []
    memory: Memory
    swap: Space
    disk: Space
    filesystems: dict[str, Space] = {}
    disks: dict[str, DiskRate]
    load: list[float]
    temperatures: dict[str, float]
    uptime: float
    processes: int
    container: Container | None = None
