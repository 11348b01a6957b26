"""The process of which pytest-xdist's workers are forks: it has imported the tests, so that none of them has to.

To import them takes a worker four seconds of CPU, and eleven where no compiled modules are there.
"""

import ast
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol

import pytest

from tests.support import launcher
from tests.support.launcher import Launcher

_ADDRESS: Final = "TESTS_WORKERS"
_WORKER: Final = Path(__file__).with_name("worker.py")


class Spec(Protocol):
    """What is used here of execnet's description of a worker."""

    python: str | None


class Workers:
    """The process that forks the workers of a run, as pytest's first process sees it.

    The tests are `arguments`, with paths relative to `folder`.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._launcher = Launcher(__name__, [str(folder), *arguments], name=_ADDRESS)

    def fork(self, specs: Sequence[Spec]) -> None:
        """Make these workers forks of the process."""
        for spec in specs:
            spec.python = shlex.join([sys.executable, "-I", "-S", str(_WORKER)])

    def close(self) -> None:
        """End the process."""
        self._launcher.close()


class _Importing:
    """A plugin of pytest that imports all modules, but makes no tests of them."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self) -> list[pytest.Item]:
        """Return no test."""
        return []


def main() -> None:
    """Import the tests that the command line names, and fork for each worker, until the input is closed."""
    listening = launcher.wait_for_first()
    if listening is None:
        return
    folder, *arguments = sys.argv[2:]
    os.chdir(folder)  # of the workers, too
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),  # a test named as FILE::TEST is not found, since no test is made
    ):
        # A module that can't be imported, or is not there, is reported by the workers, who try it again.
        pytest.main([*arguments, "-n", "0", "--collect-only"], plugins=[_Importing()])
    if "hypothesis" in sys.modules:
        from hypothesis.internal.conjecture import providers

        providers._get_local_constants()  # reads all imported modules: each worker would do so, if any test needs it
    launcher.freeze()
    if launcher.next_job(listening, [sys.stdin]) is not None:
        _serve()


def _serve() -> None:
    """Be the worker that execnet's first line makes of a Python, to the end."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # or no process that a test starts would get one
    resource_tracker.ensure_running()  # before the first test, which would take its pipe for a leak
    # multiprocessing imports the file of the main module in each process that it starts: here pytest, for 0.2 s of CPU.
    sys.modules["__main__"] = ModuleType("__main__")
    if line := _first_line(0):
        exec(ast.literal_eval(line.decode()), {"__name__": "__main__"})  # noqa: S102 - execnet's way to start a worker
    launcher.finish(0)


def _first_line(descriptor: int) -> bytes:
    """Return the first line; nothing if the input ends before, because pytest was killed."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)  # what comes after the line is for what it starts
        if not byte:
            return b""
        line += byte
    return line


if __name__ == "__main__":
    main()
