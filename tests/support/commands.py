"""Running `rabbitry` as a user does: as a separate process, with its output and the page that it serves."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from tests.support.launcher import Launched, launch
from tests.support.waiting import WITHIN, eventually_blocking

_KEPT_OUT = ("RABBITRY_", "RABBITMQ_", "APP_", "EXCHANGE_NAME", "QUEUE_NAME")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without settings of Rabbitry's, and with `more`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_KEPT_OUT)}
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(more or {})


def run(
    *arguments: str,
    more: Mapping[str, str] | None = None,
    within: float = WITHIN,
    cwd: Path | None = None,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, within so many seconds; `text` is its standard input."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(text.encode())
        stdin.seek(0)
        process = launch(arguments, environment(more), stdout.fileno(), stderr.fileno(), stdin=stdin.fileno(), cwd=cwd)
        try:
            code = process.wait(within)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(["rabbitry", *arguments], code, _text(stdout), _text(stderr))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class Service:
    """A command that runs until it is stopped, and its output so far."""

    def __init__(self, process: "Launched | subprocess.Popen[bytes]", path: str) -> None:
        self.process = process
        self._path = path

    @property
    def output(self) -> str:
        """What it printed and logged."""
        with open(self._path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_for(self, pattern: str, *, within: float = WITHIN) -> "re.Match[str]":
        """Wait until the output matches; return the match."""

        def said() -> "re.Match[str] | None":
            has_ended = self.process.poll() is not None  # before the look, so that its last words are seen
            output = self.output
            found = re.search(pattern, output)
            assert found or not has_ended, output
            return found

        found = eventually_blocking(said, f"{pattern!r} in the output", within=within)
        assert found is not None
        return found


@contextlib.contextmanager
def service(*arguments: str, more: Mapping[str, str] | None = None, anew: bool = False) -> Iterator[Service]:
    """Start a command; it is killed at the end where it still runs.

    anew: as a user does, and not from a process that has imported everything, for what measures its start or memory.
    """
    with tempfile.TemporaryDirectory(prefix="rabbitry-test-") as folder:
        path = f"{folder}/output"
        more = {"XDG_DATA_HOME": folder} | dict(more or {})  # nothing of this goes into the user's own folders
        process: Launched | subprocess.Popen[bytes]
        with open(path, "wb") as file:
            if anew:
                process = subprocess.Popen(
                    [sys.executable, "-m", "rabbitry", *arguments], env=environment(more), cwd=folder,
                    stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                )  # fmt: skip
            else:
                process = launch(arguments, environment(more), file.fileno(), file.fileno(), cwd=folder)
        try:
            yield Service(process, path)
        finally:
            process.kill()
            process.wait()
