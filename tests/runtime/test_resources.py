"""What this process may use and does use."""

import os
import sys

import psutil
import pytest

from rabbitry.runtime.resources import (
    descriptor_limit,
    descriptors_in_use,
    free_descriptors,
    memory_in_use,
    memory_of_machine,
)


def test_open_files_count() -> None:
    before = descriptors_in_use()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(7)]
    try:
        assert descriptors_in_use() >= before + 7
    finally:
        for file in opened:
            os.close(file)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of descriptors")
def test_the_limit_is_that_of_the_process() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
        assert descriptor_limit() == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of descriptors")
def test_free_descriptors_are_counted_up_to_the_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened) + 1, hard))  # each lower number is in use
        assert free_descriptors(100) == 0
        for file in [opened.pop(7), opened.pop(3), opened.pop()]:
            os.close(file)
        assert free_descriptors(100) == 3
        assert free_descriptors(2) == 2
        assert free_descriptors(0) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in opened:
            os.close(file)


def test_memory_is_that_of_the_process_and_the_machine() -> None:
    assert memory_of_machine() == psutil.virtual_memory().total
    assert 1 << 20 < memory_in_use() < memory_of_machine()
