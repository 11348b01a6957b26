"""The half of a worker that lives on the I/O thread: two connections, intakes, settlement, watchdog, reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final

import msgspec

from rabbitry.amqp.client import BrokerURL, Connection, RecoveryEvent, connect
from rabbitry.exceptions import (
    ChannelClosed,
    ConnectionClosed,
    PublishRefused,
    RabbitryError,
    UsageError,
)
from rabbitry.flow._key_limit import KeyLimit
from rabbitry.flow._outlet import Outlet
from rabbitry.flow._rate import Rate
from rabbitry.flow.message import Publication, node_name
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.stage import Stage
from rabbitry.flow.wiring import topology
from rabbitry.flow.wiring.declarer import Declarer
from rabbitry.flow.wiring.rates import tokens_queue
from rabbitry.flow.wiring.retries import suspects_queue
from rabbitry.flow.wiring.slots import slot_queues
from rabbitry.flow.worker._cancelling import Cancelled, CancelListener
from rabbitry.flow.worker._counting import Counting, StageCounts
from rabbitry.flow.worker._intake import Intake
from rabbitry.flow.worker._job import Job, Result, Work
from rabbitry.flow.worker._keyed import Keyed
from rabbitry.flow.worker._limiter import Limiter
from rabbitry.flow.worker._load import Load
from rabbitry.flow.worker._minter import Minter
from rabbitry.flow.worker._pauses import Pauses, StagePause
from rabbitry.flow.worker._scheduler import Scheduler
from rabbitry.flow.worker._settlement import Settler
from rabbitry.flow.worker._single_active import ActiveIntake, SuspectsIntake, probe
from rabbitry.flow.worker._slots import Slots
from rabbitry.flow.worker._standstill import watch_queues
from rabbitry.flow.worker._waiting import Waiting
from rabbitry.flow.worker._window import Window
from rabbitry.telemetry import Limits, Reporter

_BLOCK_PATIENCE: Final = 10.0
"""Seconds that a broker has to stop delivering to stages with one active worker, while what is in hand is finished."""
_READ_PATIENCE: Final = 30.0
"""Seconds for which a starting worker waits for the list of cancelled jobs."""
_CLOSE_PATIENCE: Final = 1.0
"""Seconds that a broker has to answer when a connection is closed."""

_MOST_LEASES: Final = 1000
"""Leases of keys that are waited for or held over one connection, each over a channel of its own: at most so many, and
at most half of the channels that the broker allows."""

_logger = logging.getLogger(__name__)


class Engine:
    """Consumes jobs and settles them. Everything but `__init__` runs in the I/O thread's loop.

    waits: whether retries wait for their delay. prefetch: the messages of a stage that may be in hand. running: how
    many of its handlers run at once. hand_over: called with each job that can be handled. report:
    called with a job whose key can't be read, and its result. recall: called with a stage,
    and whether its jobs that have not begun are to be given back from now on. cancel: called when jobs in hand may have
    been cancelled. failed: called with the error that ended the engine.
    """

    def __init__(  # noqa: PLR0913 - the worker's settings and callbacks, each a keyword
        self,
        spec: AppSpec,
        stages: Sequence[Stage],
        *,
        waits: bool,
        prefetch: Callable[[Stage], int],
        running: Callable[[Stage], int],
        hand_over: Callable[[Job], None],
        report: Callable[[Work, Result], None],
        recall: Callable[[Stage, bool], None],
        cancel: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._spec = spec
        self.counting = Counting(spec, stages)
        self.intakes: list[Intake] = []
        self._url: BrokerURL | None = None
        self._stages = stages
        self._waits = waits
        self._prefetch = prefetch
        self._running = running
        self._hand_over = hand_over
        self._report = report
        self._recall = recall
        self._cancel = cancel
        self.cancelled = Cancelled()
        self._listener: CancelListener | None = None
        self._failed = failed
        self._connections: list[Connection] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._intaking: list[asyncio.Task[None]] = []
        self._pausing: list[asyncio.Task[None]] = []
        self._scheduling: list[asyncio.Task[None]] = []
        self._waiting: dict[str, list[Waiting | Keyed]] = {}
        """By the names of the stages with limits: where their messages wait; the last one is the first on the way."""
        self._keyed: dict[str, Keyed] = {}
        """By the names of the stages with limits by key."""
        self._slots: dict[str, Slots] = {}
        """By the names of the stages."""
        self._leases: list[asyncio.Semaphore] = []
        """Of keys, over each connection."""
        self._settler: Settler | None = None
        self._declarer = Declarer()
        self._own: Outlet | None = None
        """Where handlers' own publishes go out; made for the first."""
        self._own_lock = asyncio.Lock()
        self._is_stopping = False
        self._blocking: asyncio.Task[None] | None = None
        """Keeps returned deliveries from coming here again; set by `stop_taking`."""

    @property
    def exchange_type(self) -> str:
        """The type that the app's exchange has on the broker. It is known before the first delivery."""
        return self._declarer.types.get(self._spec.exchange, self._spec.exchange_type)

    @property
    def is_healthy(self) -> bool:
        """Whether both connections can be used and every stage is being consumed."""
        return (
            bool(self._connections)
            and all(connection.is_open for connection in self._connections)
            and all(intake.is_ready for intake in self.intakes)
        )

    async def connect(self, url: BrokerURL, *, strict: bool, attempts: int | None) -> None:
        """Connect, and declare the topology. Raises as `connect` and `topology.declare` do.

        attempts: to connect, 2 s apart at first and growing; None goes on for ever.
        """
        self._url = url
        consuming = await self._connect("consume", attempts, self._on_recovery)
        await self._connect("publish", attempts, None)
        await topology.declare(consuming, self._spec, strict=strict, declarer=self._declarer)

    async def start(self) -> None:
        """Consume, once connected. Raises the error that ends an intake before it has begun."""
        consuming, publishing = self._connections
        self._leases = [asyncio.Semaphore(_leases_over(connection)) for connection in self._connections]
        outlet = Outlet(publishing, await publishing.channel(), self._declare_again)
        settler = self._settler = Settler(self._spec, outlet, self.counting, self.cancelled, waits=self._waits)
        self._spawn(settler.run())
        self._spawn(Reporter(publishing, self.counting.reports).run())
        if self._spec.cancellable:
            await self._learn_cancelled(consuming)
        pausing = []
        for stage in self._stages:
            self._limit(stage, settler)
            intakes, counts = self._intakes_of(stage, consuming, outlet), self.counting.stages[stage.name]
            self.intakes += intakes
            keyed = self._keyed.get(stage.name)
            for intake in intakes:
                intake.on_settled = _settled([each.settled for each in (self._slots.get(stage.name), keyed) if each])
            if keyed is not None:
                keyed.is_full = partial(_is_full, counts, intakes[0])
                load = Load(partial(_handled, counts), stage.prefetch(self._running(stage), ahead=False))
                counts.measures["busy"] = load.busy
                self._spawn(load.run())
            counts.intakes += intakes
            pausing.append(StagePause(stage, intakes, counts, settler, self._recall_stage))
        pauses = Pauses(self._spec.name, consuming, pausing, self._declare_again)
        await pauses.begin()
        for intake in self.intakes:
            self._intaking.append(self._spawn(intake.run(), apart=True))
        self._spawn(watch_queues(self.intakes, consuming, lambda stage: self.counting.stages[stage.name].in_hand))
        for connection in self._connections:
            self._spawn(self._watch(connection))
        for intake, task in zip(self.intakes, self._intaking, strict=True):
            begun = asyncio.create_task(intake.wait_ready())
            await asyncio.wait((begun, task), return_when=asyncio.FIRST_COMPLETED)
            begun.cancel()
            if task.done():
                task.result()
        self._pausing.append(self._spawn(pauses.run(), apart=True))
        for name, counts in self.counting.stages.items():
            if (schedule := self._spec.schedules.get(name)) is not None:
                stage = self._spec.stages[name]
                scheduler = Scheduler(self._spec.name, stage, schedule, publishing, self._declare_again)
                counts.scheduler = scheduler
                self._scheduling.append(self._spawn(scheduler.run(), apart=True))

    def _limit(self, stage: Stage, settler: Settler) -> None:
        """Let the messages of a stage wait for the limits of their keys, its slots, and the tokens of its rate."""
        name, spec = stage.name, self._spec
        rate, total, by_key = spec.rates.get(name), spec.totals.get(name, 0), spec.key_limits.get(name)
        on_the_way: list[Waiting | Keyed] = []
        keyed = None if by_key is None else self._limit_keys(stage, by_key, settler)
        if self._waits and (rate is not None or total):
            hand_over = self._hand_over if keyed is None else keyed.pass_on
            waiting = self._limit_stage(name, rate, total, settler, hand_over)
            if keyed is not None:
                keyed.lead_through(waiting[-1].take)
            on_the_way += waiting
        if keyed is not None:
            on_the_way.append(keyed)
        if on_the_way:
            self._waiting[name] = on_the_way
            limits = Limits(
                "" if rate is None else rate.text, "" if rate is None else tokens_queue(spec.name, name), total
            )
            if by_key is not None:
                each = "" if by_key.rate is None else by_key.rate.text
                limits = msgspec.structs.replace(limits, by=by_key.by, rate_each=each, slots_each=by_key.total or 0)
            self.counting.stages[name].limits = limits

    def _limit_stage(
        self, name: str, rate: Rate | None, total: int, settler: Settler, hand_over: Callable[[Job], None]
    ) -> list[Waiting]:
        """Let the messages of a stage wait for their slots, and then for tokens. Return where, the last place first."""
        consuming, publishing = self._connections
        app, waiting = self._spec.name, []
        measures = self.counting.stages[name].measures
        if rate is not None:
            waiting.append(Waiting(settler, hand_over))
            measures["waiting_tokens"] = waiting[0].__len__
            limiter = Limiter(app, name, consuming, waiting[0], self.publish, self._declare_again)
            minter = Minter(app, name, rate, publishing, self._declare_again)
            self._scheduling += [self._spawn(each.run(), apart=True) for each in (limiter, minter)]
        if total:
            waiting.append(Waiting(settler, waiting[0].take if waiting else hand_over))
            what, queues = f"app '{app}', slots of stage '{name}'", slot_queues(app, name, total)
            slots = self._slots[name] = Slots(what, queues, consuming, waiting[-1], self.publish, self._declare_again)
            measures["waiting_slots"], measures["slots"] = waiting[-1].__len__, slots.held
            for work in slots.works():  # until the end, since what is in hand keeps its slot
                self._spawn(work)
        for each in waiting:
            self._spawn(each.watch())
        return waiting

    def _limit_keys(self, stage: Stage, limit: KeyLimit, settler: Settler) -> Keyed:
        """Let the messages of a stage wait for the slots, and then for the tokens, of their keys."""
        keyed = self._keyed[stage.name] = Keyed(
            self._spec.name,
            stage,
            limit,
            waits=self._waits,
            running=stage.prefetch(self._running(stage), ahead=False),
            connections=self._connections,
            leases=self._leases,
            settler=settler,
            hand_over=self._hand_over,
            report=self._report,
            publish=self.publish,
        )
        self.counting.stages[stage.name].measures["waiting_keys"] = keyed.waiting
        self._spawn(keyed.run())
        return keyed

    def _on_cancelled(self) -> None:
        for each in chain.from_iterable(self._waiting.values()):
            each.sweep()
        self._cancel()

    def _recall_stage(self, stage: Stage, is_paused: bool) -> None:  # noqa: FBT001 - a callback, as in the worker
        for waiting in self._waiting.get(stage.name, ()):
            (waiting.close if is_paused else waiting.open)()
        self._recall(stage, is_paused)

    async def _learn_cancelled(self, connection: Connection) -> None:
        """Listen for cancellations, and read the earlier ones before the first message is taken."""
        listener = self._listener = CancelListener(
            self._spec.name, connection, self.cancelled, self._on_cancelled, self._declare_again
        )
        tasks = [self._spawn(listener.listen()), self._spawn(listener.read())]
        known = asyncio.create_task(listener.wait_read())
        await asyncio.wait((known, *tasks), timeout=_READ_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        for task in tasks:
            if task.done():
                task.result()
        if not known.done():
            _logger.warning(
                "app '%s': earlier cancellations are not known yet; their jobs may begin, and are cancelled then",
                self._spec.name,
            )

    def _intakes_of(self, stage: Stage, connection: Connection, outlet: Outlet) -> tuple[Intake, Intake]:
        """Make the consumers of a stage's queue and of its suspects."""
        suspects, prefetch = suspects_queue(self._spec.name, stage.name), self._prefetch(stage)
        waiting = self._waiting.get(stage.name)
        take = partial(self._take, hand_over=waiting[-1].take if waiting else self._hand_over)
        # A quorum queue has no limit but the prefetch of each consumer (RabbitMQ's docs/quorum-queues, "Global QoS").
        window = Window(self._running(stage), prefetch) if self._spec.queue_type == "classic" else None
        if not stage.single_active:
            return (
                Intake(stage, stage.queue, connection, prefetch, take, self._declare_again, window),
                Intake(stage, suspects, connection, 1, take, self._declare_again),
            )
        leader = ActiveIntake(
            stage, stage.queue, connection, prefetch, take, self._declare_again, self._spec.queue_type, window
        )
        self._spawn(probe(leader, suspects, connection, outlet))
        return leader, SuspectsIntake(leader, suspects, connection, take, self._declare_again)

    async def _connect(
        self, purpose: str, attempts: int | None, on_recovery: Callable[[RecoveryEvent], None] | None
    ) -> Connection:
        name = f"{self._spec.name} worker {node_name()} {self.counting.id} ({purpose})"
        connection = await connect(self._url, name=name, connect_attempts=attempts, on_recovery=on_recovery)
        self._connections.append(connection)
        return connection

    def _on_recovery(self, event: RecoveryEvent) -> None:
        if event.kind == "lost":
            for intake in self.intakes:
                intake.lose_connection()
        elif event.kind == "recovered" and self._listener is not None:
            self._listener.connected_again()

    async def _declare_again(self) -> None:
        await topology.declare(self._connections[0], self._spec, declarer=self._declarer)

    async def _watch(self, connection: Connection) -> None:
        await connection.wait_closed()
        if not self._is_stopping and connection.close_reason is not None:
            raise connection.close_reason

    def _spawn(self, work: Coroutine[Any, Any, None], *, apart: bool = False) -> asyncio.Task[None]:
        """Start a task whose error ends the worker. apart: the caller keeps and ends it."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_end)
        if not apart:
            self._tasks.append(task)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._is_stopping:
            if not isinstance(error, RabbitryError):
                _logger.error("the worker's I/O failed", exc_info=error)
            self._failed(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    # -- jobs ------------------------------------------------------------------------------------------

    def _take(self, job: Job, hand_over: Callable[[Job], None]) -> None:
        settler = self._settler
        assert settler is not None  # noqa: S101 # intakes begin after it; narrows the type
        if job.delivery.redelivered:
            self.counting.redelivered(job)
        if settler.take(job):
            hand_over(job)

    def finish(self, results: list[tuple[Work, Result]]) -> None:
        """Settle jobs that were handled. An error here ends the worker; otherwise the jobs would stay unsettled."""
        if self._settler is None:
            return
        try:
            for job, result in results:
                self._settler.finish(job, result)
        except Exception as error:
            self._failed(error)
            raise

    async def publish(self, message: Publication) -> None:
        """Publish a message for a handler that publishes itself, and wait for the confirm.

        Raises as `Channel.publish` does. These messages have their own channel on the publishing connection, so a
        message for which the broker closes the channel does not affect the settlement of jobs.
        """
        async with self._own_lock:
            if self._own is None:
                publishing = self._connections[1]
                self._own = Outlet(publishing, await publishing.channel(), self._declare_again)
        future = await self._own.send(message)
        try:
            await future
        except PublishRefused:
            self._own.refused()
            raise
        except ChannelClosed:
            # The broker may have closed the channel for another handler's message. Alone, each answers for itself.
            async with self._own_lock:
                await self._own.send_alone(message)

    # -- stopping --------------------------------------------------------------------------------------

    async def ping(self, timeout: float) -> None:
        """See `Worker.ping`."""
        if not self._connections:
            raise UsageError("the worker is not connected")
        channel = await self._connections[0].channel(timeout=timeout)
        await channel.close()

    @property
    def _alone(self) -> list[str]:
        """The names of the stages with one active worker."""
        return [stage.name for stage in self._stages if stage.single_active]

    async def stop_taking(self, seconds: float) -> None:
        """Cancel the consumers, and wait at most `seconds` for the broker's answers; jobs in hand stay.

        Consumers of stages with one active worker stay until no job is in hand, since another worker becomes active as
        soon as the consumer is gone.
        """
        self._is_stopping = True
        await self._end(self._scheduling, seconds)
        await self._end(self._pausing)
        if self._settler is not None:
            self._settler.hold(self._alone)
        for each in chain.from_iterable(self._waiting.values()):
            each.close()
        leaders = [intake for intake in self.intakes if isinstance(intake, ActiveIntake)]
        if leaders and self._blocking is None:
            self._blocking = asyncio.create_task(_within(_BLOCK_PATIENCE, *(leader.block() for leader in leaders)))
        await _within(seconds, *(intake.stop() for intake in self.intakes if not intake.stage.single_active))

    async def drain(self, seconds: float) -> bool:
        """Wait at most `seconds` until all jobs are settled; return whether they are. Call `stop_taking` first."""
        settler = self._settler
        if settler is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                if self._blocking is not None:
                    await asyncio.shield(self._blocking)
                await settler.wait_idle()
                mine = [intake for intake in self.intakes if intake.stage.single_active]
                blocked = [intake for intake in mine if isinstance(intake, ActiveIntake) and intake.is_blocked]
                await _within(seconds, *(intake.stop() for intake in mine if intake not in blocked))
                settler.release(self._alone)
                await settler.wait_idle()
                await _within(seconds, *(intake.stop() for intake in blocked))
        except TimeoutError:
            return False
        await asyncio.sleep(0)  # acks of this turn travel at its end
        return True

    async def close(self) -> None:
        """End all tasks and close both connections; unsettled deliveries go back to their queues."""
        self._is_stopping = True
        await self._end([] if self._blocking is None else [self._blocking])
        await self._end(self._scheduling, _CLOSE_PATIENCE)
        await self._end(self._pausing)
        await self._end(self._intaking)
        await self._end(self._tasks)
        closing = (connection.close(timeout=_CLOSE_PATIENCE) for connection in self._connections)
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, ConnectionClosed):
                raise outcome

    async def _end(self, tasks: list[asyncio.Task[None]], seconds: float | None = None) -> None:
        """Cancel tasks, and wait at most `seconds` for their end; None: for ever."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


def _leases_over(connection: Connection) -> int:
    """Return how many leases of keys may be waited for or held over a connection."""
    return max(1, min(_MOST_LEASES, connection.channel_max // 2))


def _settled(noting: Sequence[Callable[[Job], None]]) -> Callable[[Job], None] | None:
    """Return what is called with each settled message of a stage: nothing, one function, or both."""
    if len(noting) < 2:
        return noting[0] if noting else None

    def settled(job: Job) -> None:
        for note in noting:
            note(job)

    return settled


def _is_full(counts: StageCounts, intake: Intake) -> bool:
    """Return whether a consumer of a stage has as many messages in hand as it may."""
    return counts.in_hand >= intake.most


def _handled(counts: StageCounts) -> float:
    """Return how many messages of a stage wait for none of its limits."""
    return counts.in_hand - sum(measure() for name, measure in counts.measures.items() if name.startswith("waiting_"))


async def _within(seconds: float, *works: Coroutine[Any, Any, None]) -> None:
    """Run all works concurrently for at most so many seconds, and ignore their errors.

    A lost connection has no consumer to cancel, and a silent broker gets no more time.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*works, return_exceptions=True)
