"""Runs one command on a submission within limits; returns its output, how it ended, or why it was stopped."""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from rabbitry.apps.grading.exceptions import SandboxFailed, SandboxUnavailable
from rabbitry.apps.grading.marking._bubblewrap import bubblewrap
from rabbitry.apps.grading.marking._confine import MAX_FILES, PATIENCE, Confinement, Running
from rabbitry.apps.grading.marking._weak import Weak
from rabbitry.apps.grading.marking.scheme import Limits

MAX_REPORT: Final = 4 * 1024 * 1024

_LOOK_EVERY: Final = 0.05  # seconds between checks of memory and disk
_LOOK_WITHIN: Final = 0.5
_CHUNK: Final = 64 * 1024
# Memory mappings of a part: each costs kernel memory that nothing counts, and reading them takes time.
_MAPPINGS: Final = 20_000
_MAPPINGS_OF_EACH: Final = 500
# Reports that the sandbox is set up, so that its own failures are not blamed on the submission.
_READY: Final = 'printf %s "$0" >&2; exec "$@"'


class Outcome(Struct, frozen=True):
    """The outcome of a command."""

    code: int
    """The exit code; 128 plus the signal's number if a signal ended it."""
    stopped: str | None
    """Why it was stopped from outside, as the end of a sentence, or None."""
    stdout: bytes
    stderr: bytes
    report: bytes
    """The data written to the report descriptor."""


def why_it_ended(outcome: Outcome, limits: Limits) -> str | None:
    """Return why a command did not end by itself, as the end of a sentence, or None if it did."""
    if outcome.stopped is not None:
        return outcome.stopped
    number = outcome.code - 128
    if number == signal.SIGXCPU:
        return f"used more than {limits.cpu_seconds} s of CPU time"
    return f"was ended by {signal.Signals(number).name}" if number in set(signal.Signals) else None


def confinement(*, allow_weak: bool) -> Confinement:
    """Return the strongest confinement that works here; each is tried once.

    Raises:
        SandboxUnavailable: Bubblewrap does not work and `allow_weak` is not set.
    """
    try:
        return bubblewrap()
    except SandboxUnavailable:
        if not allow_weak:
            raise
    return Weak()


def run_in_bounds(
    confinement: Confinement,
    folder: Path,
    argv: Sequence[str],
    limits: Limits,
    *,
    key: bytes | None = None,
    take_stdout: Callable[[bytes], None] | None = None,
) -> Outcome:
    """Run a command in a copy of `folder`/submission, with `folder`/part/stdin as stdin. Blocks.

    With `key`, the command gets two more arguments: a descriptor to read the key from, and one to write a report to.
    `take_stdout` is called with stdout's data as it arrives, which is then neither stored nor limited. All processes of
    the command are gone when this returns or raises.

    Raises:
        SandboxFailed: The sandbox failed, not the command.
        Exception: An error of `take_stdout`.
    """
    token = secrets.token_hex(16).encode()
    with ExitStack() as stack:
        fds: list[int] = []
        report: IO[bytes] | None = None
        if key is not None:
            key_theirs, key_ours = os.pipe()
            with open(key_ours, "wb") as writer:
                writer.write(key)
            report_ours, report_theirs = os.pipe()
            report = stack.enter_context(open(report_ours, "rb", buffering=0))
            fds = [key_theirs, report_theirs]
        try:
            command = ["sh", "-c", _READY, token.decode(), *argv, *(str(fd) for fd in fds)]
            running = confinement.start(folder, command, limits, fds)
        finally:
            for fd in fds:
                os.close(fd)
        stack.enter_context(running.process)  # closes its pipes
        watch = _Watch(running, limits, report, token, take_stdout)
        try:
            watch.until_it_ends()
        finally:
            running.end()
        watch.read_what_is_left()
    return watch.outcome()


class _Watch:
    """Reads a command's output and stops the command at a limit."""

    def __init__(
        self,
        running: Running,
        limits: Limits,
        report: IO[bytes] | None,
        token: bytes,
        take_stdout: Callable[[bytes], None] | None,
    ) -> None:
        self._running = running
        self._limits = limits
        self._stopped: str | None = None
        self._token = token
        self._is_begun = False
        # The time in which a busy machine sets up the sandbox does not count for the submission.
        self._deadline = time.monotonic() + PATIENCE
        self._texts: dict[IO[bytes], bytearray] = {running.stdout: bytearray(), running.stderr: bytearray()}
        self._take_stdout = take_stdout
        self._report = report
        self._reported = bytearray()
        self._output = limits.output + len(token)
        self._open: set[IO[bytes]] = {*self._texts, *([report] if report else [])}
        for pipe in self._open:
            os.set_blocking(pipe.fileno(), False)

    def until_it_ends(self) -> None:
        """Wait until the command has ended or reached a limit; `_stopped` then holds the reason."""
        ended = os.pidfd_open(self._running.process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ended, selectors.EVENT_READ)
                for pipe in self._open:
                    selector.register(pipe, selectors.EVENT_READ)
                self._loop(selector, ended)
        finally:
            os.close(ended)

    def _loop(self, selector: selectors.BaseSelector, ended: int) -> None:
        look_at = 0.0
        while self._stopped is None:
            now = time.monotonic()
            if now >= self._deadline:
                within = self._limits.wall_seconds if self._is_begun else PATIENCE
                self._stopped = f"ran longer than {within:g} s"
                return
            if now >= look_at:
                self._stopped = self._gone_too_far()
                took = time.monotonic() - now
                # If a check takes long because of very many processes, output is still read between two checks.
                look_at = now + max(_LOOK_EVERY, min(20 * took, _LOOK_WITHIN))
            for key, _ in selector.select(max(0.0, min(look_at, self._deadline) - now)):
                if key.fd == ended:
                    return
                pipe = next(pipe for pipe in self._open if pipe.fileno() == key.fd)
                if self._read(pipe) == b"":
                    selector.unregister(pipe)
                    self._open.discard(pipe)

    def _gone_too_far(self) -> str | None:
        limits = self._limits
        most_mappings = _MAPPINGS + _MAPPINGS_OF_EACH * limits.processes
        memory = self._running.memory(limits.memory, most_mappings)
        if memory.mappings > most_mappings:
            return f"made more than {most_mappings} memory mappings"
        if memory.bytes > limits.memory:
            return f"used more than {_size(limits.memory)} of memory"
        size, files = self._running.usage()
        if files > MAX_FILES:
            return f"made more than {MAX_FILES} files"
        if size > limits.disk:
            return f"wrote more than {_size(limits.disk)}"
        return None

    def _read(self, pipe: IO[bytes]) -> bytes | None:
        """Read available data: b"" is the end, None is nothing yet. Sets `_stopped` beyond the limit."""
        data: bytes | None = pipe.read(_CHUNK)
        if pipe is self._report:
            self._reported += data or b""
            if len(self._reported) > MAX_REPORT:
                self._stopped = "reported too much"
        elif pipe is self._running.stdout and self._take_stdout is not None:
            self._take_stdout(data or b"")
        else:
            self._texts[pipe] += data or b""
            if not self._is_begun and self._token in self._texts[self._running.stderr]:
                self._is_begun = True
                self._deadline = time.monotonic() + self._limits.wall_seconds
            if sum(map(len, self._texts.values())) > self._output:
                self._stopped = f"printed more than {_size(self._limits.output)}"
        return data

    def read_what_is_left(self) -> None:
        """Read what the command wrote before it ended; no process writes any more."""
        for pipe in self._open:
            while self._stopped is None and self._read(pipe):
                pass

    def outcome(self) -> Outcome:
        stdout, stderr = self._texts[self._running.stdout], self._texts[self._running.stderr]
        before, ready, after = bytes(stderr).partition(self._token)
        if not ready:
            said = before.decode("utf-8", "replace").strip()[:300]
            raise SandboxFailed(f"the sandbox could not run the command: {said or self._stopped}")
        code = self._running.process.returncode
        return Outcome(
            code=code if code >= 0 else 128 - code,
            stopped=self._stopped,
            stdout=bytes(stdout[: self._limits.output]),
            stderr=after[: self._limits.output],
            report=bytes(self._reported),
        )


def _size(number: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number % size == 0 and number:
            return f"{number // size} {unit}"
    return f"{number} bytes"
