"""The figures of a worker for Prometheus, and those that its handlers count themselves with prometheus_client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from rabbitry._installing import missing
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from prometheus_client import Metric

    from rabbitry.flow.worker._counting import StageCounts
    from rabbitry.telemetry import Histogram

_LABELS: Final = ("app", "stage")
_COUNTERS: Final = {
    "received": ("deliveries", "Messages delivered to this worker"),
    "done": ("done", "Messages whose handler returned"),
    "waiting": ("retries", "Messages published again for another attempt"),
    "dead": ("dead_letters", "Dead letters"),
    "redelivered": ("redelivered", "Deliveries that the broker marked as redelivered"),
    "interrupted": ("interrupted", "Messages returned while they were handled, because the worker stopped"),
    "repeated": ("repeated", "Messages that were handled but could not be acknowledged, and come again"),
    "cancelled": ("cancelled", "Messages dropped because their job was cancelled"),
    "expired": ("expired", "Messages that expired before a worker took them"),
}
"""Names and texts of the counters of `StageCounts`."""
_BUCKETS: Final = range(7, 31)
"""The buckets of a `Histogram` that are shown: 128 µs to 18 minutes."""

Stages = Callable[[], dict[str, tuple["StageCounts", bool]]]
"""Returns the counts of each stage, and whether it is being consumed."""


class Figures:
    """A collector of prometheus_client. app: the app's name."""

    def __init__(self, app: str, stages: Stages) -> None:
        self._app = app
        self._stages = stages

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of all stages."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        stages = [((self._app, name), *each) for name, each in self._stages().items()]
        counted = [(labels, counts.counters) for labels, counts, _ in stages]
        for counter, (name, text) in _COUNTERS.items():
            family = CounterMetricFamily(f"rabbitry_stage_{name}", text, labels=_LABELS)
            for labels, numbers in counted:
                family.add_metric(labels, numbers.get(counter, 0))
            yield family
        failures = CounterMetricFamily(
            "rabbitry_stage_not_done", "Messages whose handler did not return a result", labels=(*_LABELS, "outcome")
        )
        results = CounterMetricFamily("rabbitry_stage_results", "Results published", labels=_LABELS)
        in_hand = GaugeMetricFamily("rabbitry_stage_in_hand", "Deliveries not settled yet", labels=_LABELS)
        paused = GaugeMetricFamily("rabbitry_stage_paused", "1 while the stage is paused", labels=_LABELS)
        consuming = GaugeMetricFamily("rabbitry_stage_consuming", "1 while the queue is consumed", labels=_LABELS)
        handling = HistogramMetricFamily(
            "rabbitry_stage_handling_seconds", "Time in the handler, for each message or batch", labels=_LABELS
        )
        passing = HistogramMetricFamily(
            "rabbitry_stage_passing_seconds", "Time from the delivery of a message to its settlement", labels=_LABELS
        )
        for labels, counts, is_consuming in stages:
            for outcome, number in counts.not_done.items():
                failures.add_metric((*labels, outcome), number)
            results.add_metric(labels, sum(counts.to.values()))
            in_hand.add_metric(labels, counts.in_hand)
            paused.add_metric(labels, int(counts.is_paused))
            consuming.add_metric(labels, int(is_consuming))
            handling.add_metric(labels, *_cumulative(counts.handling))
            passing.add_metric(labels, *_cumulative(counts.passing))
        yield from (failures, results, in_hand, paused, consuming, handling, passing)


class Exposition:
    """All metrics of a process: those of prometheus_client's own registry, and the worker's."""

    def __init__(self, app: str, stages: Stages) -> None:
        """Create an exposition. app: the app's name."""
        self._figures = Figures(app, stages)
        self._others: asyncio.Future[bytes] | None = None
        """The text of the other metrics, while it is made."""

    async def page(self) -> tuple[str, bytes]:
        """Return the media type and the text of all metrics.

        The program's own collectors run in a thread, so that a slow one costs the connections no heartbeat. One call
        of them runs at a time: while they hang, all requests wait for the same one.

        Raises:
            UsageError: prometheus_client is not installed.
            Exception: A collector of the program raised it.
        """
        try:
            from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
        except ModuleNotFoundError as error:
            raise UsageError(missing("/metrics", error, "prometheus")) from error
        if self._others is None or self._others.done():
            self._others = asyncio.ensure_future(asyncio.to_thread(generate_latest, REGISTRY))
        others = await asyncio.shield(self._others)
        own = CollectorRegistry()
        own.register(self._figures)
        return CONTENT_TYPE_LATEST, others + generate_latest(own)


def _cumulative(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets as Prometheus counts them, and the sum of all durations in seconds."""
    totals = list(accumulate(histogram.counts))
    return [*((str(2.0**number / 1e6), totals[number]) for number in _BUCKETS), ("+Inf", totals[-1])], histogram.seconds
