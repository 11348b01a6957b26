"""The child processes of `rabbitry up`: starting, restarting and ending them, and reading their reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Final

from rabbitry.runtime._links import Link, new_link
from rabbitry.runtime.backoff import Backoff
from rabbitry.runtime.output import ExitCode, say
from rabbitry.runtime.parent import PARENT, Report, read_report

PAUSES: Final = Backoff(0.5, 10.0)
STEADY: Final = 30.0
"""Seconds after which a child counts as having started well, so that the pauses begin anew."""
STARTS: Final = 5
"""Starts in a row that ended before the child was ready, after which it is not started again."""
SHORT_RUNS: Final = 10
"""Runs in a row of less than STEADY seconds after which it is not started again either."""
PATIENCE: Final = 6.0
"""Seconds that a child has to end after SIGTERM."""
_REST: Final = 1.0
"""Seconds to read the last report of a child that has ended."""

_logger = logging.getLogger(__name__)


class Child:
    """A `rabbitry` subcommand in a child process. The child has its own session, so it does not get Ctrl-C."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        descriptors: tuple[int, ...] = (),
        *,
        prints: bool = False,
    ) -> None:
        """Start nothing yet; see `keep`.

        Args:
            name: The name that messages give it.
            arguments: The subcommand and its arguments.
            environment: Variables added to those of this process. Passwords are passed here, never as arguments.
            descriptors: File descriptors that stay open in the child.
            prints: Whether the child's stdout is shown; otherwise it is dropped.
        """
        self.name = name
        self.ready: asyncio.Event = asyncio.Event()
        """Set once it has started well, and never cleared."""
        self._arguments = arguments
        self._environment = dict(environment)
        self._descriptors = descriptors
        self._prints = prints
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None
        self._ending = asyncio.Event()
        self._is_ready = False
        self._error: Report | None = None

    async def keep(self) -> int:
        """Run the child and restart it whenever it dies; return its exit code once a restart is of no use.

        A restart is of no use if
        - the child was told to end;
        - it exited with 2 or 3: its command line or the broker's refusal would be the same the next time;
        - it failed before it was ready, for another reason than a lost connection;
        - it was not ready in STARTS starts in a row, or ended SHORT_RUNS times in a row soon after its start.
        """
        starts, short = 0, 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            code = await self._run()
            is_steady = loop.time() - began > STEADY
            starts = 0 if self._is_ready else starts + 1
            short = 0 if is_steady else short + 1
            if self._ending.is_set() or self._is_permanent(code) or starts == STARTS or short == SHORT_RUNS:
                return code
            pause = PAUSES.pause(max(short, 1))
            _logger.warning("%s ended with %s; started again in %.1f s", self.name, self._how(code), pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ending.wait()
                return ExitCode.DONE

    def say_end(self, code: int) -> None:
        """Print why the child ended for good; see `why`."""
        say(self.why(code))

    def why(self, code: int) -> str:
        """Return why the child ended for good: the error that it reported, or else its exit code."""
        return f"{self.name} ended with {self._how(code)}" if self._error is None else self._error.error or ""

    def _is_permanent(self, code: int) -> bool:
        if code in (ExitCode.USAGE, ExitCode.BROKER):
            return True
        return code > 0 and not self._is_ready and not (self._error is not None and self._error.is_transient)

    def _how(self, code: int) -> str:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return how if self._error is None else f"{how} ({self._error.error})"

    async def _run(self) -> int:
        self._is_ready, self._error = False, None
        link = self._link = new_link()
        with contextlib.closing(link):
            try:
                process = self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # else a copy.py in the current folder would be taken for the standard library's
                    "-m",
                    "rabbitry",
                    *self._arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=None if self._prints else asyncio.subprocess.DEVNULL,
                    env=os.environ | self._environment | {PARENT: link.name},
                    **link.options(self._descriptors),
                )
            finally:
                link.started()
            if self._ending.is_set():  # `end` found no process while this one was being started
                link.end(process)
            listening = asyncio.create_task(self._listen(link))
            try:
                code = await process.wait()
                # The child's end is closed, unless a process that it forked still holds it.
                await asyncio.wait((listening,), timeout=_REST)
            finally:
                listening.cancel()
                await asyncio.wait((listening,))
        return code

    async def _listen(self, link: Link) -> None:
        reader, writer = await link.open()
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            # An error is as good as the end: it was killed with something unread.
            while line := await reader.readline():
                report = read_report(line)
                if report.error is not None:
                    self._error = report
                    continue
                if self.ready.is_set():
                    _logger.info("%s is back", self.name)
                self._is_ready = True
                self.ready.set()

    async def end(self, patience: float = PATIENCE) -> None:
        """Ask the child to end, and kill it if it has not within `patience` seconds."""
        self._ending.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        if self._link is not None:
            with contextlib.suppress(ProcessLookupError):
                self._link.end(process)
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            _logger.warning("%s did not end within %g s and is killed", self.name, patience)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
