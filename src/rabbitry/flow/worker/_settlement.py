"""Settlement, on the I/O thread: publish what a job led to, wait for the confirms, then ack. The one place.

No delivery is acknowledged before everything that it led to is confirmed. A message that the broker refuses is
published again a few times. A result that no queue takes, or that is refused each time, becomes a dead letter, which is
confirmed in turn.

A message that can't be published as it is (headers too large for a frame, a body larger than the broker accepts, a name
that AMQP can't carry) must neither end the worker nor be redelivered for ever. Something smaller takes its place: the
dead letter of a result, then the dead letter of the input, then that without the properties of other programs. If the
broker closed the channel, each message that was on its way is published alone over another channel, so that the one at
fault is found and the others are settled. If the fault lies elsewhere (no confirm in time), the delivery is returned
after a pause and comes again as another attempt.

The notes of a stage behind a store (`_gates`) are published when all else is confirmed: a message that comes again
since the broker did not take one of its results must not be found to be done, or the result would be lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from sys import modules
from typing import TYPE_CHECKING, Final

from rabbitry._errors import described
from rabbitry.exceptions import (
    AlreadySettled,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    PublishError,
    PublishRefused,
    PublishReturned,
    RequestTimeout,
)
from rabbitry.flow._outlet import Outlet
from rabbitry.flow._tracing import MODULE
from rabbitry.flow.message import Publication, Role
from rabbitry.flow.worker import _spanned
from rabbitry.flow.worker._job import SUSPECT, BatchJob, Job, Led, Pending, Result, Work
from rabbitry.flow.worker._outcome import (
    before_handling,
    dead_letter_of,
    expired,
    instead_of,
    outgoing_of,
    outgoing_of_batch,
    replies_of_cancelled,
    replies_of_dead,
)

if TYPE_CHECKING:
    from rabbitry.flow.spec import AppSpec
    from rabbitry.flow.stage import Stage
    from rabbitry.flow.worker._cancelling import Cancelled
    from rabbitry.flow.worker._counting import Counting

PAUSE: Final = 1.0
"""Seconds before a delivery that could not be settled is given back."""
REFUSED_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds before what the broker refused is published again: a quorum queue may be without a leader, or full."""

_logger = logging.getLogger(__name__)


class Settler:
    """Settles jobs over one outlet. `run` sends; confirms come by themselves."""

    def __init__(
        self, spec: AppSpec, outlet: Outlet, counting: Counting, cancelled: Cancelled, *, waits: bool = True
    ) -> None:
        self.in_hand = 0
        self._cancelled = cancelled
        self._spec = spec
        self._outlet = outlet
        self._counting = counting
        self._waits = waits
        self._waiting: deque[tuple[Pending, Publication, int]] = deque()
        """What is to be published, and how often it was refused."""
        self._alone: deque[tuple[Pending, Publication, int]] = deque()
        """The same, for what is published one after the other: one of these closes the channel."""
        self._woken = asyncio.Event()
        self._woken_alone = asyncio.Event()
        self._holding: set[str] = set()
        """The names of the stages of which settlements are held."""
        self._held: list[tuple[Job, Result]] = []
        """Results of these stages that were not done, held until the consumer is cancelled."""
        self._done: list[Job] = []
        """Jobs of these stages that were done and are not acked yet."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving: dict[str, asyncio.Event] = {}
        """Stage → an event that is set once nothing of it is in hand but what is held."""
        self._loop = asyncio.get_running_loop()

    def take(self, job: Job) -> bool:
        """Note that a job is in hand. Returns whether it can be handled; if not, it is settled from here on."""
        self.in_hand += 1
        self._idle.clear()
        if job.is_plain and not self._cancelled.until:
            return True
        if self.drops(job):
            return False
        try:
            instead = before_handling(self._spec, job, self._outlet.frame_limit)
        except Exception as error:  # noqa: BLE001 - told in its dead letter and the log
            instead = self._unmade(job, error)
        if instead is None:
            return True
        replies = replies_of_dead(self._spec, job, instead)
        self._settle(job, (job,), [instead, *replies])
        return False

    def drops(self, job: Job) -> bool:
        """Settle a message that is not to be handled: its job was cancelled, or it expired. Return whether it is."""
        if self._is_cancelled(job):
            self._drop(job)
            return True
        if (expiry := expired(job)) is not None and expiry.expired == "drop":
            _logger.info("stage '%s': dropped a message that had expired", job.stage.name)
            self._counting.expired(job)
            self._settle(job, (job,), [])
            return True
        return False

    def finish(self, work: Work, result: Result) -> None:
        """Settle what was handled, or given back; or publish what its handler yielded so far."""
        if result.kind == "yielded":
            self._publish_yielded(work, result)
            return
        if MODULE in modules and result.kind not in _NOT_DONE:  # a call of `is_used` would cost every message
            _spanned.received(work)
        if isinstance(work, Job):
            self._finish(work, result)
        else:
            self._finish_batch(work, result)

    def _finish(self, job: Job, result: Result) -> None:
        if self._cancelled.until and self._is_cancelled(job):
            self._drop(job)
            return
        is_done = result.kind not in _NOT_DONE
        if not is_done:
            if job.stage.name in self._holding:
                self._held.append((job, result))
                self._look_idle()
                return
            if job.is_stale:
                if job.stream is not None:
                    job.stream.is_over = True
                self._give_back(job)
                return
            if result.kind == "abandoned":
                self._counting.interrupted(job)
        try:
            outgoing = outgoing_of(self._spec, job, result, self._outlet.frame_limit, waits=self._waits)
        except Exception as error:  # noqa: BLE001 - told in its dead letter and the log
            outgoing = [self._unmade(job, error)]
        if is_done:
            self._counting.handled(job, result, outgoing, _led(job))
        if result.kind != "done" and job.stream is not None and job.stream.pending is not None:
            job.stream.pending.notes = ()  # it failed after its last value, and is not done
        self._settle(job, (job,), outgoing)

    def _is_cancelled(self, job: Job) -> bool:
        """Return whether a message is to be dropped. A stale message is redelivered, and dropped then."""
        return job.trail.correlation in self._cancelled and not job.is_stale

    def _drop(self, job: Job) -> None:
        """Settle a message of a cancelled job, whatever its handler returned."""
        identity = job.trail.correlation.decode(errors="replace")
        _logger.info("stage '%s': dropped a message of job %r, which was cancelled", job.stage.name, identity)
        self._counting.cancelled(job)
        self._settle(job, (job,), replies_of_cancelled(self._spec, job))

    def _finish_batch(self, batch: BatchJob, result: Result) -> None:
        """Settle a batch whose handler returned: single messages that failed each for itself, the others together."""
        failed = dict(result.failures)
        done = [job for place, job in enumerate(batch.jobs) if place not in failed]
        outgoing = self._made(batch.jobs[0], partial(outgoing_of_batch, self._spec, batch, result))
        for number, job in enumerate(done):
            first = number == 0
            self._counting.handled(job, result, outgoing if first else [], _led(batch) if first else None)
        self._settle(batch, done, outgoing)
        for place, failure in failed.items():
            self._finish(batch.jobs[place], failure)

    def _publish_yielded(self, work: Work, result: Result) -> None:
        stream = work.stream
        if stream is None:
            return
        if stream.is_over:
            for _ in result.products:
                stream.release()
            return  # it was given back meanwhile, and comes again
        if stream.pending is None:
            stream.pending = Pending(work.stage, work.jobs, stream)
        led = stream.pending.led = stream.pending.led or Led()
        outgoing: list[Publication] = []
        for product in result.products:  # each for itself, so that each has its place in the stream
            one = result._replace(products=(product,)) if len(result.products) > 1 else result
            if isinstance(work, BatchJob):
                make = partial(outgoing_of_batch, self._spec, work, one)
            else:
                limit, made = self._outlet.frame_limit, stream.pending.made
                make = partial(outgoing_of, self._spec, work, one, limit, first=made)
            outgoing += self._made(work.jobs[0], make)
            stream.pending.made += 1
        self._counting.yielded(work.jobs[0], outgoing, led)
        self._publish(stream.pending, outgoing)

    def _settle(self, work: Work, jobs: Sequence[Job], outgoing: list[Publication]) -> None:
        """Publish the last of what a handler led to; once all is confirmed, ack the jobs."""
        stream = work.stream
        if stream is None:
            if not outgoing:
                for job in jobs:
                    self._ack(job)
                return
            pending = Pending(work.stage, jobs)
        else:
            stream.is_over = True
            pending = stream.pending or Pending(work.stage, jobs)
            pending.jobs, pending.is_open = jobs, False
        if outgoing or pending.left:
            self._publish(pending, outgoing)
        else:
            self._complete(pending)

    def _made(self, job: Job, make: Callable[[], list[Publication]]) -> list[Publication]:
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - told in its dead letter and the log
            return [self._unmade(job, error)]

    def _unmade(self, job: Job, error: Exception) -> Publication:
        """Make the dead letter of an input for which nothing else can be made."""
        _logger.error(
            "stage '%s': a message can't be settled and becomes a dead letter", job.stage.name, exc_info=error
        )
        result = Result("failed", reason="failed", error=described(error))
        return dead_letter_of(self._spec.name, job, result, self._outlet.frame_limit, is_bare=True)

    def _publish(self, pending: Pending, outgoing: list[Publication]) -> None:
        if pending.stage.takes is not None:
            pending.notes += tuple(message for message in outgoing if message.role is Role.NOTE)
            outgoing = [message for message in outgoing if message.role is not Role.NOTE]
            if not outgoing and not pending.left and not pending.is_open:
                self._complete(pending)
                return
        pending.left += len(outgoing)
        self._waiting.extend([(pending, message, 0) for message in outgoing])
        self._woken.set()

    def _put(self, pending: Pending, message: Publication, refusals: int) -> None:
        self._waiting.append((pending, message, refusals))
        self._woken.set()

    def _put_alone(self, pending: Pending, message: Publication, refusals: int) -> None:
        self._alone.append((pending, message, refusals))
        self._woken_alone.set()

    async def wait_idle(self) -> None:
        """Wait until nothing is in hand but what is held."""
        await self._idle.wait()

    async def wait_idle_stage(self, stage: str) -> None:
        """Wait until nothing of a stage is in hand but what is held."""
        event = self._leaving.setdefault(stage, asyncio.Event())
        self._look_idle()
        try:
            await event.wait()
        finally:
            self._leaving.pop(stage, None)

    def hold(self, stages: Iterable[str]) -> None:
        """Keep jobs of stages with one active worker. What was not done would come here again, published anew.

        What was done is acked later too: an ack makes room for deliveries, and if those of a quorum queue are still
        on their way when the consumer is cancelled, RabbitMQ gives them to the next one as redelivered.
        """
        self._holding.update(stages)

    def release(self, stages: Iterable[str]) -> None:
        """Release what was held of these stages."""
        released = set(stages)
        self._holding -= released
        held = [(job, result) for job, result in self._held if job.stage.name in released]
        done = [job for job in self._done if job.stage.name in released]
        self._held = [(job, result) for job, result in self._held if job.stage.name not in released]
        self._done = [job for job in self._done if job.stage.name not in released]
        if held or done:
            self._idle.clear()
        for job in done:
            self._ack(job)
        for job, result in held:
            self._finish(job, result)

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

    async def _send(self, pending: Pending, message: Publication, refusals: int) -> None:
        span = _spanned.publishing(message) if MODULE in modules else None
        try:
            future = await self._outlet.send(message)
        except Exception as error:  # noqa: BLE001 - what can't be published must not end the others; it is logged
            if span is not None:
                _spanned.ended(span, error)
            self._on_outcome(pending, message, refusals, error)
        else:
            if span is not None:
                future.add_done_callback(partial(_spanned.end, span))
            future.add_done_callback(partial(self._confirmed, pending, message, refusals))

    def _confirmed(self, pending: Pending, message: Publication, refusals: int, future: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        self._on_outcome(pending, message, refusals, error)

    async def _send_alone(self) -> None:
        while True:
            while self._alone:
                pending, message, refusals = self._alone.popleft()
                error: Exception | None = None
                span = _spanned.publishing(message) if MODULE in modules else None
                try:
                    await self._outlet.send_alone(message)
                except Exception as failure:  # noqa: BLE001 - as in `_send`
                    error = failure
                if span is not None:
                    _spanned.ended(span, error)
                self._on_outcome(pending, message, refusals, error, alone=True)
            self._woken_alone.clear()
            await self._woken_alone.wait()

    def _on_outcome(
        self, pending: Pending, message: Publication, refusals: int, error: BaseException | None, *, alone: bool = False
    ) -> None:
        """Go on with a message that was confirmed (no error), or try it again, or note its failure."""
        if error is not None and (
            self._is_tried_again(pending, message, refusals, error, alone=alone)
            or self._on_failure(pending, message, error)
        ):
            return
        if pending.stream is not None:
            pending.stream.release()
        pending.left -= 1
        if pending.left or pending.is_open:
            return
        if pending.failure is None and not pending.letters and not pending.notes:
            for job in pending.jobs:
                self._ack(job)
        else:
            self._complete(pending)

    def _is_tried_again(
        self, pending: Pending, message: Publication, refusals: int, error: BaseException, *, alone: bool
    ) -> bool:
        """Publish a message once more where that may help. Returns whether it is."""
        if isinstance(error, PublishRefused):
            self._outlet.refused()
            if refusals < len(REFUSED_PAUSES):
                self._loop.call_later(REFUSED_PAUSES[refusals], self._put, pending, message, refusals + 1)
                return True
        if not alone and isinstance(error, ChannelClosed) and error.reply_code:
            self._put_alone(pending, message, refusals)  # the broker closed the channel for this message or a neighbour
            return True
        if not alone and isinstance(error, PublishReturned) and message.role is not Role.RESULT:
            self._outlet.declare_first()  # a queue of the app's own was deleted
            self._put_alone(pending, message, refusals)
            return True
        return False

    def _on_failure(self, pending: Pending, message: Publication, error: BaseException) -> bool:
        """Note that a message can't be published. Returns whether another message is on its way in its place."""
        if message.role is Role.NOTE:
            # The results are confirmed: if the message came again for its note, they would be published twice.
            _logger.warning(
                "stage '%s': %s is dropped, so that a copy may be handled too: %s",
                pending.stage.name,
                _WORDS[message.role],
                described(error),
            )
            return False
        is_of_it = self._is_of(message, error)
        is_refused_reply = message.role is Role.REPLY and isinstance(error, PublishRefused)
        if is_of_it and (is_refused_reply or message.role is Role.ERROR_REPLY):
            # The caller's queue may stay full. The message was handled, and must not be handled again for that.
            _logger.warning("stage '%s': %s is dropped: %s", pending.stage.name, _WORDS[message.role], error)
            return False
        letter = self._instead_of(pending, message, error) if is_of_it else None
        if letter is None:
            pending.failure = error
            return False
        became = "an error for its caller" if letter.role is Role.ERROR_REPLY else "a dead letter"
        _logger.error("stage '%s': %s became %s: %s", pending.stage.name, _WORDS[message.role], became, error)
        is_at_fault = isinstance(error, Closed)
        if letter.role in (Role.DEAD_RESULT, Role.ERROR_REPLY):
            if letter.role is Role.DEAD_RESULT:
                self._counting.dead(pending.stage, 1)
            (self._put_alone if is_at_fault else self._put)(pending, letter, 0)
            return True
        # One dead letter of the input is enough, however many of its results can't be published.
        if all(other.role is not letter.role for other, _ in pending.letters):
            pending.letters = (*pending.letters, (letter, is_at_fault))
        return False

    def _complete(self, pending: Pending) -> None:
        """Publish the notes and acknowledge if all is confirmed, or publish dead letters of the inputs, or requeue."""
        if pending.failure is not None:
            self._say_unsettled(pending.stage, pending.failure)
            for job in pending.jobs:
                self._loop.call_later(PAUSE, self._give_back, job)
        elif pending.letters and len(pending.jobs) > 1:
            for job in pending.jobs:  # alone, each shows whether it was its result
                self._finish(job, SUSPECT)
        elif pending.letters:
            letters, pending.letters = pending.letters, ()
            pending.notes = ()  # it is not done: the dead letter may be replayed
            self._counting.dead(pending.stage, len(letters))
            pending.left = len(letters)
            for letter, is_at_fault in letters:
                (self._put_alone if is_at_fault else self._put)(pending, letter, 0)
        elif pending.notes:
            notes, pending.notes = pending.notes, ()
            pending.left = len(notes)
            for note in notes:
                self._put(pending, note, 0)
        else:
            for job in pending.jobs:
                self._ack(job)

    def _instead_of(self, pending: Pending, message: Publication, error: BaseException) -> Publication | None:
        if not pending.jobs:
            return None  # of a batch of which each message was settled for itself
        job, limit = pending.jobs[0], self._outlet.frame_limit
        try:
            return instead_of(self._spec, job, message, error, limit)
        except Exception as failure:  # noqa: BLE001 - told in its dead letter and the log
            return None if message.role is Role.BARE else self._unmade(job, failure)

    def _is_of(self, message: Publication, error: BaseException) -> bool:
        """Return whether the fault lies in the message, so that publishing it again would lead to the same."""
        if isinstance(error, PublishReturned | PublishRefused):
            return message.role is Role.RESULT or message.role in _REPLIES
        if isinstance(error, ChannelClosed | ConnectionClosed):
            # It was alone, or the client found that it ends each connection that it is sent over.
            return error.reply_code != 0 and self._outlet.is_alive
        return isinstance(error, Exception) and not isinstance(error, PublishError | RequestTimeout | OSError)

    def _say_unsettled(self, stage: Stage, error: BaseException) -> None:
        if isinstance(error, PublishError | Closed):
            _logger.warning("stage '%s': not published, so the message comes again: %s", stage.name, error)
        else:
            _logger.error("stage '%s': can't publish, so the message comes again", stage.name, exc_info=error)

    def _ack(self, job: Job) -> None:
        if job.stage.name in self._holding:
            self._done.append(job)
            self._look_idle()
            return
        try:
            job.delivery.ack()
            if job.handled_at:
                _spanned.settled(job, "ack")
        except AlreadySettled as error:
            if job.handled_at:
                _spanned.settled(job, "ack", error)
            # It was done, and comes again: at least once.
            _logger.debug("stage '%s': %s", job.stage.name, error)
            self._counting.lost(job)
        self._ended(job)

    def _give_back(self, job: Job) -> None:
        try:
            job.delivery.nack()
            if job.handled_at:
                _spanned.settled(job, "nack")
        except (AlreadySettled, Closed) as error:
            if job.handled_at:
                _spanned.settled(job, "nack", error)
            _logger.debug("stage '%s': %s", job.stage.name, error)
        self._ended(job)

    def _ended(self, job: Job) -> None:
        self._counting.settled(job, time.monotonic())
        job.source.settled(job)
        self.in_hand -= 1
        if self._leaving or self.in_hand <= len(self._held) + len(self._done):
            self._look_idle()

    def _look_idle(self) -> None:
        if self.in_hand <= len(self._held) + len(self._done):
            self._idle.set()
        for name, event in self._leaving.items():
            held = sum(job.stage.name == name for job, _ in self._held)
            held += sum(job.stage.name == name for job in self._done)
            if self._counting.stages[name].in_hand <= held:
                event.set()


_REPLIES: Final = (Role.REPLY, Role.ERROR_REPLY)
_NOT_DONE: Final = frozenset({"given-back", "abandoned", "suspect"})
_WORDS: Final = {
    Role.RESULT: "a result",
    Role.REPLY: "the reply to a caller",
    Role.ERROR_REPLY: "the error for a caller",
    Role.DEAD_RESULT: "the dead letter of a result",
    Role.NOTICE: "what a stage tells the join of its parts",
    Role.NOTE: "the note that a message is done",
    Role.AGAIN: "a message for another attempt",
    Role.DEAD: "a dead letter with foreign properties",
}


def _led(work: Work) -> Led | None:
    """Return what a handler yielded; None if it yielded nothing."""
    return None if work.stream is None or work.stream.pending is None else work.stream.pending.led
