"""The RabbitMQ servers shared by the processes of a test run, since each start takes five seconds of CPU.

A server is a file in a folder of the run, its note, which holds a pickled `RabbitMQ`, and is lent to the process that
has locked the file beside it. The launcher starts the servers, so that they outlive who started them. They end with the
run.
"""

import contextlib
import fcntl
import itertools
import os
import pickle
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from tests.support.launcher import launch
from tests.support.processes import is_gone
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import WITHIN, eventually_blocking

_FOLDER: Final = "TESTS_RABBITMQ"
_FOR_ALL: Final = "for-all"
_LOCK: Final = ".lock"
"""A note has its lock in a file of its own, since it is replaced each time."""
_PLUGINS: Final = ("rabbitmq_consistent_hash_exchange",)
"""Plugins whose exchange types the embedded broker has too."""
_numbers = itertools.count(1)


class Servers:
    """The servers of a run, as pytest's first process sees them, before whose launcher they have to end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitry-servers-")
        os.environ[_FOLDER] = self._folder.name

    def close(self) -> None:
        """End all of them."""
        for lock in Path(self._folder.name).glob(f"*{_LOCK}"):
            if (note := _read(lock.with_suffix(""))) is not None:
                note.end()
        self._folder.cleanup()


class _Note(NamedTuple):
    """What is known of a server."""

    server: RabbitMQ
    is_lent: bool

    def end(self) -> None:
        """End the server, also where who had it was killed and may have restarted it: as a process not known here."""
        if self.is_lent:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.cwd() == str(self.server.directory):
                        process.kill()
        self.server.close()


def for_all() -> RabbitMQ:
    """Return the server that all tests share, which no test may stop, kill or pause."""
    path = Path(os.environ[_FOLDER]) / _FOR_ALL
    with path.with_suffix(_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # while it starts, the others wait
        if (note := _read(path)) is not None:
            return note.server
        server = _started(RabbitMQ(spawn=_spawn, plugins=_PLUGINS))
        _write(path, _Note(server, is_lent=False))
        return server


def start_for_all() -> None:
    """Start the server that all tests share, without waiting for it; if that fails, the first that asks tries again."""
    with open(os.devnull, "wb") as nowhere:
        launch([], os.environ, nowhere.fileno(), nowhere.fileno(), module="tests.support.rabbitmq_started").leave()


@contextlib.contextmanager
def lent() -> Iterator[RabbitMQ]:
    """Lend a server with the management API, as empty as a new one, to stop, kill, pause, configure and start again."""
    with _locked() as path:
        server = _emptied(path) or _started(RabbitMQ(management=True, spawn=_spawn))
        _write(path, _Note(server, is_lent=True))
        try:
            yield server
        finally:
            if server.is_running:
                server.pause()  # until it is lent again: its statistics would take half a percent of the processor
                _write(path, _Note(server, is_lent=False))
            else:
                path.unlink()
                server.close()


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """Lock a note that is free; a new one if there is none."""
    folder = Path(os.environ[_FOLDER])
    there = [path for path in sorted(folder.glob(f"*{_LOCK}")) if path.stem != _FOR_ALL]
    # Another process may list and lock a new file before this one does, and has its server then: the next one is tried.
    new = (folder / f"lent-{os.getpid()}-{number}{_LOCK}" for number in _numbers)
    for path in itertools.chain(there, new):
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield path.with_suffix("")  # closing the lock unlocks it
            return


def _emptied(path: Path) -> RabbitMQ | None:
    """Return the server of a note, emptied; None, with the server ended, where that fails or its holder was killed."""
    note = _read(path)
    if note is None:
        return None
    if not note.is_lent:
        note.server.resume()
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):  # it ended, or is paused
            if note.server.is_ready():
                note.server.reset()
                return note.server
    note.end()
    path.unlink()
    return None


def _started(server: RabbitMQ) -> RabbitMQ:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def _read(path: Path) -> _Note | None:
    with contextlib.suppress(FileNotFoundError):
        note: _Note = pickle.loads(path.read_bytes())  # noqa: S301 - a process of this run has written it
        return note
    return None


def _write(path: Path, note: _Note) -> None:
    """Replace a note: who reads it meanwhile, or after a kill in the middle, finds all of the one or the other."""
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(note))
    new.replace(path)


class _Process:
    """A process that the launcher started, for any process of the run, with the part of `Popen` used by `RabbitMQ`."""

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


def _spawn(command: list[str], environment: Mapping[str, str], output: int, cwd: str | None) -> _Process:
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    launched = launch(command, environment, output, output, cwd=cwd, module="tests.support.executing")
    return _Process(launched.leave())
