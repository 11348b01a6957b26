"""Lexing of submissions in a process with limits: Pygments' regular expressions are not linear on every text.

Its lexer for Java takes 2.4 s for 8,000 empty lines, and four times as long for twice as many. In a thread such a text
would hold up the whole program.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final, ParamSpec, Self, TypeVar

from rabbitry._errors import described
from rabbitry.apps.grading.exceptions import LexingFailed

CPU_SECONDS: Final = 20
"""CPU time for one call, by default. A program of 1 MB takes about 1 s."""
MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of data of the process."""
_PATIENCE: Final = 300.0
"""Seconds by the clock that a call may take: the machine may be busy."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Lexing:
    """A process that calls functions within limits, started when first needed. For one thread; a context manager.

    Args:
        cpu_seconds: CPU time for one call. After it the process is killed, and the next call gets another.
    """

    def __init__(self, cpu_seconds: int = CPU_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what a function of a module returns. Blocks.

        Raises:
            LexingFailed: The function failed or exceeded a limit.
        """
        try:
            pipe = self._pipe or self._start()
            pipe.send((function, args, kwargs))
            if not pipe.poll(_PATIENCE):
                raise LexingFailed(f"not read within {_PATIENCE:g} s: this machine is too busy")
            problem, result = pipe.recv()
        except (EOFError, OSError) as error:
            raise LexingFailed(self._why_ended(error)) from error
        except BaseException:  # its answer would be taken for that to the next call
            self._end()
            raise
        if problem is not None:
            raise LexingFailed(problem)
        found: _T = result
        return found

    def _start(self) -> Connection:
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # no argument comes from a submission
                    # -P: else a copy.py in the current folder would be taken for the standard library's.
                    [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(self._cpu_seconds)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except OSError:
                ours.close()
                raise
        self._pipe = ours
        return ours

    def _why_ended(self, error: Exception) -> str:
        code = self._end()
        if code == -signal.SIGXCPU:
            return f"not read within {self._cpu_seconds} s of CPU time"
        return f"not read: {described(error)}" if code is None else f"not read: its process ended with exit code {code}"

    def _end(self) -> int | None:
        """End the process, which is idle or to be killed; return its exit code if it ended by itself."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):  # it ends when its pipe does, unless it is still in a call
            return process.wait(1)
        process.kill()
        return process.wait()


def _serve(pipe: Connection, cpu_seconds: int) -> None:
    """Call functions until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group of a terminal
    _limit(resource.RLIMIT_DATA, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    while True:
        # The kernel counts the CPU time of the process from its start, in whole seconds.
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + cpu_seconds))
        try:
            function, args, kwargs = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str | None, object]
        try:
            answer = None, function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a lexer may raise anything, and MemoryError; the caller reports it
            answer = f"not read: {described(error)}", None
        pipe.send(answer)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    with Connection(int(sys.argv[1])) as ends:
        _serve(ends, int(sys.argv[2]))
