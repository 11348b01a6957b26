"""A worker: takes messages of an app's stages, runs the handlers, settles. One process has one or several."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from rabbitry.amqp.client import BrokerURL, parse_url
from rabbitry.amqp.client.url import current, default_url
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import ConnectionClosed, PublishError, UsageError
from rabbitry.flow._options import MOST_UNACKED
from rabbitry.flow._publication import following, publication_of, with_id
from rabbitry.flow._replies import ReplyTo, progress_reply
from rabbitry.flow.key import Key, name_of
from rabbitry.flow.message import Message, Publication
from rabbitry.flow.once import Unique
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.stage import Stage
from rabbitry.flow.timing import Times, Timing, timing_of
from rabbitry.flow.wiring.topology import DELIVERY_TIMEOUT
from rabbitry.flow.worker._block import Block
from rabbitry.flow.worker._counting import StageCounts
from rabbitry.flow.worker._engine import Engine
from rabbitry.flow.worker._executors import Executor, Invoker, make_executor
from rabbitry.flow.worker._health import Health
from rabbitry.flow.worker._job import GIVEN_BACK, Job, Result, Work
from rabbitry.flow.worker._keyed import WAITING
from rabbitry.flow.worker._life import Life
from rabbitry.flow.worker._mailbox import Mailbox
from rabbitry.flow.worker._metrics import Exposition
from rabbitry.runtime.io_thread import IOThread
from rabbitry.runtime.loop_watchdog import Alarm, Watch

DEADLINE: Final = 10.0
"""Seconds that handlers have to finish when a worker stops."""
_SETTLING: Final = 2.0
"""Seconds beyond the deadline that confirms of what was handled may take. With what closing takes, `rabbitry worker`
ends within its deadline and twice the command line's GRACE."""
_CANCELLING: Final = 1.0
"""Seconds that a broker has to answer that it sends nothing more."""

BLOCKED: Final = 2.0
"""Seconds for which a handler may block the loop before its stack is logged."""
_NOT_ENTERED: Final = "the worker does not run: use it within `async with app.worker() as worker:`"

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


def _on_loop_blocked(_seconds: float, limit: float, stack: str) -> None:
    _logger.error("a handler keeps the worker's loop for %g s and more:\n%s", limit, stack)


def _on_loop_resumed(seconds: float) -> None:
    _logger.warning("the worker's loop goes on after %.1f s", seconds)


_ALARM: Final = Alarm(_on_loop_blocked, _on_loop_resumed)


class Worker:
    """Handles messages inside an `async with` block. Create one with `App.worker`.

    Handlers that are `async def` run in the event loop of the block. The connections are driven by an I/O thread, so a
    handler that blocks the loop does not cost a heartbeat. Handlers run in copies of the context in which the block
    was entered.

    If the worker fails for good inside the block, the block is cancelled, and leaving it raises the cause (see `wait`):
    ConnectionClosed, AccessRefused or WorkerStuck.

    Args:
        spec: The app.
        url: The broker; None for RABBITRY_BROKER, or this machine.
        stages: The names of the stages to work for; None for all.
        running: The app's workers in this process. The worker is in it while any of its handlers can run.
        concurrency: Calls at once of each stage; None for the stage's own number.
        strict: Raise TopologyMismatch instead of using a queue or exchange that exists with other flags.
        connect_attempts: How often to try to connect at the start, with pauses of 2 s and growing; None for ever.
        waits: False to deliver retries, and what a `Context` publishes with a delay, at once, for tests.
        on_result: Called with each result, in the loop of the handlers.
        id: The worker's name in telemetry; None for a random one.

    Raises:
        UsageError: The worker is entered a second time, or a method needs a worker that was entered.
        AppError: On entering: a child process can't import its handler, or make its dependencies.
        DependencyFailed: A lifespan, or a dependency of scope "worker", failed: on entering, or on leaving.
        ConnectFailed: On entering, as are LoginRefused, VirtualHostRefused, TopologyMismatch and AccessRefused.
    """

    def __init__(  # noqa: PLR0913 - the options of `App.worker`
        self,
        spec: AppSpec,
        url: str | BrokerURL | None,
        stages: Sequence[str] | None,
        *,
        running: list[Worker],
        concurrency: int | None = None,
        strict: bool = False,
        connect_attempts: int | None = None,
        waits: bool = True,
        on_result: Callable[[Work, Result], None] | None = None,
        id: str | None = None,
    ) -> None:
        if concurrency is not None and (not isinstance(concurrency, int) or concurrency < 1):
            raise UsageError(f"concurrency={concurrency!r}: must be a positive whole number, or None")
        self.spec = spec
        self.stages: list[Stage] = spec.select(stages)
        self.url: BrokerURL | None = None
        """Where it is connected, once entered."""
        self._given_url = url
        self._running = running
        self._concurrency = concurrency
        self._strict = strict
        self._attempts = connect_attempts
        self._waits = waits
        self._on_result = on_result
        self._executors: dict[str, Executor] = {}
        self._recalled: set[str] = set()
        """Names of stages that are paused."""
        plans = [stage.signature.plan for stage in self.stages if stage.kind != "process"]
        self._life = Life(spec.name, (*spec.lifespans, *plans), self._on_failed)
        self._io: IOThread | None = None
        self._unique = Unique(spec)
        self._engine = Engine(
            spec,
            self.stages,
            waits=waits,
            prefetch=self._prefetch,
            running=self._concurrency_of,
            hand_over=self._hand_over,
            report=self._report,
            recall=self._recall,
            cancel=self._on_cancelled,
            failed=self._on_failed,
        )
        if id is not None:
            self._engine.counting.id = id
        self._failure: asyncio.Future[None] | None = None
        self._failed_with: Exception | None = None
        """What ended the worker for good; also read by the I/O thread, which answers for the health."""
        self._block: Block | None = None
        self._is_told = False
        self._waiting = 0
        """How many are told of a failure by `wait`."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._health: Health | None = None
        self._watch: Watch | None = None
        self._is_stopped = False
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Worker of {self.spec.name!r}: {', '.join(stage.name for stage in self.stages)}>"

    @property
    def id(self) -> str:
        """The name of this worker in telemetry."""
        return self._engine.counting.id

    @property
    def is_healthy(self) -> bool:
        """Whether it is connected, consumes all its stages, and has not failed."""
        has_started = self._watch is not None  # before, it may be connected and have no stage to consume yet
        return has_started and not self._is_stopping and self._failed_with is None and self._engine.is_healthy

    @property
    def exchange_type(self) -> str:
        """The type that the app's exchange has on the broker, if another program may have declared it first."""
        return self._engine.exchange_type

    async def __aenter__(self) -> Self:
        if self._io is not None:
            raise UsageError("a worker is entered once: make another one with app.worker(…)")
        url = self._given_url
        self.url = default_url() if url is None else url if isinstance(url, BrokerURL) else parse_url(url)
        loop = self._loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        self._io = IOThread(f"{self.spec.name} worker I/O")
        self._jobs: Mailbox[Job] = Mailbox(loop, self._submit)
        self._results: Mailbox[tuple[Work, Result]] = Mailbox(self._io.loop, self._engine.finish)
        # Handlers run in copies of this context, so that what they publish without a URL goes where the worker is.
        context = contextvars.copy_context()
        context.run(current.set, self.url)
        self._say_limits()
        try:
            context.run(self._make_executors)
            for executor in self._executors.values():
                await executor.start()
            await self._on_io(self._engine.connect(self.url, strict=self._strict, attempts=self._attempts))
            self._running.append(self)
            await self._life.start(context)
            await self._on_io(self._engine.start())
            if self._failure.done():
                self._failure.result()  # raises; what fails later cancels the block
        except BaseException:
            await self.stop()  # the first consumers may have brought work before the last one has begun
            raise
        self._block = Block()
        self._watch = Watch(BLOCKED, _ALARM)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop. Raise the error that ended the worker, unless the block raised another one or `wait` reported it."""
        block, self._block = self._block, None
        is_ours = block is not None and await block.take_back(error)
        failure = None if self._is_told else self._failed_with
        stopping = asyncio.create_task(self.stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            await asyncio.wait((stopping,))  # it has a deadline of its own
            raise
        failure = failure or self._life.failure
        if failure is None:
            return
        if error is None or (is_ours and isinstance(error, asyncio.CancelledError)):
            raise failure
        error.add_note(f"the worker had failed before: {failure!r}")

    async def wait(self) -> None:
        """Wait until the worker fails, and raise why: ConnectionClosed, AccessRefused, WorkerStuck.

        The failure is then told here: it neither cancels the block nor is raised at its end. Cancelling leaves the
        worker running.
        """
        if self._failure is None or self._failure.cancelled():  # never entered, or stopped
            raise UsageError(_NOT_ENTERED)
        self._waiting += 1
        try:
            await asyncio.shield(self._failure)
        except BaseException:
            self._is_told = self._failure.done()
            raise
        finally:
            self._waiting -= 1

    async def ping(self, timeout: float) -> None:
        """Wait until the broker answers over the connection that messages come over.

        A worker whose messages may be another one's soon, since the broker hears nothing of it, does not learn that
        from what it publishes, which goes over another connection. timeout: seconds. Raises RequestTimeout,
        ConnectionClosed, and UsageError if the worker does not run.
        """
        await self._on_io(self._engine.ping(timeout))

    async def serve_health(self, port: int, host: str = "127.0.0.1") -> int:
        """Answer over HTTP, for orchestrators and Prometheus. Returns the port; 0 takes a free one.

        `GET /health` answers 200 while the worker is ready (connected, and consuming all its stages), and 503 while it
        is not. `GET /live` answers 503 once it has failed for good and must be restarted. `GET /metrics` has its
        figures in Prometheus' format, and all that handlers count with prometheus_client; it needs the extra
        `prometheus`. All are answered by the I/O thread, also while a handler keeps the loop. Raises UsageError if it
        can't listen there.
        """
        expose = Exposition(self.spec.name, self._figures).page
        health = self._health = Health(self._describe, lambda: self._failed_with is None, expose)
        return await self._on_io(health.start(host, port))

    async def stop(self, deadline: float = DEADLINE) -> bool:
        """Stop taking, finish what is in hand within `deadline` seconds, give the rest back, close in order.

        Returns whether everything in hand was finished. Does nothing if it has stopped.
        """
        if self._is_stopped or self._io is None:
            return True
        self._is_stopped = self._is_stopping = True
        try:
            return await self._stop(self._io, deadline)
        finally:
            if self._watch is not None:
                self._watch.stop()

    async def _stop(self, io: IOThread, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        await self._on_io(self._engine.stop_taking(_CANCELLING))
        await asyncio.gather(*(executor.stop(until) for executor in self._executors.values()))
        left = max(0.0, until - loop.time()) + _SETTLING
        is_done = await self._on_io(self._engine.drain(left))
        if not is_done:
            _logger.error("%s: not everything in hand was finished in time; it will come again", self.spec.name)
        await self._life.stop(max(0.0, until - loop.time()) + _SETTLING)  # it may publish
        if self._health is not None:
            await self._on_io(self._health.stop())
        if self in self._running:
            self._running.remove(self)
        await self._on_io(self._engine.close())
        await self._on_io(self._unique.close())
        await loop.run_in_executor(None, io.stop)
        if self._failure is not None:
            self._failure.cancel()
        return is_done

    async def give_up(self) -> None:
        """Return to the broker at once what is in hand, while `stop` waits for it; returns when the broker has it.

        Nothing of it is counted as an attempt. For who can't wait for the deadline that `stop` was given.
        """
        now = asyncio.get_running_loop().time()
        await asyncio.gather(*(executor.stop(now) for executor in self._executors.values()))
        await self._on_io(self._engine.drain(_SETTLING))
        # The broker answers that when it has read everything: a process that ends at once could take acks with it.
        await self._on_io(self._engine.close())

    # -- publishing for handlers -----------------------------------------------------------------------

    async def publish(
        self,
        value: _T | Outgoing,
        *,
        key: str | Key[_T],
        headers: Table | None = None,
        unique: str | None = None,
        **times: Unpack[Times],
    ) -> str:
        """Publish a value over the worker's connection; see `App.publish`."""
        made = publication_of(self.spec, value, key, headers, self._waited(timing_of(**times)))
        return await self._on_io(self._publish(*made, key, unique))

    def publish_blocking(
        self,
        value: _T | Outgoing,
        *,
        key: str | Key[_T],
        headers: Table | None = None,
        unique: str | None = None,
        **times: Unpack[Times],
    ) -> str:
        """Publish a value over the worker's connection; see `App.publish_blocking`."""
        if self._io is None:
            raise UsageError(_NOT_ENTERED)
        made = publication_of(self.spec, value, key, headers, self._waited(timing_of(**times)))
        return self._io.run(self._publish(*made, key, unique))

    async def publish_for(
        self,
        cause: Message,
        value: object,
        key: str | Key[Any],
        *,
        headers: Table | None,
        priority: int | None,
        timing: Timing | None,
        unique: str | None,
    ) -> str:
        """Publish a value that follows from a message; for `Context`."""
        made = following(self.spec, cause, value, key, headers, priority, self._waited(timing))
        return await self._on_io(self._publish(*made, key, unique))

    def publish_blocking_for(
        self,
        cause: Message,
        value: object,
        key: str | Key[Any],
        *,
        headers: Table | None,
        priority: int | None,
        timing: Timing | None,
        unique: str | None,
    ) -> str:
        """Publish as `publish_for` does, without an event loop; for `Context`."""
        if self._io is None:
            raise UsageError(_NOT_ENTERED)
        made = following(self.spec, cause, value, key, headers, priority, self._waited(timing))
        return self._io.run(self._publish(*made, key, unique))

    async def _publish(self, identity: str, message: Publication, key: str | Key[Any], unique: str | None) -> str:
        """Publish a message, once if it is unique; on the I/O thread."""
        if unique is None:
            await self._engine.publish(message)
            return identity
        return await self._unique.publish(
            unique, name_of(key), lambda identity: self._engine.publish(with_id(message, identity))
        )

    def _waited(self, timing: Timing | None) -> Timing | None:
        """Return the times of a message: without its delay if the worker, of a harness, waits for none."""
        return timing if timing is None or self._waits else timing._replace(delay=0.0)

    async def report_for(self, cause: Message, value: object) -> None:
        """Send progress to the caller of a message, unless the broker refuses it; for `Context`."""
        report = self._report_of(cause, value)
        with contextlib.suppress(PublishError):  # the caller's queue may be full
            await self._on_io(self._engine.publish(report))

    def report_blocking_for(self, cause: Message, value: object) -> None:
        """Send as `report_for` does, without an event loop; for `Context`."""
        if self._io is None:
            raise UsageError(_NOT_ENTERED)
        report = self._report_of(cause, value)
        with contextlib.suppress(PublishError):
            self._io.run(self._engine.publish(report))

    def _report_of(self, cause: Message, value: object) -> Publication:
        return progress_reply(self.spec.name, ReplyTo(cause.reply_to or "", cause.correlation_id), value)

    # -- between the two loops -------------------------------------------------------------------------

    async def _on_io(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._io is None:
            work.close()
            raise UsageError(_NOT_ENTERED)
        future = self._io.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise
            raise ConnectionClosed(0, "the worker was stopped meanwhile") from error

    def _make_executors(self) -> None:
        for stage in self.stages:
            number = self._concurrency_of(stage)
            invoker = Invoker(stage, middlewares=self.spec.middlewares, instances=self._life.instances, publishing=self)
            self._executors[stage.name] = make_executor(invoker, number, self._report, self._on_failed)

    def _concurrency_of(self, stage: Stage) -> int:
        """Return how many handlers of a stage run at once."""
        return self._concurrency or stage.concurrency

    def _prefetch(self, stage: Stage) -> int:
        """Return the prefetch of a stage: twice the calls that can run at once.

        The next message is then here while the last one is settled. If a handler may take so long that a waiting
        message could exceed the broker's delivery timeout, no message waits.
        """
        running, rate = self._concurrency_of(stage), self.spec.rates.get(stage.name)
        if stage.name in self.spec.key_limits:
            return min(stage.prefetch(running, ahead=False) + WAITING, MOST_UNACKED)
        if rate is not None:  # its messages wait for tokens, and what has one begins at once
            return min(stage.prefetch(running, ahead=False), max(running, rate.ahead))
        if stage.name in self.spec.totals:
            return stage.prefetch(running, ahead=False)
        return stage.prefetch(running, ahead=2 * stage.time_limit < DELIVERY_TIMEOUT)

    def _hand_over(self, job: Job) -> None:
        """Pass a job on; called on the I/O thread."""
        self._jobs.put(job)

    def _submit(self, jobs: list[Job]) -> None:
        if self._is_stopping:
            for job in jobs:
                self._report(job, GIVEN_BACK)
            return
        by_stage: dict[str, list[Job]] = {}
        for job in jobs:
            by_stage.setdefault(job.stage.name, []).append(job)
        for name, mine in by_stage.items():
            if name in self._recalled:
                for job in mine:
                    self._report(job, GIVEN_BACK)
            else:
                self._executors[name].submit(mine)

    def _recall(self, stage: Stage, is_paused: bool) -> None:  # noqa: FBT001 - a callback, whose call has no keywords
        """Return the jobs of a stage that have not begun, and later ones as they arrive; called on the I/O thread."""
        if self._loop is not None and not self._loop.is_closed():
            # In order with the mailbox of jobs: those that were handed over before are in the executor by then.
            self._loop.call_soon_threadsafe(self._on_recall, stage.name, is_paused)

    def _on_recall(self, name: str, is_paused: bool) -> None:  # noqa: FBT001 - as above
        if is_paused:
            self._recalled.add(name)
            self._executors[name].give_back()
        else:
            self._recalled.discard(name)

    def _on_cancelled(self) -> None:
        """Cancel the messages in hand of cancelled jobs; called on the I/O thread.

        By the time that the loop runs this, it has taken every job that was handed over until now.
        """
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel_jobs)

    def _cancel_jobs(self) -> None:
        for executor in self._executors.values():
            executor.cancel(self._engine.cancelled)

    def _report(self, job: Work, result: Result) -> None:
        """Pass a result on; called in any thread."""
        if result.kind == "failed":
            _say_failed(job, result)
        for place, failure in result.failures:
            if failure.kind == "failed":
                _say_failed(job.jobs[place], failure)
        self._results.put((job, result))
        if self._on_result is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_result, job, result)

    def _on_failed(self, error: Exception) -> None:
        def fail() -> None:
            if self._failure is None or self._failure.done():
                return
            self._failure.set_exception(error)
            self._failure.exception()  # nobody has to wait for it
            if not self._waiting:
                _logger.error("%s: the worker has failed: %s", self.spec.name, error)
                if self._block is not None:
                    self._block.cancel()

        if self._failed_with is None:
            self._failed_with = error
        if self._loop is not None:
            self._loop.call_soon_threadsafe(fail)

    def _describe(self) -> tuple[bool, dict[str, object]]:
        counts = self._engine.counting.stages
        stages = {
            name: {
                "consuming": consuming,
                **({"paused": True} if counts[name].is_paused else {}),
                **counts[name].counters,
            }
            for name, consuming in self._consuming().items()
        }
        failure = {} if self._failed_with is None else {"failure": str(self._failed_with)}
        return self.is_healthy, {"app": self.spec.name, "id": self.id, **failure, "stages": stages}

    def _figures(self) -> dict[str, tuple[StageCounts, bool]]:
        consuming = self._consuming()
        return {name: (counts, consuming.get(name, False)) for name, counts in self._engine.counting.stages.items()}

    def _consuming(self) -> dict[str, bool]:
        """Return whether each stage is being consumed."""
        consuming: dict[str, bool] = {}
        for intake in self._engine.intakes:
            consuming[intake.stage.name] = consuming.get(intake.stage.name, True) and intake.is_ready
        return consuming

    def _say_limits(self) -> None:
        for stage in self.stages:
            if stage.time_limit >= DELIVERY_TIMEOUT:
                _logger.warning(
                    "stage '%s': its time limit of %g s is beyond the broker's delivery timeout (%g s by default), "
                    "which closes the channel: lower the limit, or raise consumer_timeout there",
                    stage.name,
                    stage.time_limit,
                    DELIVERY_TIMEOUT,
                )


def _say_failed(job: Work, result: Result) -> None:
    _logger.warning("stage '%s', attempt %d: %s", job.stage.name, job.attempt, result.error)
    _logger.debug("%s", result.trace)
