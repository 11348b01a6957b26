"""OpenTelemetry's metrics of publishing and of handling, named and described by its conventions for messaging.

Used where spans are (`_spans`). Without a provider of metrics nothing is counted. The conventions ask for few values of
each attribute, therefore destinations are named without routing keys: by the exchange, or by the stage's queue.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rabbitry._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram

_DEFAULT_EXCHANGE: Final = "amq.default"
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the bounds of buckets that the conventions advise."""


class _Instruments(NamedTuple):
    sent: Counter
    consumed: Counter
    operation: Histogram
    process: Histogram


@lru_cache
def _instruments() -> _Instruments:
    from opentelemetry import metrics

    meter = metrics.get_meter("rabbitry", __version__)
    return _Instruments(
        meter.create_counter("messaging.client.sent.messages", "{message}", "Messages published"),
        meter.create_counter("messaging.client.consumed.messages", "{message}", "Messages handed to handlers"),
        meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Time until a published message is confirmed, or the reply of a call has come",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        ),
        meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Time in a handler, for each message or batch",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        ),
    )


def published(exchange: str | None, seconds: float, error: str) -> None:
    """Count a message that was published. exchange: None if it failed before that was known. error: its type."""
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
    }
    if exchange is not None:
        attributes["messaging.destination.name"] = exchange or _DEFAULT_EXCHANGE
    if error:
        attributes["error.type"] = error
    found = _instruments()
    found.sent.add(1, attributes)
    found.operation.record(seconds, attributes)


def processed(queue: str, messages: int, seconds: float, error: str) -> None:
    """Count a call of a handler. messages: how many it had. error: its type, empty if there was none."""
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": queue,
    }
    if error:
        attributes["error.type"] = error
    found = _instruments()
    found.consumed.add(messages, attributes)
    found.process.record(seconds, attributes)
