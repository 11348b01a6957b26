"""Decode, call, encode: what happens to a message's body, in whatever thread or process the handler runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rabbitry._errors import described, text_of, traced
from rabbitry.exceptions import Reject, Retry, Undecodable
from rabbitry.flow.codec import encode, with_unknown
from rabbitry.flow.job import Product, Result
from rabbitry.flow.message import Message
from rabbitry.flow.stage import Stage


def succeeded(stage: Stage, body: bytes, returned: object) -> Result:
    """Encode what a handler returned. Raises TypeError for what can't be, and what a computed `then` raises."""
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
    return Result("done", tuple(products))


def failed(error: BaseException) -> Result:
    """Say what an error of a handler, or of its body, leads to."""
    match error:
        case Reject():
            return Result("rejected", reason=error.reason, error=text_of(error), trace=traced(error))
        case Undecodable():
            return Result("rejected", reason="undecodable", error=text_of(error), trace="")
        case Retry():
            return Result("retry", reason="failed", error=text_of(error), trace=traced(error), after=error.after)
        case _:
            return Result("failed", reason="failed", error=described(error), trace=traced(error))


async def call_async(stage: Stage, body: bytes, message: Callable[[], Message]) -> Result:
    """Run an `async def` handler; errors are results, but what ends the task or the program."""
    try:
        value = stage.codec.decode(body)
    except Undecodable as error:
        return failed(error)
    try:
        return succeeded(stage, body, await stage.handler(**stage.arguments(value, message)))
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's code raises is the message's fate
        return failed(error)


def call(stage: Stage, body: bytes, message: Callable[[], Message]) -> Result:
    """Run a `def` handler; errors are results. SystemExit and the like, raised by a handler, are too."""
    try:
        value = stage.codec.decode(body)
    except Undecodable as error:
        return failed(error)
    try:
        return succeeded(stage, body, stage.handler(**stage.arguments(value, message)))
    except BaseException as error:  # noqa: BLE001 - the thread belongs to the worker, not to the handler
        return failed(error)
