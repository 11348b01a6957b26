"""The RabbitMQ servers shared by the processes of a test run, since each start takes five seconds of CPU.

A server is lent to the process that has locked the file beside its note (`tests/support/shared.py`).
"""

import contextlib
import fcntl
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from tests.support import shared
from tests.support.launcher import launch
from tests.support.rabbitmq import RabbitMQ

_FOR_ALL: Final = "for-all"
_LENT: Final = "lent-"
_PLUGINS: Final = ("rabbitmq_consistent_hash_exchange",)
"""Plugins whose exchange types the embedded broker has too."""
_numbers = itertools.count(1)


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
    return shared.once(_FOR_ALL, _start_for_all).server


def _start_for_all() -> _Note:
    return _Note(_started(RabbitMQ(is_thrifty=True, spawn=_spawn, plugins=_PLUGINS)), is_lent=False)


def start_for_all() -> None:
    """Start the server that all tests share, without waiting for it; if that fails, the first that asks tries again."""
    with open(os.devnull, "wb") as nowhere:
        launch([], os.environ, nowhere.fileno(), nowhere.fileno(), module="tests.support.rabbitmq_started").leave()


@contextlib.contextmanager
def lent() -> Iterator[RabbitMQ]:
    """Lend a server with the management API, as empty as a new one, to stop, kill, pause, configure and start again."""
    with _locked() as path:
        server = _emptied(path) or _started(RabbitMQ(management=True, is_thrifty=True, spawn=_spawn))
        shared.write(path, _Note(server, is_lent=True))
        try:
            yield server
        finally:
            if server.is_running:
                server.pause()  # until it is lent again: its statistics would take half a percent of the processor
                shared.write(path, _Note(server, is_lent=False))
            else:
                path.unlink()
                server.close()


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """Lock a note that is free; a new one if there is none."""
    folder = shared.folder()
    there = sorted(folder.glob(f"{_LENT}*{shared.LOCK}"))
    # Another process may list and lock a new file before this one does, and has its server then: the next one is tried.
    new = (folder / f"{_LENT}{os.getpid()}-{number}{shared.LOCK}" for number in _numbers)
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
    note: _Note | None = shared.read(path)
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


def _spawn(command: list[str], environment: Mapping[str, str], output: int, cwd: str | None) -> shared.Process:
    return shared.spawn(["setpriv", "--pdeathsig", "KILL", *command], environment, output, cwd)
