"""Results of handlers: returned values, encoded for publishing, and errors, mapped to the message's outcome."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Final, TypeAlias

import msgspec

from rabbitry._errors import described, sendable, text_of, traced
from rabbitry.exceptions import Undecodable
from rabbitry.flow import _tracing
from rabbitry.flow._parts import Joined
from rabbitry.flow._trail import trace_fields
from rabbitry.flow.codec import encode, with_unknown
from rabbitry.flow.exceptions import Reject, Retry
from rabbitry.flow.key import Key, check_value
from rabbitry.flow.outgoing import Outgoing, extra_of
from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._job import DONE, NOTED, SKIPPED, Product, Result, ResultKind

Body: TypeAlias = bytes | list[bytes]
"""A message's body, or those of a batch."""

_UNBEGUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""Types that a wrongly decorated handler returns without having done its work: its message must not be acked."""


def succeeded(stage: Stage, body: Body, returned: object, places: list[int] | None = None) -> Result:
    """Encode a handler's result. Raises if it can't be encoded or published, and whatever a function `then` raises.

    places: see `extra_of`.
    """
    if isinstance(returned, _UNBEGUN):
        if isinstance(returned, CoroutineType):
            returned.close()
        raise TypeError(
            f"the handler returned a {type(returned).__name__}, of which nothing has run: decorate an `async def`, or "
            "a function that yields, with what stays one (functools.wraps), or return a list for several results"
        )
    if isinstance(returned, Joined) and not returned.is_whole:
        return SKIPPED if returned.is_skipped else NOTED
    if stage.replies:
        answered = returned.answer if isinstance(returned, Joined) else returned
        answer = [_value_of(value) for value in answered] if isinstance(answered, list) else _value_of(answered)
        return _with_results(stage, body, returned, places)._replace(reply=encode(answer))
    return DONE if returned is None else _with_results(stage, body, returned, places)


def _value_of(value: object) -> object:
    return value.value if isinstance(value, Outgoing) else value


def _with_results(stage: Stage, body: Body, returned: object, places: list[int] | None) -> Result:
    if returned is None:
        return DONE
    unknown = unknown_fields(stage, body) if stage.keep_unknown else {}
    products = []
    for value in returned if isinstance(returned, list) else (returned,):
        product = _product(stage, value, unknown, places)
        if product is not None:
            products.append(product)
    return Result("done", tuple(products), "", "", "", None, _context()) if products else DONE


def _product(stage: Stage, value: object, unknown: dict[str, msgspec.Raw], places: list[int] | None) -> Product | None:
    """Encode a value that a handler returned or yielded; None if it goes nowhere. Raises as `succeeded` does."""
    if isinstance(value, Outgoing):
        extra, key = extra_of(value, places), value.key
        value = value.value
        if key is None:
            key = stage.key_for(value)
    else:
        extra, key = None, stage.key_for(value)
    if key is None:
        return None
    encoded = encode(value)
    if key.__class__ is not str:  # most keys have no type
        if isinstance(key, Key):
            check_value(key, value, encoded)
        key = str(key)
    return Product(key, *(with_unknown(encoded, unknown) if unknown else encoded), extra)


def unknown_fields(stage: Stage, body: Body) -> dict[str, msgspec.Raw]:
    """Return the input's fields that are copied to results; none for batches."""
    return stage.value_codec.unknown(body) if stage.keep_unknown and isinstance(body, bytes) else {}


def _context() -> bytes | None:
    trace = _tracing.current()
    return trace_fields(trace) if trace else None


def failed(error: BaseException) -> Result:
    """Return the result for an error of a handler or of its input. Never raises."""
    kind: ResultKind
    kind, reason, after, is_counted = "failed", "failed", None, True
    trace = traced(error)
    match error:
        case Undecodable():
            kind, reason, trace = "rejected", "undecodable", ""
        # A subclass may have forgotten to call `super().__init__()`, which sets what is read here.
        case Reject():
            kind, reason = "rejected", vars(error).get("reason", "rejected")
        case Retry():
            kind, after, is_counted = "retry", vars(error).get("after"), bool(vars(error).get("count", True))
    text = text_of(error) if kind != "failed" else described(error)
    return Result(kind, reason=sendable(str(reason)), error=text, trace=trace, after=after, is_counted=is_counted)


def yielded(stage: Stage, value: object, unknown: dict[str, msgspec.Raw], places: list[int] | None) -> Result | None:
    """Encode a value that a handler yielded; None if it goes nowhere."""
    product = _product(stage, value, unknown, places)
    return None if product is None else Result("yielded", (product,), context=_context())
