"""Decode, call, encode: what happens to a message's body, in whatever thread or process the handler runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing, closing
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Final, TypeAlias

import msgspec

from rabbitry._errors import described, sendable, text_of, traced
from rabbitry.exceptions import Undecodable
from rabbitry.flow import _tracing
from rabbitry.flow._trail import trace_fields
from rabbitry.flow.codec import encode, with_unknown
from rabbitry.flow.exceptions import Reject, Retry
from rabbitry.flow.message import Message
from rabbitry.flow.outgoing import Outgoing, extra_of
from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._executors.opened import OpenedBatch
from rabbitry.flow.worker._job import ABANDONED, DONE, Product, Result, ResultKind

Body: TypeAlias = bytes | list[bytes]
"""A message's body, or those of a batch."""
Metadata: TypeAlias = Callable[[], Message | list[Message]]
"""Reads the metadata of the message, or of all of a batch, if the handler asks for it."""
Put: TypeAlias = Callable[[Result | None], bool]
"""Publishes what a handler yielded (None: it goes nowhere), and waits while too much is unconfirmed.

Returns False if the handler has to be closed."""
PutAsync: TypeAlias = Callable[[Result | None], Awaitable[bool]]

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
    if returned is None:
        return DONE
    unknown = _unknown(stage, body) if stage.keep_unknown else {}
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
    return Product(key, *(with_unknown(encoded, unknown) if unknown else encoded), extra)


def _unknown(stage: Stage, body: Body) -> dict[str, msgspec.Raw]:
    """Return the input's fields that are copied to results; none for batches."""
    return stage.codec.unknown(body) if stage.keep_unknown and isinstance(body, bytes) else {}


def _context() -> bytes | None:
    trace = _tracing.current()
    return trace_fields(trace) if trace else None


def failed(error: BaseException) -> Result:
    """Return the result for an error of a handler or of its input. Never raises."""
    kind: ResultKind
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


def _arguments(stage: Stage, body: Body, message: Metadata) -> tuple[dict[str, object], OpenedBatch | None]:
    """Decode, and return the handler's arguments. Raises Undecodable for a single message."""
    if isinstance(body, list):
        opened = OpenedBatch(stage, body, message, failed)
        return opened.arguments, opened
    return _single_arguments(stage, body, message), None


def _single_arguments(stage: Stage, body: bytes, message: Metadata) -> dict[str, object]:
    value = stage.codec.decode(body)
    if _tracing.is_used():
        found = message()
        assert isinstance(found, Message)  # noqa: S101 # a single body's; narrows the type
        _tracing.enter(found.headers)
    return stage.arguments(value, message)


async def call_async(stage: Stage, body: Body, message: Metadata, put: PutAsync) -> Result:
    """Run an `async def` handler; errors become results. Raises CancelledError, which may not be the handler's."""
    try:
        if not stage.yields and isinstance(body, bytes):  # each call more costs every message (`make bench-flow`)
            returned = await stage.handler(**_single_arguments(stage, body, message))
            return succeeded(stage, body, returned)
        arguments, opened = _arguments(stage, body, message)
        if opened is None:
            return await _run_async(stage, body, arguments, None, put)
        if not opened.places:
            return opened.settled(DONE)
        return opened.settled(await _run_async(stage, body, arguments, opened.places, put))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not _is_loop_running():
            raise  # the loop is closed, and so is this coroutine: nobody takes a result
        return failed(error)


async def _run_async(
    stage: Stage, body: Body, arguments: dict[str, object], places: list[int] | None, put: PutAsync
) -> Result:
    returned = stage.handler(**arguments)
    if not stage.yields or not isinstance(returned, AsyncGeneratorType):
        return succeeded(stage, body, await returned, places)
    unknown = _unknown(stage, body)
    async with aclosing(returned) as values:
        async for value in values:
            is_open = await put(_yielded(stage, value, unknown, places))
            del value  # it may be confirmed and gone before there is a next one
            if not is_open:
                return ABANDONED
    return DONE


def call(stage: Stage, body: Body, message: Metadata, put: Put) -> Result:
    """Run a `def` handler; its errors become results, also SystemExit and other BaseExceptions."""
    try:
        if not stage.yields and isinstance(body, bytes):
            return succeeded(stage, body, stage.handler(**_single_arguments(stage, body, message)))
        arguments, opened = _arguments(stage, body, message)
        if opened is None:
            return _run(stage, body, arguments, None, put)
        if not opened.places:
            return opened.settled(DONE)
        return opened.settled(_run(stage, body, arguments, opened.places, put))
    except BaseException as error:  # noqa: BLE001 - the thread belongs to the worker, not to the handler
        return failed(error)


def _run(stage: Stage, body: Body, arguments: dict[str, object], places: list[int] | None, put: Put) -> Result:
    returned = stage.handler(**arguments)
    if not stage.yields or not isinstance(returned, GeneratorType):
        return succeeded(stage, body, returned, places)
    unknown = _unknown(stage, body)
    with closing(returned) as values:
        for value in values:
            is_open = put(_yielded(stage, value, unknown, places))
            del value  # it may be confirmed and gone before there is a next one
            if not is_open:
                return ABANDONED
    return DONE


def _yielded(stage: Stage, value: object, unknown: dict[str, msgspec.Raw], places: list[int] | None) -> Result | None:
    """Encode a value that a handler yielded; None if it goes nowhere."""
    product = _product(stage, value, unknown, places)
    return None if product is None else Result("yielded", (product,), context=_context())


class InContext:
    """Awaits a coroutine in its own context without creating a task, which would cost every message time.

    Each step of the coroutine runs within `context`; the futures that it waits for go to the task that awaits this.
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
