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
            # Linux has the number there since 6.2; listing 10,000 takes 20 ms.
            known = os.stat("/proc/self/fd").st_size if sys.platform == "linux" else 0
            return known or len(os.listdir("/dev/fd")) - 1  # without the one that lists them
        except OSError:
            return _UNCOUNTED


def free_descriptors(most: int) -> int:
    """Return how many file descriptors this process could still open, `most` if that many or more.

    Each free number is opened for a moment, one at a time. Listing the descriptors in use takes 20 ms at 10,000.
    """
    if sys.platform == "win32":
        return most
    else:
        import fcntl

        try:
            first = number = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return 0
        found = 1
        try:
            while found < most:
                number = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, number + 1)  # the next free number
                os.close(number)
                found += 1
        except OSError:
            pass  # there is none up to the limit
        finally:
            os.close(first)
        return min(found, most)


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
