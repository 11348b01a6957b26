"""What the processes of a test run share: servers, each started by the first that asks for it.

A server is a file in a folder of the run, its note, and whoever reads or replaces that has locked the file beside it.
The launcher starts the servers' processes, so that they outlive who started them. They end with the run.
"""

import contextlib
import fcntl
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import psutil

from tests.support.launcher import launch
from tests.support.processes import is_gone
from tests.support.waiting import WITHIN, eventually_blocking

_FOLDER: Final = "TESTS_SHARED"
LOCK: Final = ".lock"
"""A note has its lock in a file of its own, since it is replaced each time."""


class Note(Protocol):
    """What is known of a server; it can be pickled."""

    def end(self) -> None:
        """End the server."""


N = TypeVar("N", bound=Note)


class Servers:
    """The servers of a run, as pytest's first process sees them, before whose launcher they have to end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitry-servers-")
        os.environ[_FOLDER] = self._folder.name

    def close(self) -> None:
        """End all of them, even if one can't be ended."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._folder.cleanup)
            for lock in Path(self._folder.name).glob(f"*{LOCK}"):
                note: Note | None = read(lock.with_suffix(""))
                if note is not None:
                    stack.callback(note.end)


def folder() -> Path:
    """Return the folder of the notes."""
    return Path(os.environ[_FOLDER])


def once(name: str, start: Callable[[], N]) -> N:
    """Return the note of a server that all tests share, and that none may stop. The first that asks starts it."""
    path = folder() / name
    with path.with_suffix(LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # while it starts, the others wait
        note: N | None = read(path)
        if note is None:
            note = start()
            write(path, note)
        return note


def read(path: Path) -> Any:
    """Return the note of a file; None if there is no file."""
    with contextlib.suppress(FileNotFoundError):
        return pickle.loads(path.read_bytes())  # noqa: S301 - a process of this run has written it
    return None


def write(path: Path, note: Note) -> None:
    """Replace a note: who reads it meanwhile, or after a kill in the middle, finds all of the one or the other."""
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(note))
    new.replace(path)


class Process:
    """A process that the launcher started, for any process of the run, with the part of `Popen` that servers use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._born = _born(pid)

    def poll(self) -> int | None:
        """Return None while it runs."""
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            if _born(self.pid) == self._born and not is_gone(psutil.Process(self.pid)):
                return None
        return 0

    def wait(self, timeout: float = WITHIN) -> int:
        """Wait for its end."""
        eventually_blocking(lambda: self.poll() is not None, f"the end of process {self.pid}", within=timeout)
        return 0

    def send_signal(self, number: int) -> None:
        """Send a signal; does nothing if the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _born(pid: int) -> int:
    """Return when a process began, in clock ticks since the machine did. Raises OSError if there is none.

    psutil's time for it moves when the machine's clock is set: a stopped server would count as another process, and
    would never be continued.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])  # field 22, proc_pid_stat(5)


def spawn(command: list[str], environment: Mapping[str, str], output: int, cwd: str | None) -> Process:
    """Start a command with an environment, a descriptor for its output, and its folder."""
    launched = launch(command, environment, output, output, cwd=cwd, module="tests.support.executing")
    return Process(launched.leave())
