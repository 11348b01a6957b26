"""OpenTelemetry's spans and metrics of publishing, receiving, handling and settling, by its conventions for messaging.

Used only if the program has imported OpenTelemetry (`_tracing.is_used`). Without its SDK, spans are not recorded, and
the trace context is passed on as it came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rabbitry._version import __version__
from rabbitry.amqp.protocol.properties import EncodedProperties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.flow import _meters, _tracing
from rabbitry.flow.message import ATTEMPT, REASON, Message, Role, count_in, text_header

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from rabbitry.flow.message import Publication

_PUBLISHES: Final[dict[str, AttributeValue]] = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
}
_OF_INPUT: Final = (Role.AGAIN, Role.DEAD, Role.BARE, Role.DEAD_RESULT)
"""Inputs that come again, and dead letters."""
_MOST_LINKS: Final = 128
"""Links of the span of a batch; the SDK keeps no more unless it is told to."""


@lru_cache
def _tracer() -> Tracer:
    from opentelemetry import trace

    return trace.get_tracer("rabbitry", __version__)


class Publishing:
    """The span of one message that is published. It ends with `end`."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._began = time.perf_counter()
        self._exchange: str | None = None

    def describe(self, message: Publication, identity: str) -> None:
        """Note what is published."""
        # The queues of retries and dead letters are few, and the default exchange alone would not tell them apart.
        self._exchange = message.exchange or (message.routing_key if message.role in _OF_INPUT else "")
        if self._span.is_recording():
            where = f"{message.exchange}:{message.routing_key}" if message.exchange else message.routing_key
            self._span.set_attributes(
                {
                    "messaging.destination.name": where,
                    "messaging.rabbitmq.destination.routing_key": message.routing_key,
                    "messaging.message.id": identity,
                    "messaging.message.body.size": len(message.body),
                }
            )

    def end(self, error: BaseException | None) -> None:
        """End the span, when the broker has confirmed the message, or with an error."""
        kind = "" if error is None else type(error).__name__
        if error is not None:
            _fail(self._span, kind, str(error))
        _meters.published(self._exchange, time.perf_counter() - self._began, kind)
        self._span.end()


@contextmanager
def publishing(app: str, key: str) -> Iterator[Publishing]:
    """Begin the span of a message, which is the current one within the block. An error in the block ends it."""
    from opentelemetry.trace import SpanKind

    attributes = _PUBLISHES | {"messaging.client.id": app}
    with _tracer().start_as_current_span(
        f"publish {key}", kind=SpanKind.PRODUCER, attributes=attributes, end_on_exit=False,
        record_exception=False, set_status_on_exception=False,
    ) as span:  # fmt: skip
        own = Publishing(span)
        try:
            yield own
        except BaseException as error:
            own.end(error)
            raise


def publishing_result(message: Publication) -> Publishing:
    """Begin the span of what a worker publishes: a child of the span that the message names.

    For what a handler returned or yielded that is the handler's span; for an input that comes again, or became a dead
    letter, the one in which the input was published.
    """
    from opentelemetry.trace import SpanKind

    properties = message.properties
    found = properties.decoded() if isinstance(properties, EncodedProperties) else properties
    headers = found.headers or {}
    name = (message.exchange or message.routing_key) if message.role in _OF_INPUT else message.routing_key
    span = _tracer().start_span(
        f"publish {name}", context=_context_in(headers), kind=SpanKind.PRODUCER, attributes=_PUBLISHES
    )
    if span.is_recording() and message.role in _OF_INPUT:
        span.set_attribute("rabbitry.attempt", max(1, count_in(headers, ATTEMPT)))
        if (reason := text_header(headers, REASON)) is not None:
            span.set_attribute("rabbitry.reason", reason)
    own = Publishing(span)
    own.describe(message, found.message_id or "")
    return own


def received(message: Message, queue: str, came: int, began: int) -> None:
    """Record that a message came to a worker and waited there for its handler. Both times in ns since 1970."""
    span = _record(message, queue, "receive", "receive", came)
    _meters.received(queue, (began - came) / 1e9)
    span.end(began)


def settled(message: Message, queue: str, how: str, since: int, error: Exception | None) -> None:
    """Record the settlement of a message. since: the end of its handler, in ns since 1970; 0 if it had none."""
    now = time.time_ns()
    since = since or now
    span = _record(message, queue, how, "settle", since)
    kind = "" if error is None else type(error).__name__
    if error is not None:
        _fail(span, kind, str(error))
    _meters.settled(queue, how, max(0, now - since) / 1e9, kind)
    span.end(now)


def _record(message: Message, queue: str, name: str, kind: str, since: int) -> Span:
    """Begin the span of an operation of the worker itself: a child of the span that the message names."""
    from opentelemetry.trace import SpanKind

    span = _tracer().start_span(
        f"{name} {queue}", context=_context_of(message), kind=SpanKind.CLIENT, start_time=since
    )  # fmt: skip
    if span.is_recording():
        span.set_attributes(
            _attributes(queue, message, None) | {"messaging.operation.name": name, "messaging.operation.type": kind}
        )
    return span


@contextmanager
def handling(queue: str, found: Message | list[Message], size: int) -> Iterator[Callable[[str, str, str], None]]:
    """Begin the span of a call of a handler, which is the current one within the block.

    The span of a message is a child of the one that the message names. That of a batch begins a trace, with a link to
    each of them.

    Args:
        queue: The stage's.
        found: The metadata of the message, or of all of a batch.
        size: Bytes of the bodies.

    Yields:
        A function that notes the result: its kind, its reason and its error.
    """
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span

    contexts = [_context_of(message) for message in found] if isinstance(found, list) else []
    causes = [get_current_span(context).get_span_context() for context in contexts]
    links = [Link(cause) for cause in causes if cause.is_valid]
    with _tracer().start_as_current_span(
        f"process {queue}", context=Context() if isinstance(found, list) else _context_of(found),
        kind=SpanKind.CONSUMER, links=links[:_MOST_LINKS], record_exception=False, set_status_on_exception=False,
    ) as span:  # fmt: skip
        if span.is_recording():
            span.set_attributes(_attributes(queue, found, size))

        began, failure = time.perf_counter(), ""

        def note(kind: str, reason: str, error: str) -> None:
            nonlocal failure
            failure = {"failed": error.partition(":")[0], "rejected": reason}.get(kind, "")
            if span.is_recording() and kind != "done":
                span.set_attribute("rabbitry.outcome", kind)
                if failure:
                    _fail(span, failure, error)

        yield note
        _meters.processed(queue, time.perf_counter() - began, failure)


def _context_of(message: Message) -> Context:
    """Return the context whose span is the one that a message names; an empty one if it names none."""
    return _context_in(message.headers)


def _context_in(headers: Table) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(_tracing.carried(headers), Context())


def _attributes(queue: str, found: Message | list[Message], size: int | None) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    if isinstance(found, list):
        return attributes | {"messaging.destination.name": queue, "messaging.batch.message_count": len(found)}
    origin = f"{found.exchange}:{found.routing_key}:{queue}" if found.exchange else queue
    if size is not None:
        attributes["messaging.message.body.size"] = size
    return attributes | {
        "messaging.destination.name": origin,
        "messaging.rabbitmq.destination.routing_key": found.routing_key,
        "messaging.message.id": found.id,
        "messaging.message.conversation_id": found.correlation_id,
        "rabbitry.attempt": found.attempt,
    }


def _fail(span: Span, kind: str, text: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    if span.is_recording():
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, text))
