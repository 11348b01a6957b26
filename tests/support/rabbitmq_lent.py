"""The RabbitMQ servers shared by the processes of a test run, since each start takes five seconds of CPU.

A server is a file in a folder of the run, which holds a pickled `RabbitMQ`, and is lent to the process that has locked
it. The launcher starts the servers, so that they outlive who started them. They end with the run.
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
from typing import BinaryIO, Final

import psutil

from tests.support.launcher import launch
from tests.support.processes import is_gone
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import WITHIN, eventually_blocking

_FOLDER: Final = "TESTS_RABBITMQ"
_FOR_ALL: Final = "for-all"
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
        for path in Path(self._folder.name).iterdir():
            with path.open("rb") as file:
                if (server := _read(file)) is not None:
                    server.close()
        self._folder.cleanup()


def for_all() -> RabbitMQ:
    """Return the server that all tests share, which no test may stop, kill or pause."""
    with (Path(os.environ[_FOLDER]) / _FOR_ALL).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # while it starts, the others wait
        return _read(file) or _started(file, RabbitMQ(spawn=_spawn, plugins=_PLUGINS))


@contextlib.contextmanager
def lent() -> Iterator[RabbitMQ]:
    """Lend a server with the management API, as empty as a new one, to stop, kill, pause, configure and start again."""
    with _locked() as file:
        server = _read(file)
        if server is not None:
            server.resume()
        if server is not None and not _is_emptied(server):
            server.close()
            server = None
        if server is None:
            server = _started(file, RabbitMQ(management=True, spawn=_spawn))
        try:
            yield server
        finally:
            if server.is_running:
                server.pause()  # until it is lent again: its statistics would take half a percent of the processor
                _write(file, server)
            else:
                server.close()
                file.truncate(0)


@contextlib.contextmanager
def _locked() -> Iterator[BinaryIO]:
    """Lock the file of a server that is free; a new, empty file if there is none."""
    folder = Path(os.environ[_FOLDER])
    there = [path for path in sorted(folder.iterdir()) if path.name != _FOR_ALL]
    # Another process may list and lock a new file before this one does, and has its server then: the next one is tried.
    new = (folder / f"lent-{os.getpid()}-{number}" for number in _numbers)
    for path in itertools.chain(there, new):
        with path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield file  # closing it unlocks it
            return


def _is_emptied(server: RabbitMQ) -> bool:
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):  # it ended, or is paused
        if server.is_ready():
            server.reset()
            return True
    return False


def _started(file: BinaryIO, server: RabbitMQ) -> RabbitMQ:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    _write(file, server)
    return server


def _read(file: BinaryIO) -> RabbitMQ | None:
    file.seek(0)
    if content := file.read():
        server: RabbitMQ = pickle.loads(content)  # noqa: S301 - a process of this run has written it
        return server
    return None


def _write(file: BinaryIO, server: RabbitMQ) -> None:
    file.truncate(0)
    file.write(pickle.dumps(server))
    file.flush()


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
