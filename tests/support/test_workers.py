"""Workers that are forks: they behave as workers of pytest-xdist that were started anew."""

import os
import signal
import subprocess
import sys
from multiprocessing.spawn import get_preparation_data
from pathlib import Path

from tests.support.waiting import WITHIN
from tests.support.workers import _first_line


def test_a_process_that_a_test_starts_gets_its_signals() -> None:
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()  # each process inherits what is blocked


_SHORT = test_a_process_that_a_test_starts_gets_its_signals


def test_a_test_is_found_from_the_folder_in_which_pytest_was_started() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "1", "-q", f"{Path(__file__).name}::{_SHORT.__name__}"],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert "1 passed" in run.stdout, run.stdout
    assert "ERROR" not in run.stdout + run.stderr


def test_processes_of_multiprocessing_do_not_import_the_module_that_forks_workers() -> None:
    prepared = get_preparation_data("process")
    assert prepared.get("init_main_from_name") in (None, "pytest.__main__")  # pytest's own where there are no workers
    assert "init_main_from_path" not in prepared


def test_a_worker_whose_pytest_was_killed_before_it_began_ends() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"'import")
    os.close(writing)
    assert _first_line(reading) == b""
    os.close(reading)
