"""`rabbitry` as a child process, in an empty folder and without outer settings."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.launcher import Launched, launch
from tests.support.waiting import WITHIN, eventually_blocking

_SLOW = re.compile(r"^.* asyncio: Executing .* took [\d.]+ seconds\n", re.MULTILINE)


class Program:
    """A context manager that runs `rabbitry ARGUMENTS`, or `python -m MODULE ARGUMENTS`, in Python's development mode.

    url: becomes RABBITRY_BROKER. environment: more variables. Files in `folder` hold the output.
    """

    def __init__(
        self, folder: Path, *arguments: str, url: str | None = None, module: str = "rabbitry", **environment: str
    ) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        kept = {key: value for key, value in os.environ.items() if not re.match("RABBITRY_|RABBITMQ_|APP_", key)}
        if url is not None:
            kept["RABBITRY_BROKER"] = url
        environment = kept | {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"} | environment
        self._arguments = arguments
        self._process: Launched | subprocess.Popen[bytes]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if module == "rabbitry":
                self._process = launch(arguments, environment, out.fileno(), err.fileno(), cwd=folder)
            else:  # this module reads its environment when it is imported
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env=environment,
                )  # fmt: skip

    @property
    def out(self) -> str:
        """Its output on stdout so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Its output on stderr so far, without asyncio's warnings about slow callbacks."""
        return _SLOW.sub("", self._err.read_text())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for(self, pattern: str, *, within: float = WITHIN) -> re.Match[str]:
        """Wait until stdout or stderr matches the pattern. Raise AssertionError if the process ends first."""

        def printed() -> re.Match[str] | None:
            has_ended = self._process.poll() is not None  # asked before reading, so that its last output is read
            found = re.search(pattern, self.out + self.err)
            assert found or not has_ended, f"it ended: {self!r}"
            return found

        found = eventually_blocking(printed, f"{pattern!r} printed by {self!r}", within=within)
        assert found is not None
        return found

    def send(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        return self._process.wait(80)

    def __repr__(self) -> str:
        return f"<{self._arguments!r}\nstdout: {self.out}\nstderr: {self.err}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
