"""Memory for large tables that are read all over."""

from __future__ import annotations

import contextlib
import mmap


def memory_of(size: int) -> memoryview[int]:
    """Return `size` bytes of memory, all 0.

    It has pages of 2 MiB where the system has such. With pages of 4 KiB, a processor would have to look up most of them
    in the page tables first, as each access is somewhere else: finding one of 10,000,000 links takes half as long again
    (`make bench-crawl ARGS=seen`).
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
