"""Settlement, on the I/O thread: publish what a job led to, wait for the confirms, then ack. The one place.

Nothing is acked before everything that it led to is confirmed. What the broker refuses is published again a few times.
A result that nobody takes, or that is refused to the end, becomes a dead letter, confirmed in turn.

A message that can't be published for what it is (headers that no frame holds, a body larger than the broker takes, a
name that AMQP can't carry) must neither end the worker nor come again for ever. Something smaller takes its place: the
dead letter of a result, then that of the input, then that without the properties of other programs. Where the broker
closed the channel, each message that was on its way goes alone over another one, so that the one at fault is found and
its neighbours are settled. Where the fault lies elsewhere (no confirm in time), the delivery is given back after a
pause, to come again with one attempt more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from rabbitry._errors import described
from rabbitry.amqp.client import Properties
from rabbitry.exceptions import (
    AlreadySettled,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    PreconditionFailed,
    PublishError,
    PublishRefused,
    PublishReturned,
    RequestTimeout,
)
from rabbitry.flow.dead import dead_letter_of, dead_letter_of_result
from rabbitry.flow.fitting import ERROR
from rabbitry.flow.hot import next_properties
from rabbitry.flow.job import Job, Result
from rabbitry.flow.message import REASON, Outgoing, Role, again, text_header
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


def outgoing_of(app: App, job: Job, result: Result, limit: int, waits: bool = True) -> list[Outgoing]:
    """Make what is published for a result.

    limit: bytes that a message's properties may take. waits: whether another attempt waits for its delay.
    """
    stage, delivery = job.stage, job.delivery
    if result.kind == "done":
        return [
            Outgoing(
                app.exchange_of(product.key),
                product.key,
                product.body,
                next_properties(app.name, job.trail, product.content_type, product.type_name, result.context),
                mandatory=app.is_required(product.key),
                role=Role.RESULT,
            )
            for product in result.products
            if product.key is not None
        ]
    if result.kind in ("given-back", "abandoned"):
        # Published anew, since a delivery that is given back comes redelivered, and is counted as an attempt.
        properties = again(delivery, job.attempt, limit, is_interrupted=result.kind == "abandoned")
        return [Outgoing("", job.intake.queue, delivery.body, properties, role=Role.AGAIN)]
    if result.kind == "rejected" or job.attempt >= stage.attempts:
        return [dead_letter_of(app.name, job, result, limit)]
    delay = stage.delay(job.attempt) if result.after is None else result.after
    return [later(app.name, stage.queue, delivery, job.attempt + 1, delay if waits else 0.0, limit)]


def before_handling(app: App, job: Job, limit: int) -> Outgoing | None:
    """Make what is published in place of handling a job; None where it can be handled. limit: see outgoing_of.

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
            return dead_letter_of(app.name, job, Result("failed", reason="failed", error=text), limit)
        if rest:
            return later(app.name, stage.queue, delivery, attempt, rest, limit)
        properties = again(delivery, attempt, limit)
        return Outgoing("", suspects_queue(app.name, stage.name), delivery.body, properties, role=Role.AGAIN)
    return later(app.name, stage.queue, job.delivery, job.attempt, rest, limit) if rest else None


def instead_of(app: App, job: Job, message: Outgoing, error: BaseException, limit: int) -> Outgoing | None:
    """Make what is published in place of a message that can't be for what it is; None where nothing is left to try."""
    match message.role:
        case Role.RESULT if not isinstance(error, PreconditionFailed):  # which says that the body is too large
            return dead_letter_of_result(app.name, job, message, error, limit)
        case Role.RESULT | Role.DEAD_RESULT:
            key = message.routing_key if message.role is Role.RESULT else "of its dead letter"
            text = f"a result of {len(message.body)} bytes (key {key!r}) can't be published: {described(error)}"
            return dead_letter_of(app.name, job, Result("rejected", reason="refused", error=text), limit)
        case Role.AGAIN:
            text = f"the message can't be published for another attempt: {described(error)}"
            return dead_letter_of(app.name, job, Result("rejected", reason="refused", error=text), limit)
        case Role.DEAD:
            headers = message.properties.headers if isinstance(message.properties, Properties) else None
            why = text_header(headers or {}, ERROR) or ""
            text = f"{why} (its properties can't be published: {described(error)})"
            reason = text_header(headers or {}, REASON) or "failed"
            return dead_letter_of(app.name, job, Result("rejected", reason=reason, error=text), limit, is_bare=True)
    return None


class _Pending:
    """A job, what is not confirmed of it, and what failed."""

    __slots__ = ("failures", "job", "left")

    def __init__(self, job: Job, left: int) -> None:
        self.job = job
        self.left = left
        self.failures: list[tuple[Outgoing, BaseException]] = []


class Settler:
    """Settles jobs over one outlet. `run` sends; confirms come by themselves."""

    def __init__(self, app: App, outlet: Outlet, counting: Counting, waits: bool = True) -> None:
        self.in_hand = 0
        self._app = app
        self._outlet = outlet
        self._counting = counting
        self._waits = waits
        self._waiting: deque[tuple[_Pending, Outgoing, int]] = deque()
        """What is to be published, and how often it was refused."""
        self._alone: deque[tuple[_Pending, Outgoing, int]] = deque()
        """The same, for what is published one after the other: one of these closes the channel."""
        self._woken = asyncio.Event()
        self._woken_alone = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()

    def take(self, job: Job) -> bool:
        """Note that a job is in hand. Returns whether it can be handled; where not, it is settled from here on."""
        self.in_hand += 1
        self._idle.clear()
        try:
            instead = before_handling(self._app, job, self._outlet.frame_limit)
        except Exception as error:  # noqa: BLE001 - told in its dead letter and the log
            instead = self._unmade(job, error)
        if instead is None:
            return True
        self._publish(job, [instead])
        return False

    def finish(self, job: Job, result: Result) -> None:
        """Settle a job that was handled, or given back."""
        if result.kind in ("given-back", "abandoned") and job.is_stale:
            self._give_back(job)
            return
        try:
            outgoing = outgoing_of(self._app, job, result, self._outlet.frame_limit, self._waits)
        except Exception as error:  # noqa: BLE001 - told in its dead letter and the log
            outgoing = [self._unmade(job, error)]
        if result.kind == "abandoned":
            self._counting.interrupted(job)
        elif result.kind != "given-back":
            self._counting.handled(job, result, outgoing)
        self._publish(job, outgoing)

    def _unmade(self, job: Job, error: Exception) -> Outgoing:
        """Make the dead letter of an input for which nothing else can be made."""
        log.error("stage '%s': a message can't be settled and becomes a dead letter", job.stage.name, exc_info=error)
        result = Result("failed", reason="failed", error=described(error))
        return dead_letter_of(self._app.name, job, result, self._outlet.frame_limit, is_bare=True)

    def _publish(self, job: Job, outgoing: list[Outgoing], *, alone: bool = False) -> None:
        """Publish, wait for the confirms, ack."""
        if not outgoing:
            self._ack(job)
            return
        pending = _Pending(job, len(outgoing))
        for message in outgoing:
            (self._put_alone if alone else self._put)(pending, message, 0)

    def _put(self, pending: _Pending, message: Outgoing, refusals: int) -> None:
        self._waiting.append((pending, message, refusals))
        self._woken.set()

    def _put_alone(self, pending: _Pending, message: Outgoing, refusals: int) -> None:
        self._alone.append((pending, message, refusals))
        self._woken_alone.set()

    async def wait_idle(self) -> None:
        """Wait until nothing is in hand."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send what waits, for ever; to be cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_waiting())
            group.create_task(self._send_alone())

    async def _send_waiting(self) -> None:
        while True:
            while self._waiting:
                await self._send(*self._waiting.popleft())
            self._woken.clear()
            await self._woken.wait()

    async def _send(self, pending: _Pending, message: Outgoing, refusals: int) -> None:
        try:
            future = await self._outlet.send(message)
        except Exception as error:  # noqa: BLE001 - what can't be published must not end the others; it is logged
            self._on_outcome(pending, message, refusals, error)
        else:
            future.add_done_callback(partial(self._confirmed, pending, message, refusals))

    def _confirmed(self, pending: _Pending, message: Outgoing, refusals: int, future: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        self._on_outcome(pending, message, refusals, error)

    async def _send_alone(self) -> None:
        while True:
            while self._alone:
                pending, message, refusals = self._alone.popleft()
                error: Exception | None = None
                try:
                    await self._outlet.send_alone(message)
                except Exception as failure:  # noqa: BLE001 - as in `_send`
                    error = failure
                self._on_outcome(pending, message, refusals, error, alone=True)
            self._woken_alone.clear()
            await self._woken_alone.wait()

    def _on_outcome(
        self, pending: _Pending, message: Outgoing, refusals: int, error: BaseException | None, *, alone: bool = False
    ) -> None:
        """Go on with a message that was confirmed (no error), or try it again, or note its failure."""
        if isinstance(error, PublishRefused):
            self._outlet.refused()
            if refusals < len(REFUSED_PAUSES):
                self._loop.call_later(REFUSED_PAUSES[refusals], self._put, pending, message, refusals + 1)
                return
        if not alone and isinstance(error, ChannelClosed) and error.reply_code:
            self._put_alone(pending, message, refusals)  # the broker closed the channel for this message or a neighbour
            return
        if not alone and isinstance(error, PublishReturned) and message.role is not Role.RESULT:
            self._outlet.declare_first()  # a queue of the app's own was deleted
            self._put_alone(pending, message, refusals)
            return
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
        """Publish dead letters in place of what can't be published; give the delivery back after anything else."""
        job = pending.job
        letters: list[Outgoing] = []
        for message, error in pending.failures:
            letter = self._instead_of(job, message, error)
            if letter is None:
                self._say_unsettled(job, error)
                self._loop.call_later(PAUSE, self._give_back, job)
                return
            log.error("stage '%s': %s became a dead letter: %s", job.stage.name, _WORDS[message.role], error)
            # One dead letter of the input is enough, however many of its results can't be published.
            if letter.role is Role.DEAD_RESULT or all(other.role is not letter.role for other in letters):
                letters.append(letter)
        self._counting.dead(job, len(letters))
        is_at_fault = any(isinstance(error, Closed) for _, error in pending.failures)
        self._publish(job, letters, alone=is_at_fault)

    def _instead_of(self, job: Job, message: Outgoing, error: BaseException) -> Outgoing | None:
        if not self._is_of(message, error):
            return None
        limit = self._outlet.frame_limit
        try:
            return instead_of(self._app, job, message, error, limit)
        except Exception as failure:  # noqa: BLE001 - told in its dead letter and the log
            return None if message.role is Role.BARE else self._unmade(job, failure)

    def _is_of(self, message: Outgoing, error: BaseException) -> bool:
        """Whether the fault lies in the message, so that publishing it again would lead to the same."""
        if isinstance(error, PublishReturned | PublishRefused):
            return message.role is Role.RESULT
        if isinstance(error, ChannelClosed | ConnectionClosed):
            # It was alone, or the client found that it ends each connection that it is sent over.
            return error.reply_code != 0 and self._outlet.is_alive
        return isinstance(error, Exception) and not isinstance(error, PublishError | RequestTimeout | OSError)

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


_WORDS: Final = {
    Role.RESULT: "a result",
    Role.DEAD_RESULT: "the dead letter of a result",
    Role.AGAIN: "a message for another attempt",
    Role.DEAD: "a dead letter with foreign properties",
}
