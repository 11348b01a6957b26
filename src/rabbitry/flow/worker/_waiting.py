"""The messages of a stage that wait in a worker before they may begin."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from rabbitry.flow.worker._job import GIVEN_BACK, Job, Result

if TYPE_CHECKING:
    from rabbitry.flow.worker._settlement import Settler

PATIENCE: Final = 300.0
"""Seconds after which a message that waits is returned to the end of its queue: brokers close the channel
of a consumer that keeps a message for 30 minutes (RabbitMQ's docs/consumers, "Delivery Acknowledgement Timeout")."""
_LOOK: Final = 30.0
"""Seconds between two looks whether a message has waited too long."""


class Waiting:
    """Messages in the order in which they came; on the I/O thread.

    At most as many as the prefetch, and those that a lost connection left until the next one comes.
    """

    def __init__(self, settler: Settler, hand_over: Callable[[Job], None]) -> None:
        """settler: settles the messages that are returned. hand_over: called with each message that may begin."""
        self._settler = settler
        self._hand_over = hand_over
        self._jobs: deque[Job] = deque()
        self.wanted = asyncio.Event()
        """Set since a message waits, until whoever passes them on finds none."""
        self._is_closed = False
        """Whether messages are returned at once: the stage is paused, or the worker stops."""

    def __len__(self) -> int:
        """Return how many wait, with those that turn out not to be handled."""
        return len(self._jobs)

    def count(self) -> int:
        """Return how many wait and are to be handled, as far as the first one tells."""
        self._drop_stale()
        return len(self._jobs)

    def next(self) -> Job | None:
        """Take out the first message; None if none waits."""
        self._drop_stale()
        return self._jobs.popleft() if self._jobs else None

    def put_back(self, job: Job) -> None:
        """Put a message before all others."""
        self._jobs.appendleft(job)

    def begin(self, job: Job) -> None:
        """Pass a message on."""
        self._hand_over(job)

    def take(self, job: Job) -> None:
        """Keep a message until it may begin."""
        if self._is_closed:
            self._settler.finish(job, GIVEN_BACK)
            return
        self._drop_stale()
        self._jobs.append(job)
        self.wanted.set()

    def close(self) -> None:
        """Return the messages that wait, and later ones as they arrive."""
        self._is_closed = True
        self.give_back(time.monotonic())

    def open(self) -> None:
        """Take messages again."""
        self._is_closed = False

    async def watch(self) -> NoReturn:
        """Return those that have waited too long, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            self.sweep()
            self.give_back(time.monotonic() - PATIENCE)

    def give_back(self, received: float, *, behind: int = 0, result: Result = GIVEN_BACK) -> None:
        """Return the messages that were received until then, on the monotonic clock, but for the first ones.

        behind: how many of the first ones stay. result: what becomes of the others.
        """
        while len(self._jobs) > behind and self._jobs[behind].received <= received:
            job = self._jobs[behind]
            del self._jobs[behind]
            self._settler.finish(job, result)

    def give_back_suspect(self, received: float) -> None:
        """Return the first message if it is a suspect that was received until then: others wait until it is settled."""
        if self._jobs and self._jobs[0].is_suspect and self._jobs[0].received <= received:
            self._settler.finish(self._jobs.popleft(), GIVEN_BACK)

    def sweep(self) -> None:
        """Leave out the messages of a lost connection, which come again, and those that are not to be handled."""
        self._jobs = deque(job for job in self._jobs if not self._is_out(job))

    def _drop_stale(self) -> None:
        """Do as `sweep` does with the first messages."""
        while self._jobs and self._is_out(self._jobs[0]):
            self._jobs.popleft()

    def _is_out(self, job: Job) -> bool:
        """Return whether a message is not to be handled; it is settled then."""
        if job.is_stale:
            self._settler.finish(job, GIVEN_BACK)
            return True
        return self._settler.drops(job)
