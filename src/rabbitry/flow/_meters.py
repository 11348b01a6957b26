"""OpenTelemetry's metrics of publishing, receiving, handling and settling, named by its conventions for messaging.

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
        meter.create_counter("messaging.client.consumed.messages", "{message}", "Messages received for handlers"),
        meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Time of an operation: publish until the confirm or the reply of a call, receive until the handler begins, "
            "ack or nack from the end of the handler",
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
    attributes = _attributes("publish", "send", None if exchange is None else exchange or _DEFAULT_EXCHANGE, error)
    found = _instruments()
    found.sent.add(1, attributes)
    found.operation.record(seconds, attributes)


def received(queue: str, seconds: float) -> None:
    """Count a message that came to a worker. seconds: how long it waited there for its handler."""
    attributes = _attributes("receive", "receive", queue)
    found = _instruments()
    # The conventions have a delivery counted once: here, and not where it is handled.
    found.consumed.add(1, attributes)
    found.operation.record(seconds, attributes)


def settled(queue: str, how: str, seconds: float, error: str) -> None:
    """Record the settlement of a message. how: ack or nack. error: its type, empty if there was none."""
    _instruments().operation.record(seconds, _attributes(how, "settle", queue, error))


def processed(queue: str, seconds: float, error: str) -> None:
    """Record a call of a handler. error: its type, empty if there was none."""
    _instruments().process.record(seconds, _attributes("process", "process", queue, error))


def _attributes(name: str, kind: str, destination: str | None, error: str = "") -> dict[str, str]:
    """Return the attributes of an operation. destination: an exchange or a queue, None if it is not known."""
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }
    if destination is not None:
        attributes["messaging.destination.name"] = destination
    if error:
        attributes["error.type"] = error
    return attributes
