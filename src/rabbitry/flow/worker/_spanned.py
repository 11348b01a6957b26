"""OpenTelemetry's spans of what a worker does around its handlers: receiving, publishing results, and settling.

Called only if the program has imported OpenTelemetry (`_tracing.MODULE`). What the program's own samplers and span
processors raise is logged: it must not keep a message from being settled. One that waits, such as a SimpleSpanProcessor
with an exporter to a collector, holds up heartbeats and settlement of the worker, which is logged once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rabbitry.flow.message import Role

if TYPE_CHECKING:
    import asyncio

    from rabbitry.flow._spans import Publishing
    from rabbitry.flow.message import Publication
    from rabbitry.flow.worker._job import Job, Work

_logger = logging.getLogger(__name__)
_UNSPANNED: Final = (Role.FIRST, Role.NOTICE, Role.NOTE)
_SLOW: Final = 0.25
"""Seconds for a span in the I/O thread, beyond which the program is told to export its spans elsewhere."""
_told_slow = threading.Event()


@contextmanager
def _guarded() -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    except Exception:
        _logger.exception("a span is lost: a sampler or span processor of this program failed; messages are settled")
    took = time.perf_counter() - began
    if took > _SLOW and not _told_slow.is_set():
        _told_slow.set()
        _logger.warning(
            "a sampler or span processor of this program took %.1f s for a span, in which the worker sent no heartbeat "
            "and settled no message: use OpenTelemetry's BatchSpanProcessor, and no SimpleSpanProcessor",
            took,
        )


def received(work: Work) -> None:
    """Record for each message how long it waited in this worker until its handler began; that has ended just now."""
    from rabbitry.flow import _spans

    now, clock = time.time_ns(), time.monotonic()
    with _guarded():
        for job in work.jobs:
            job.handled_at = now
            began = now - int(work.seconds * 1e9)
            came = min(now - int((clock - job.received) * 1e9), began)
            _spans.received(job.message(), job.source.queue, came, began)


def settled(job: Job, how: str, error: Exception | None = None) -> None:
    """Record the settlement of a message, from the end of its handler on: its results were confirmed within it."""
    from rabbitry.flow import _spans

    with _guarded():
        _spans.settled(job.message(), job.source.queue, how, job.handled_at, error)


def publishing(message: Publication) -> Publishing | None:
    """Begin the span of a result, a reply, a retry or a dead letter; None for other messages."""
    if message.role in _UNSPANNED:
        return None
    from rabbitry.flow import _spans

    span: Publishing | None = None
    with _guarded():
        span = _spans.publishing_result(message)
    return span


def end(span: Publishing, future: asyncio.Future[None]) -> None:
    """End the span of a message whose outcome is known."""
    ended(span, None if future.cancelled() else future.exception())


def ended(span: Publishing, error: BaseException | None) -> None:
    """End the span of a message, with the error if it could not be sent."""
    with _guarded():
        span.end(error)
