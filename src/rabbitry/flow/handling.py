"""Decode, call, encode: what happens to a message's body, in whatever thread or process the handler runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Final

from rabbitry._errors import described, sendable, text_of, traced
from rabbitry.exceptions import Reject, Retry, Undecodable
from rabbitry.flow import tracing
from rabbitry.flow.codec import encode, with_unknown
from rabbitry.flow.hot import trace_fields
from rabbitry.flow.job import Kind, Product, Result
from rabbitry.flow.message import Message
from rabbitry.flow.stage import Stage

_UNBEGUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""Types that a wrongly decorated handler returns without having done its work: its message must not be acked."""


def succeeded(stage: Stage, body: bytes, returned: object) -> Result:
    """Encode what a handler returned. Raises what can't be encoded or published, and what a computed `then` raises."""
    if isinstance(returned, _UNBEGUN):
        if isinstance(returned, CoroutineType):
            returned.close()
        raise TypeError(
            f"the handler returned a {type(returned).__name__}, of which nothing has run: decorate an `async def` "
            "with what stays one, and return a list for several results"
        )
    if returned is None or stage.then is None:
        return Result("done")
    values = returned if isinstance(returned, list) else [returned]
    unknown = stage.codec.unknown(body) if stage.keep_unknown else {}
    products = []
    for value in values:
        key = stage.key_for(value)
        if key is not None:
            encoded = encode(value)
            products.append(Product(key, *(with_unknown(encoded, unknown) if unknown else encoded)))
    trace = tracing.current()
    return Result("done", tuple(products), context=trace_fields(trace) if trace else None)


def failed(error: BaseException) -> Result:
    """Return what an error of a handler, or of its body, leads to; it never raises."""
    kind: Kind
    kind, reason, after = "failed", "failed", None
    trace = traced(error)
    match error:
        case Undecodable():
            kind, reason, trace = "rejected", "undecodable", ""
        # A subclass may have forgotten to call `super().__init__()`, which sets what is read here.
        case Reject():
            kind, reason = "rejected", vars(error).get("reason", "rejected")
        case Retry():
            kind, after = "retry", vars(error).get("after")
    text = text_of(error) if kind != "failed" else described(error)
    return Result(kind, reason=sendable(str(reason)), error=text, trace=trace, after=after)


async def call_async(stage: Stage, body: bytes, message: Callable[[], Message]) -> Result:
    """Run an `async def` handler; errors are results. Raises CancelledError, which may not be the handler's."""
    try:
        value = stage.codec.decode(body)
        if tracing.is_used():
            tracing.enter(message().headers)
        return succeeded(stage, body, await stage.handler(**stage.arguments(value, message)))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not _is_loop_running():
            raise  # the loop is closed, and so is this coroutine: nobody takes a result
        return failed(error)


def call(stage: Stage, body: bytes, message: Callable[[], Message]) -> Result:
    """Run a `def` handler; errors are results. SystemExit and the like, raised by a handler, are too."""
    try:
        value = stage.codec.decode(body)
        if tracing.is_used():
            tracing.enter(message().headers)
        return succeeded(stage, body, stage.handler(**stage.arguments(value, message)))
    except BaseException as error:  # noqa: BLE001 - the thread belongs to the worker, not to the handler
        return failed(error)


class InContext:
    """Awaits a coroutine in a context of its own, without a task of its own, which would cost each message more.

    Each step of the coroutine runs within `context`; what it waits for is handed on to the task that awaits this.
    """

    def __init__(self, context: Context, coroutine: Coroutine[object, object, Result]) -> None:
        self._context = context
        self._coroutine = coroutine

    def __await__(self) -> Generator[object, object, Result]:
        run, coroutine = self._context.run, self._coroutine
        value: object = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = run(coroutine.send, value) if error is None else run(coroutine.throw, error)
            except StopIteration as end:
                result: Result = end.value
                return result
            try:
                value, error = (yield waits_for), None
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as thrown:  # noqa: BLE001 - handed on to the coroutine
                error = thrown


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
