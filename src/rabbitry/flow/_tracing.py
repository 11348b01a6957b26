"""Trace context (W3C Trace Context): that of the current OpenTelemetry span, or that of a message, passed on unchanged.

OpenTelemetry is used if the program has imported it. Rabbitry never imports it; without it there is no current span.
"""

from __future__ import annotations

import sys
from typing import Final

from rabbitry.amqp.protocol.tables import Table

MODULE: Final = "opentelemetry.trace"
"""The module that a program has imported if it uses OpenTelemetry."""
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
LONGEST: Final = 512
"""Characters of a header that is carried on (W3C Trace Context, section 3.3.1.5)."""


def is_used() -> bool:
    """Return whether this program has imported OpenTelemetry."""
    return MODULE in sys.modules


def current() -> dict[str, str]:
    """Return the headers that name the current span as the parent; empty if there is no span."""
    carrier: dict[str, str] = {}
    if is_used():
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier


def carried(headers: Table) -> dict[str, str]:
    """Return the trace context in a message's headers, for the messages that it leads to."""
    if TRACEPARENT not in headers:
        return {}
    return {
        name: value
        for name in (TRACEPARENT, TRACESTATE)
        if isinstance(value := headers.get(name), str) and len(value) <= LONGEST
    }
