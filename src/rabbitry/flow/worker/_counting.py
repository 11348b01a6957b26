"""Counters of a worker's stages, reported as telemetry. Only the I/O thread touches them."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol
from zlib import crc32

import msgspec

from rabbitry.flow.message import NOTE, RESULT, Publication, Role, node_name
from rabbitry.flow.wiring.topology import derive
from rabbitry.flow.worker._job import Job, Led, Result
from rabbitry.flow.worker._sampling import Sampler, readable
from rabbitry.telemetry import (
    DeclaredBinding,
    DeclaredExchange,
    DeclaredQueue,
    Declares,
    Histogram,
    Limits,
    Report,
    ReportKind,
    ScheduleState,
    Wiring,
)

if TYPE_CHECKING:
    from rabbitry.flow.codec import Codec
    from rabbitry.flow.spec import AppSpec
    from rabbitry.flow.stage import Stage

_logger = logging.getLogger(__name__)

DECLARES_EACH: Final = 15
"""One of so many reports has what the app declares and its document: a dashboard that starts later has it in 30 s."""
LARGEST_DOCUMENT: Final = 1 << 18
"""Bytes of an AsyncAPI document that is announced; a larger one is left out."""
_TYPES_EVERY: Final = 5
"""One of so many reports has the types of the stages' messages: a dashboard that starts later knows them in 10 s."""


class Taking(Protocol):
    """A consumer that knows how many deliveries it took."""

    taken: int


class Scheduled(Protocol):
    """A scheduler; `state` is None while another worker holds the token of the schedule."""

    state: ScheduleState | None


class StageCounts:
    """Totals of one stage in one worker. Derivable figures are not counted, since counting costs every message."""

    __slots__ = ("cancelled", "dead", "expired", "handling", "intakes", "interrupted", "is_paused", "limits",
                 "measures", "not_done", "passing", "redelivered", "repeated", "scheduler", "to",
                 "waiting")  # fmt: skip

    def __init__(self) -> None:
        self.intakes: list[Taking] = []
        """The consumers of its messages."""
        self.is_paused = False
        self.scheduler: Scheduled | None = None
        self.limits: Limits | None = None
        self.measures: dict[str, Callable[[], float]] = {}
        """Further gauges, by name."""
        self.redelivered = 0
        self.interrupted = 0
        self.repeated = 0
        self.cancelled = 0
        self.expired = 0
        self.dead = 0
        self.waiting = 0
        self.not_done: defaultdict[str, int] = defaultdict(int)
        """What became of those that were not done."""
        self.to: defaultdict[str, int] = defaultdict(int)
        """Results, by the routing key that they went with."""
        self.handling = Histogram()
        """Seconds in the handler."""
        self.passing = Histogram()
        """Seconds from the delivery to its settlement."""

    @property
    def received(self) -> int:
        """Deliveries."""
        return sum(intake.taken for intake in self.intakes)

    @property
    def in_hand(self) -> int:
        """Deliveries that are not settled yet."""
        return self.received - len(self.passing)

    @property
    def counters(self) -> dict[str, int]:
        """Return all that were counted, by name."""
        names = ("received", "redelivered", "interrupted", "repeated", "cancelled", "expired", "dead", "waiting")
        counts = {name: getattr(self, name) for name in names}
        counts["done"] = len(self.handling) - sum(self.not_done.values())
        counts |= self.not_done | {f"to.{readable(key)}": number for key, number in self.to.items()}
        return {name: number for name, number in counts.items() if number}

    @property
    def gauges(self) -> dict[str, float]:
        """Return what is so now, by name."""
        found: dict[str, float] = {name: measure() for name, measure in self.measures.items()}
        found["in_hand"] = self.in_hand
        found["paused"] = int(self.is_paused)
        return found


class Counting:
    """Counts of a worker, by stage."""

    def __init__(self, spec: AppSpec, stages: Iterable[Stage]) -> None:
        self.id = secrets.token_hex(4)
        self._app = spec.name
        self._started = time.time()
        self._sampler = Sampler()
        self._spec = spec
        self._declares = _declares(spec)
        self._document: dict[str, Any] | None = None
        """The app's AsyncAPI document; made for the first report."""
        self._reported = 0
        """The number of times that reports were made."""
        self.stages: dict[str, StageCounts] = {}
        self._wirings: dict[str, Wiring] = {}
        self._codecs: dict[str, Codec] = {}
        self._schemas: dict[str, dict[str, Any] | None] = {}
        """Of the stages' messages; made for the first report."""
        for stage in stages:
            self._codecs[stage.name] = stage.value_codec
            self.stages[stage.name] = StageCounts()
            own = readable(spec.exchange)
            self._wirings[stage.name] = Wiring(
                exchange=readable(stage.exchange) if stage.exchange else own,
                key=readable(stage.key),
                queue=readable(stage.queue),
                to=own,
                other={readable(key): readable(exchange) for key, exchange in spec.exchanges.items()},
            )

    def redelivered(self, job: Job) -> None:
        """Count a redelivered message."""
        self.stages[job.stage.name].redelivered += 1

    def handled(self, job: Job, result: Result, outgoing: list[Publication], led: Led | None) -> None:
        """Count what a handler did, and where its results go. led: what it yielded before."""
        counts = self.stages[job.stage.name]
        counts.handling.observe(job.seconds)
        for message in outgoing:
            if message.role is RESULT:
                counts.to[message.routing_key] += 1
            elif message.role in (Role.REPLY, Role.ERROR_REPLY, Role.NOTICE, Role.NOTE):
                continue  # counted as done, or dead
            elif message.role is Role.AGAIN:
                counts.waiting += 1
            else:
                counts.dead += 1
        if result.kind != "done":
            counts.not_done[result.kind] += 1
        elif crc32(job.trail.correlation) & self._sampler.mask:
            return
        self._sampler.record(job, result, outgoing, led)

    def cancelled(self, job: Job) -> None:
        """Count a message that was dropped because its job was cancelled."""
        self.stages[job.stage.name].cancelled += 1
        self._sampler.record(job, Result("cancelled"), [])

    def expired(self, job: Job) -> None:
        """Count a message that was dropped because it had expired."""
        self.stages[job.stage.name].expired += 1

    def interrupted(self, job: Job) -> None:
        """Count a message that was being handled when the worker had to stop."""
        self.stages[job.stage.name].interrupted += 1

    def yielded(self, job: Job, outgoing: list[Publication], led: Led) -> None:
        """Count what a handler yielded, and add it to what it yielded before. job: the first one of a batch."""
        to = self.stages[job.stage.name].to
        for message in outgoing:
            if message.role is not NOTE:
                to[message.routing_key] += 1
        self._sampler.name(job, outgoing, led)

    def dead(self, stage: Stage, number: int) -> None:
        """Count dead letters made in place of what can't be published."""
        self.stages[stage.name].dead += number

    def lost(self, job: Job) -> None:
        """Count a message that was handled but could not be acknowledged, so that it is delivered again."""
        self.stages[job.stage.name].repeated += 1

    def settled(self, job: Job, now: float) -> None:
        """Count a settled delivery. now: on the monotonic clock."""
        self.stages[job.stage.name].passing.observe(now - job.received)

    def reports(self, kind: ReportKind) -> list[Report]:
        """Make a report for each stage."""
        if not self._reported:
            self._schemas = {name: codec.schema() for name, codec in self._codecs.items()}
            self._document = _document(self._spec)
        tells_types = self._reported % _TYPES_EVERY == 0
        tells_app = self._reported % DECLARES_EACH == 0  # in the report of the first stage
        self._reported += 1
        reports = []
        share = self._sampler.share
        self._sampler.widen()
        for name, counts in self.stages.items():
            passages, missed = self._sampler.take(name)
            reports.append(
                Report(
                    kind=kind,
                    app=self._app,
                    role=name,
                    id=self.id,
                    host=node_name(),
                    pid=os.getpid(),
                    at=round(time.time(), 3),
                    started=round(self._started, 3),
                    counters=counts.counters,
                    gauges=counts.gauges,
                    histograms={"handling": counts.handling.trimmed(), "passing": counts.passing.trimmed()},
                    passages=passages,
                    share=share,
                    missed=missed,
                    wiring=self._wirings[name],
                    declares=self._declares if tells_app else None,
                    document=self._document if tells_app else None,
                    takes=self._schemas[name] if tells_types else None,
                    schedule=None if counts.scheduler is None else counts.scheduler.state,
                    limits=counts.limits,
                )
            )
            tells_app = False
        return reports


def _document(spec: AppSpec) -> dict[str, Any] | None:
    """Return the AsyncAPI document of an app; None if it is too large for a report."""
    from rabbitry.flow.schemas import document  # a worker starts without it

    found = document(spec)
    size = len(msgspec.json.encode(found))
    if size > LARGEST_DOCUMENT:
        _logger.info(
            "the AsyncAPI document of app %r has %d bytes: too many to show it on the dashboard", spec.name, size
        )
        return None
    return found


def _declares(spec: AppSpec) -> Declares:
    """Return what an app declares, for comparison with what is on the broker."""
    topology = derive(spec)
    return Declares(
        [DeclaredExchange(one.name, one.type, one.durable, one.auto_delete) for one in topology.exchanges],
        [DeclaredQueue(one.name, one.durable, one.auto_delete, dict(one.arguments)) for one in topology.queues],
        [DeclaredBinding(one.exchange, one.queue, one.key) for one in topology.bindings],
    )
