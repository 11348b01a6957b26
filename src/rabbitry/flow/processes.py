"""Worker processes for `processes=True`: one message at a time goes in, its result comes out.

The handler is imported by name in a fresh process. A process past the time limit is killed; one that dies
takes its message's attempt with it, never the worker.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Final

from rabbitry.exceptions import TimeLimitExceeded, WorkerProcessDied
from rabbitry.flow import handling
from rabbitry.flow.job import Result
from rabbitry.flow.message import Message
from rabbitry.flow.stage import Stage

_context: Final = multiprocessing.get_context("spawn")
_PATIENCE: Final = 5.0
_START_LIMIT: Final = 60.0
"""Seconds that a process may take to start and to import its handler."""


class ProcessSlot:
    """One process at a time, started when first needed. `call` is for one thread; `kill` for any."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def call(self, stage: Stage, body: bytes, message: Callable[[], Message]) -> Result:
        """Handle one message in the process; also its death and its time limit are results."""
        try:
            pipe = self._pipe or self._start()
            pipe.send((body, message()))
            if not pipe.poll(stage.time_limit):
                self.kill()
                limit = f"stage '{stage.name}': not done within its time limit of {stage.time_limit:g} s"
                return handling.failed(TimeLimitExceeded(f"{limit}; its process was killed"))
            result: Result = pipe.recv()
        except (EOFError, OSError) as error:
            code = self._reap()
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            died = WorkerProcessDied(f"stage '{stage.name}': the process of the handler ended with {how}")
            died.__cause__ = error
            return handling.failed(died)
        return result

    def kill(self) -> None:
        """End the process at once."""
        process = self._process
        if process is not None and process.is_alive():
            process.kill()
        self._reap()

    def close(self) -> None:
        """End the process in order: it is idle, and ends when its pipe does."""
        self._reap()

    def _start(self) -> Connection:
        ours, theirs = _context.Pipe()
        handler = self._stage.handler
        self._process = _context.Process(
            target=_serve, args=(theirs, handler.__module__, handler.__qualname__), daemon=True
        )
        self._process.start()
        theirs.close()  # so that its end is seen here
        self._pipe = ours
        # What starting takes is not the handler's: imports may be slow, and the machine busy.
        if ours.poll(_START_LIMIT):
            ours.recv()
        else:
            self.kill()
            raise EOFError(f"the process was not ready after {_START_LIMIT:g} s")
        return ours

    def _reap(self) -> int | None:
        """Close the pipe, wait for the process, and give its exit code."""
        pipe, self._pipe = self._pipe, None
        process, self._process = self._process, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        return code


def _serve(pipe: Connection, module: str, name: str) -> None:
    """Run in the process: handle what comes until the other end is closed, also by the worker's death."""
    # Ctrl-C goes to the whole group of a terminal; the worker decides what becomes of its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    found: object = importlib.import_module("__mp_main__" if module == "__main__" else module)
    for part in name.split("."):
        found = getattr(found, part)
    stage: Stage = found.__rabbitry_stage__  # type: ignore[attr-defined] # App.stage put it there
    pipe.send(None)  # ready
    while True:
        try:
            body, message = pipe.recv()
        except EOFError:
            return
        result = handling.call(stage, body, lambda message=message: message)  # type: ignore[misc] # bound now
        try:
            pipe.send(result)
        except BrokenPipeError:
            os._exit(1)
