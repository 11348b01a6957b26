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
    """Bytes; `percent` is what is not available, of the total."""

    total: int
    available: int
    used: int
    percent: float


class Space(msgspec.Struct, frozen=True):
    """Bytes of a file system or of swap; `percent` is used, 0 to 100."""

    total: int
    used: int
    free: int
    percent: float


class Sample(msgspec.Struct, frozen=True):
    """What is published: JSON with these names.

    `cpu` and `cores` are busy fractions 0..1 over the interval, `cpu_percent` is 100 times `cpu`. `disk` is
    the file system at `/`, `disks` whole block devices. `load` is over 1, 5 and 15 minutes, `temperatures`
    are in °C, `uptime` in seconds.
    """

    timestamp: str
    hostname: str
    platform: str
    cpu: float
    cpu_percent: float
    cores: list[float]
    net: dict[str, Net]
    memory: Memory
    swap: Space
    disk: Space
    disks: dict[str, DiskRate]
    load: list[float]
    temperatures: dict[str, float]
    uptime: float
    processes: int
