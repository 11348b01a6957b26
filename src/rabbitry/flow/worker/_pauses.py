"""Pausing and resuming the stages of a worker as the broker says; see `rabbitry.flow.wiring.pausing`.

A paused stage takes no messages: its consumers are cancelled, jobs that have not begun are returned, as when a worker
stops, and jobs in hand are finished. Consumers of a stage with one active worker stay until nothing is in hand,
since another worker becomes active as soon as the consumer is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.client import Channel, Connection
from rabbitry.exceptions import Closed, NotFound, RequestTimeout
from rabbitry.flow.wiring.pausing import MOMENT, State, look
from rabbitry.flow.worker._single_active import ActiveIntake
from rabbitry.runtime.backoff import Backoff

if TYPE_CHECKING:
    from rabbitry.flow.stage import Stage
    from rabbitry.flow.worker._counting import StageCounts
    from rabbitry.flow.worker._intake import Intake
    from rabbitry.flow.worker._settlement import Settler

LOOK: Final = 1.0
"""Seconds between two questions to the broker whether a stage is paused."""
_PAUSES: Final = Backoff(1.0, 30.0)
"""Seconds before the broker is asked again after a failure."""
_FAILURES: Final = (Closed, RequestTimeout)

_logger = logging.getLogger(__name__)


class StagePause:
    """A stage of a worker: `seen` takes what the broker says, and `follow` pauses and resumes its consumers.

    recall: called with the stage, and whether its jobs that have not begun are given back from now on.
    """

    def __init__(
        self,
        stage: Stage,
        intakes: Sequence[Intake],
        counts: StageCounts,
        settler: Settler,
        recall: Callable[[Stage, bool], None],
    ) -> None:
        self.stage = stage
        self._intakes = intakes
        self._counts = counts
        self._settler = settler
        self._recall = recall
        self._wanted: bool | None = None
        """Whether the stage is to be paused; None before the broker's first answer."""
        self._looks = 0
        """The number of answers in a row that found the stage running while it is paused here."""
        self._changed = asyncio.Event()

    @property
    def is_paused(self) -> bool:
        """Whether the stage is to be paused; true before the first answer, so that no paused stage takes a message."""
        return self._wanted is not False

    def seen(self, state: State) -> bool:
        """Note an answer of the broker. Return whether to ask again soon."""
        if state is State.RUNNING and self._wanted:
            self._looks += 1
            if self._looks < 2:  # a reader of the pause may hold its message for a moment
                return True
        self._looks = 0
        if state is State.UNKNOWN:
            return self._wanted is None
        if self._wanted is not (wanted := state is State.PAUSED):
            if wanted or self._wanted:
                what = "paused, until `rabbitry resume`" if wanted else "resumed"
                _logger.info("stage '%s' is %s", self.stage.name, what)
            self._wanted = self._counts.is_paused = wanted
            self._changed.set()
        return False

    async def prepare(self) -> None:
        """Pause consumers that have not begun, if the stage is paused."""
        if self.is_paused:
            await self._leave()

    async def follow(self) -> None:
        """Pause and resume the consumers, until cancelled."""
        is_away = self._intakes[0].is_paused
        while True:
            self._changed.clear()
            if self.is_paused is not is_away:
                is_away = not is_away
                if is_away:
                    await self._leave()
                else:
                    self._recall(self.stage, False)
                    for intake in self._intakes:
                        intake.resume()
            else:
                await self._changed.wait()

    async def _leave(self) -> None:
        leader = self._intakes[0]
        if not isinstance(leader, ActiveIntake):
            for intake in self._intakes:
                await intake.pause()
            # What the consumers brought was handed over before, so that all of it is given back that has not begun.
            self._recall(self.stage, True)
            return
        settler, name = self._settler, self.stage.name
        settler.hold([name])
        try:
            await leader.block()
        except _FAILURES as error:  # the connection was lost, and with it what this consumer had
            _logger.debug("stage '%s': %s", name, error)
        self._recall(self.stage, True)
        await settler.wait_idle_stage(name)
        if leader.is_blocked:  # what is held is settled over its channel, which is then closed
            settler.release([name])
            await settler.wait_idle_stage(name)
        for intake in reversed(self._intakes):
            await intake.pause()
        settler.release([name])


class Pauses:
    """The task that asks the broker once a second which of a worker's stages are paused.

    redeclare: declares the app's topology again, when the queue of a stage's pauses was deleted.
    """

    def __init__(
        self,
        app: str,
        connection: Connection,
        stages: Sequence[StagePause],
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._connection = connection
        self._stages = stages
        self._redeclare = redeclare
        self._channel: Channel | None = None

    async def begin(self) -> None:
        """Ask for the first time, before the first consumer begins, and pause the consumers of paused stages."""
        with contextlib.suppress(*_FAILURES):  # `run` asks again; the stages are paused until then
            await self._look()
        for stage in self._stages:
            await stage.prepare()

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for stage in self._stages:
                group.create_task(stage.follow())
            failures, seconds = 0, LOOK
            while True:
                await asyncio.sleep(seconds)
                try:
                    seconds = MOMENT if await self._look() else LOOK
                    failures = 0
                except _FAILURES as error:  # the stages stay as they are
                    failures += 1
                    seconds = _PAUSES.pause(failures)
                    _logger.debug("can't ask which stages are paused: %s", error)

    async def _look(self) -> bool:
        """Ask the broker about each stage. Return whether to ask again soon."""
        if self._channel is None or not self._channel.is_open:
            self._channel = await self._connection.channel()
        is_soon = False
        for stage in self._stages:
            try:
                state = await look(self._channel, self._app, stage.stage.name)
            except NotFound:  # deleted, or on a node of the cluster that is down
                await self._redeclare()
                return True
            is_soon |= stage.seen(state)
        return is_soon
