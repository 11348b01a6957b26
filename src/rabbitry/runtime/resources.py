"""What this process may use and does use: file descriptors and memory, on each system that Rabbitry runs on."""

from __future__ import annotations

import os
import sys
from typing import Final

_UNCOUNTED: Final = 1 << 30


def descriptor_limit() -> int | None:
    """Return how many file descriptors this process may have; None for no limit, as on Windows."""
    if sys.platform == "win32":
        return None
    else:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if limit == resource.RLIM_INFINITY else limit


def descriptors_in_use() -> int:
    """Return how many file descriptors (Windows: handles) this process has open; 1 << 30 if none is left to look."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().num_handles()
    else:
        try:
            return len(os.listdir("/dev/fd")) - 1  # without the one that lists them
        except OSError:
            return _UNCOUNTED


def memory_in_use() -> int:
    """Return the memory of this process in bytes; 0 if the system does not report it."""
    if sys.platform == "linux":
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0
    else:
        import psutil

        return psutil.Process().memory_info().rss


def memory_of_machine() -> int:
    """Return the memory of this machine in bytes."""
    if sys.platform == "linux":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        import psutil

        return psutil.virtual_memory().total
