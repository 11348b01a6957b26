"""The worker processes of `rabbitry worker --processes`: started, restarted, added, taken away and ended."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from rabbitry.cli._scaling import Range
from rabbitry.exceptions import RabbitryError
from rabbitry.runtime.children import Child

_logger = logging.getLogger(__name__)


class _Worker(NamedTuple):
    child: Child
    keeping: asyncio.Task[int]

    async def code(self) -> int:
        """Return its exit code. One that had not started when it was asked to end died of that; it held nothing."""
        code = await self.keeping
        return 0 if code == -signal.SIGTERM else code


class Workers:
    """Worker processes, numbered from 1. The one with the highest number is the first to be taken away."""

    def __init__(self, make: Callable[[int], Child], size: Range, patience: float) -> None:
        """Start nothing yet; see `resize`.

        Args:
            make: Returns the process of a number.
            size: The least and the greatest number of processes.
            patience: Seconds that they have to end; more than they need to return their messages.
        """
        self._make = make
        self._numbers = range(1, size.most + 1)
        self._least, self._most = size
        self._patience = patience
        self._running: dict[int, _Worker] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        """The ends of those that were taken away. Their numbers, and so their ports, are in use until then."""
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The number of a process that ended for good without being told to."""
        self._are_ending = False

    @property
    def size(self) -> int:
        """The number of processes, without those that are ending."""
        return len(self._running)

    def resize(self, size: int) -> None:
        """Start or end processes, until there are `size` or as many as numbers are free for; not once all end."""
        if self._are_ending:  # the messages that they return look like a backlog
            return
        size = min(size, self._most)
        while self.size > size:
            number = max(self._running)
            self._leaving[number] = asyncio.create_task(self._take_away(number, self._running.pop(number)))
        for number in self._numbers:
            if self.size < size and number not in self._running and number not in self._leaving:
                child = self._make(number)
                keeping = asyncio.create_task(child.keep())
                self._running[number] = _Worker(child, keeping)
                keeping.add_done_callback(partial(self._ended, number))

    async def supervise(self, stop: asyncio.Event) -> int:
        """Wait until a signal, or until a process of the first ones ends for good; end all, and return the exit code.

        Raises:
            RabbitryError: A signal ended a process, other than this one's.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            # One that ends for good can't start, and neither can the others.
            await asyncio.wait((stopping, self._failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._are_ending = True
            stopping.cancel()
            refused = self._running[self._failed.result()] if self._failed.done() and not stop.is_set() else None
            self._failed.cancel()
            # Not `end` for those that are leaving: a second signal would make them return what they still finish.
            ends = [worker.child.end(self._patience) for worker in self._running.values()]
            await asyncio.gather(*ends, *self._leaving.values())
        codes = [await worker.code() for worker in self._running.values()]
        for worker, code in zip(self._running.values(), codes, strict=True):
            if code < 0:
                name = worker.child.name
                raise RabbitryError(f"{name} was ended by signal {-code}; its unsettled messages are redelivered")
        if refused is not None:
            refused.child.say_end(await refused.code())
        return max(codes)

    async def _take_away(self, number: int, worker: _Worker) -> None:
        await worker.child.end(self._patience)
        if code := await worker.code():
            _logger.warning("%s; its unsettled messages are redelivered", worker.child.why(code))
        del self._leaving[number]

    def _ended(self, number: int, keeping: asyncio.Task[int]) -> None:
        """Take note that a process has ended for good."""
        if number not in self._running or self._failed.done():
            return  # it was told to end
        if number <= self._least:
            self._failed.set_result(number)
            return
        # The others work: one that was added must not end them, and its next start would fail in the same way.
        worker = self._running.pop(number)
        self._most = self.size
        why = (
            f"{worker.child.name}: {keeping.exception()}" if keeping.exception() else worker.child.why(keeping.result())
        )
        _logger.error("%s: from now on there are at most %d worker processes", why, self._most)
