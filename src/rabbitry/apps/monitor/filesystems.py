"""The local file systems of this machine, and how full they are."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

from rabbitry.apps.monitor.sample import Space

LIMIT = 128
"""The most file systems in a sample, so that it stays small."""

_READ_ONLY = {"squashfs", "iso9660", "udf", "erofs", "cramfs", "romfs"}
"""Read-only images, which are always full."""
_LAYERS = ("/var/lib/docker/", "/var/lib/containers/", "/var/lib/kubelet/", "/var/lib/containerd/", "/snap/")


def local_filesystems() -> dict[str, Space]:
    """Return mount point → space of each file system on a device of this machine, in order.

    File systems of other machines are not asked: one that hangs would stop the samples. One that is mounted at
    several places counts once, at its shortest path.
    """
    points: dict[str, str] = {}
    try:
        partitions = psutil.disk_partitions(all=False)
    except OSError:  # a container that hides them
        return {}
    for partition in partitions:
        if partition.fstype in _READ_ONLY or partition.mountpoint.startswith(_LAYERS):
            continue
        known = points.get(partition.device)
        if known is None or len(partition.mountpoint) < len(known):
            points[partition.device] = partition.mountpoint
    found: dict[str, Space] = {}
    # A container has single files of the host mounted, /etc/hosts for one.
    for point in sorted(filter(os.path.isdir, points.values()))[:LIMIT]:
        with suppress(OSError):  # not for this user, or unmounted meanwhile
            usage = psutil.disk_usage(point)
            found[point] = space(usage.used, usage.free)
    return found


def space(used: int, free: int) -> Space:
    """Return the space of a file system or of swap, whose percentage agrees with its bytes."""
    total = used + free
    return Space(total, used, free, round(100 * used / total, 1) if total else 0.0)
