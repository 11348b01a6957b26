"""Child processes of `rabbitry up`: started, told apart, started again when they die, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Final

from rabbitry.cli._common import ExitCode
from rabbitry.cli._service import LIFELINE

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 30.0
"""Seconds after which a child counts as having started well, so that its next pause is the first again."""
PATIENCE: Final = 6.0
"""Seconds that a child has to end after SIGTERM."""

log = logging.getLogger("rabbitry.cli.up")


class Child:
    """A `rabbitry` subcommand in a process of its own, in a session of its own: Ctrl-C reaches `rabbitry up` alone."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        descriptors: tuple[int, ...],
        *,
        prints: bool = False,
    ) -> None:
        """`environment` is added to ours, passwords included, which never are arguments. `descriptors` stay open.

        prints: what it prints goes where ours does, and is dropped otherwise.
        """
        self.name = name
        self._arguments = arguments
        self._environment = dict(environment)
        self._descriptors = descriptors
        self._prints = prints
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()

    async def keep(self) -> int:
        """Run the child, again whenever it dies. Returns where that is of no use: it was ended, or the command
        line or the broker's refusal (exit codes 2 and 3) would be the same the next time. Gives the exit code.
        """
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            code = await self._run()
            if self._ending.is_set() or code in (ExitCode.USAGE, ExitCode.BROKER):
                return code
            pause = FIRST_PAUSE if loop.time() - began > STEADY else min(2 * pause, LONGEST_PAUSE)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            log.warning("%s ended with %s; started again in %g s", self.name, how, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
                return ExitCode.DONE

    async def _run(self) -> int:
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rabbitry",
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=None if self._prints else asyncio.subprocess.DEVNULL,
            env=os.environ | self._environment,
            pass_fds=self._descriptors,
            start_new_session=True,
        )
        if self._ending.is_set():  # `end` found no process while this one was being started
            process.terminate()
        return await process.wait()

    async def end(self, patience: float = PATIENCE) -> None:
        """Ask the child to end, and kill it where it has not within `patience` seconds."""
        self._ending.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            log.warning("%s did not end within %g s and is killed", self.name, patience)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def lifeline() -> tuple[int, dict[str, str]]:
    """A pipe whose writing end lives as long as this process: the reading end, and the variable that names it."""
    reading, _writing = os.pipe()
    return reading, {LIFELINE: str(reading)}
