"""What a worker counts of each of its stages, and reports as telemetry. Only the I/O thread touches it."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from warren.amqp.client import Properties
from warren.amqp.protocol.tables import decode_text
from warren.flow.job import Job, Result
from warren.flow.message import REASON, Outgoing, node_name
from warren.telemetry.histogram import Histogram
from warren.telemetry.report import MOST_PASSAGES, Kind, Passage, Report

if TYPE_CHECKING:
    from warren.flow.app import App
    from warren.flow.stage import Stage


class StageCounts:
    """Totals of one stage in one worker."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.in_hand = 0
        self.handling = Histogram()
        """Seconds in the handler."""
        self.passing = Histogram()
        """Seconds from the delivery to its settlement."""
        self.passages: list[Passage] = []


class Counting:
    """Counts of a worker, by stage."""

    def __init__(self, app: App, stages: Iterable[Stage]) -> None:
        self.id = secrets.token_hex(4)
        self._app = app
        self._started = time.time()
        self.stages = {stage.name: StageCounts() for stage in stages}

    def received(self, job: Job) -> None:
        """Count a delivery."""
        counts = self.stages[job.stage.name]
        counts.in_hand += 1
        counts.counters["received"] += 1
        if job.delivery.redelivered:
            counts.counters["redelivered"] += 1

    def handled(self, job: Job, result: Result, outgoing: list[Outgoing]) -> None:
        """Count what a handler did, and where that goes."""
        counts = self.stages[job.stage.name]
        counts.counters[result.kind] += 1
        counts.handling.observe(job.seconds)
        for message in outgoing:
            name = f"to.{message.routing_key}" if message.product else _other(message)
            counts.counters[name] += 1
        if len(counts.passages) < MOST_PASSAGES:
            identity = decode_text(job.trail.correlation)
            keys = [message.routing_key for message in outgoing]
            counts.passages.append(Passage(identity, result.kind, round(job.seconds, 6), keys))

    def dead(self, job: Job, number: int) -> None:
        """Count dead letters made of products."""
        self.stages[job.stage.name].counters["dead"] += number

    def lost(self, job: Job) -> None:
        """Count what was done and could not be acked, so that it comes again."""
        self.stages[job.stage.name].counters["repeated"] += 1

    def settled(self, job: Job) -> None:
        """Count a delivery that is out of hand."""
        counts = self.stages[job.stage.name]
        counts.in_hand -= 1
        counts.passing.observe(time.monotonic() - job.received)

    def reports(self, kind: Kind) -> list[Report]:
        """Make a report for each stage."""
        reports = []
        for name, counts in self.stages.items():
            passages, counts.passages = counts.passages, []
            reports.append(
                Report(
                    kind=kind,
                    app=self._app.name,
                    role=name,
                    id=self.id,
                    host=node_name(),
                    pid=os.getpid(),
                    at=round(time.time(), 3),
                    started=round(self._started, 3),
                    counters=dict(counts.counters),
                    gauges={"in_hand": counts.in_hand},
                    histograms={"handling": counts.handling.trimmed(), "passing": counts.passing.trimmed()},
                    passages=passages,
                )
            )
        return reports


def _other(message: Outgoing) -> str:
    """Name what is no product: a dead letter, or the same message to come again."""
    properties = message.properties
    is_dead = isinstance(properties, Properties) and REASON in (properties.headers or {})
    return "dead" if is_dead else "waiting"
