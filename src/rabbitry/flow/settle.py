"""Settlement, on the I/O thread: publish what a job led to, wait for the confirms, then ack. The one place.

Nothing is acked before everything that it led to is confirmed. What the broker refuses is published again a few times.
A product that nobody takes, or that is refused to the end, becomes a dead letter, confirmed in turn. Where even that
fails, the delivery is given back after a pause, to come again with one attempt more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from rabbitry.exceptions import AlreadySettled, Closed, PublishError, PublishRefused, PublishReturned
from rabbitry.flow.dead import dead_letter_of, dead_letter_of_product
from rabbitry.flow.hot import next_properties
from rabbitry.flow.job import Job, Result
from rabbitry.flow.message import Outgoing, again
from rabbitry.flow.outlet import Outlet
from rabbitry.flow.retry import later, suspects_queue

if TYPE_CHECKING:
    from rabbitry.flow.app import App
    from rabbitry.flow.counting import Counting

PAUSE: Final = 1.0
"""Seconds before a delivery that could not be settled is given back."""
REFUSED_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds before what the broker refused is published again: a quorum queue may be without a leader, or full."""
FEWEST_DELIVERIES: Final = 3
"""A suspect is a dead letter after this many attempts at least, also where its stage tries but once: the worker
may have ended for a reason of its own."""

log = logging.getLogger("rabbitry.flow")


def outgoing_of(app: App, job: Job, result: Result) -> list[Outgoing]:
    """Say what is to be published for a result."""
    stage, delivery = job.stage, job.delivery
    if result.kind == "done":
        return [
            Outgoing(
                app.exchange_of(product.key),
                product.key,
                product.body,
                next_properties(app.name, job.trail, product.content_type, product.type_name),
                mandatory=app.is_required(product.key),
                product=True,
            )
            for product in result.products
            if product.key is not None
        ]
    if result.kind == "rejected" or job.attempt >= stage.attempts:
        return [dead_letter_of(app.name, job, result)]
    delay = stage.delay(job.attempt) if result.after is None else result.after
    return [later(app.name, stage.queue, delivery, job.attempt + 1, delay)]


def before_handling(app: App, job: Job) -> Outgoing | None:
    """Say what is to be published in place of handling a job; None where it can be handled.

    One that comes redelivered may have killed its worker, or was in hand there with one that did: it is counted
    first, and goes to the suspects, which workers take one at a time. So what comes
    redelivered from there was alone. One that came down the ladder with seconds left goes up again.
    """
    stage, delivery = job.stage, job.delivery
    rest = job.trail.wait
    if delivery.redelivered:
        attempt = job.attempt + 1
        if job.is_suspect and attempt > max(stage.attempts, FEWEST_DELIVERIES):
            text = f"delivered {job.attempt} times and never settled: it may kill its worker, or time out there"
            return dead_letter_of(app.name, job, Result("failed", reason="failed", error=text))
        if rest:
            return later(app.name, stage.queue, delivery, attempt, rest)
        return Outgoing("", suspects_queue(app.name, stage.name), delivery.body, again(delivery, attempt))
    return later(app.name, stage.queue, job.delivery, job.attempt, rest) if rest else None


class _Pending:
    """A job, what is not confirmed of it, and what failed."""

    __slots__ = ("failures", "job", "left", "result")

    def __init__(self, job: Job, result: Result | None, left: int) -> None:
        self.job = job
        self.result = result
        self.left = left
        self.failures: list[tuple[Outgoing, BaseException]] = []


class Settler:
    """Settles jobs over one outlet. `run` sends; confirms come by themselves."""

    def __init__(self, app: App, outlet: Outlet, counting: Counting) -> None:
        self.in_hand = 0
        self._app = app
        self._outlet = outlet
        self._counting = counting
        self._waiting: deque[tuple[_Pending, Outgoing, int]] = deque()
        """What is to be published, and how often it was refused."""
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()

    def began(self) -> None:
        """Note that a job is in hand."""
        self.in_hand += 1
        self._idle.clear()

    def finish(self, job: Job, result: Result) -> None:
        """Settle a job that was handled, or given back.

        What was not begun is published anew, since a delivery that goes back comes redelivered, and is counted.
        """
        if result.kind == "abandoned" or (result.kind == "given-back" and job.is_stale):
            self._give_back(job)
            return
        if result.kind == "given-back":
            queue = job.intake.queue
            self.publish(job, None, [Outgoing("", queue, job.delivery.body, again(job.delivery, job.attempt))])
            return
        outgoing = outgoing_of(self._app, job, result)
        self._counting.handled(job, result, outgoing)
        self.publish(job, result, outgoing)

    def publish(self, job: Job, result: Result | None, outgoing: list[Outgoing]) -> None:
        """Publish, wait for the confirms, ack. result: None for what was not handled."""
        if not outgoing:
            self._ack(job)
            return
        pending = _Pending(job, result, len(outgoing))
        for message in outgoing:
            self._put(pending, message, 0)

    def _put(self, pending: _Pending, message: Outgoing, refusals: int) -> None:
        self._waiting.append((pending, message, refusals))
        self._woken.set()

    async def wait_idle(self) -> None:
        """Wait until nothing is in hand."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send what waits, for ever; to be cancelled."""
        while True:
            while self._waiting:
                await self._send(*self._waiting.popleft())
            self._woken.clear()
            await self._woken.wait()

    async def _send(self, pending: _Pending, message: Outgoing, refusals: int) -> None:
        try:
            future = await self._outlet.send(message)
        except Exception as error:  # noqa: BLE001 - what can't be published must not end the others; it is logged
            self._sent(pending, message, error)
        else:
            future.add_done_callback(partial(self._confirmed, pending, message, refusals))

    def _confirmed(self, pending: _Pending, message: Outgoing, refusals: int, future: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if isinstance(error, PublishRefused):
            self._outlet.refused()
            if refusals < len(REFUSED_PAUSES):
                self._loop.call_later(REFUSED_PAUSES[refusals], self._put, pending, message, refusals + 1)
                return
        self._sent(pending, message, error)

    def _sent(self, pending: _Pending, message: Outgoing, error: BaseException | None) -> None:
        if error is not None:
            pending.failures.append((message, error))
        pending.left -= 1
        if pending.left:
            return
        if not pending.failures:
            self._ack(pending.job)
            return
        self._settle_failures(pending)

    def _settle_failures(self, pending: _Pending) -> None:
        """Turn products that nobody took into dead letters; give the delivery back after anything else."""
        job, letters = pending.job, []
        for message, error in pending.failures:
            if not message.product or not isinstance(error, PublishReturned | PublishRefused):
                self._say_unsettled(job, error)
                self._loop.call_later(PAUSE, self._give_back, job)
                return
            log.error("stage '%s': a result became a dead letter: %s", job.stage.name, error)
            letters.append(dead_letter_of_product(self._app.name, job, message, error))
        self._counting.dead(job, len(letters))
        self.publish(job, pending.result, letters)

    def _say_unsettled(self, job: Job, error: BaseException) -> None:
        if isinstance(error, PublishError | Closed):
            log.warning("stage '%s': not published, so the message comes again: %s", job.stage.name, error)
        else:
            log.error("stage '%s': can't publish, so the message comes again", job.stage.name, exc_info=error)

    def _ack(self, job: Job) -> None:
        try:
            job.delivery.ack()
        except AlreadySettled as error:
            # It was done, and comes again: at least once.
            log.debug("stage '%s': %s", job.stage.name, error)
            self._counting.lost(job)
        self._ended(job)

    def _give_back(self, job: Job) -> None:
        try:
            job.delivery.nack()
        except (AlreadySettled, Closed) as error:
            log.debug("stage '%s': %s", job.stage.name, error)
        self._ended(job)

    def _ended(self, job: Job) -> None:
        self._counting.settled(job, time.monotonic())
        self.in_hand -= 1
        if not self.in_hand:
            self._idle.set()
