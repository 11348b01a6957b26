"""Decode and call: what happens to a message's body, in whatever thread or process the handler runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from rabbitry.flow import _tracing
from rabbitry.flow.message import Message
from rabbitry.flow.worker._executors.opened import OpenedBatch
from rabbitry.flow.worker._executors.results import Body, failed, succeeded
from rabbitry.flow.worker._job import DONE, Result

if TYPE_CHECKING:
    from rabbitry.flow.stage import Stage
    from rabbitry.flow.worker._executors.invoker import Input, Invoker, Put, PutAsync

Metadata: TypeAlias = Callable[[], Message | list[Message]]
"""Reads the metadata of the message, or of all of a batch, if the handler asks for it."""


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


async def call_async(invoker: Invoker, work: Input, put: PutAsync) -> Result:
    """Run an `async def` handler; errors become results. Raises CancelledError, which may not be the handler's."""
    stage, body = invoker.stage, work.body
    try:
        if invoker.is_plain and isinstance(body, bytes):  # each call more costs every message (`make bench-flow`)
            returned = await stage.handler(**_single_arguments(stage, body, work.message))
            return succeeded(stage, body, returned)
        arguments, opened = _arguments(stage, body, work.message)
        if opened is None:
            return await invoker.call_async(work, body, arguments, None, put)
        if not opened.places:
            return opened.settled(DONE)
        return opened.settled(await invoker.call_async(work, body, arguments, opened.places, put))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not _is_loop_running():
            raise  # the loop is closed, and so is this coroutine: nobody takes a result
        return failed(error)


def call(invoker: Invoker, work: Input, put: Put) -> Result:
    """Run a `def` handler; its errors become results, also SystemExit and other BaseExceptions."""
    stage, body = invoker.stage, work.body
    try:
        if invoker.is_plain and isinstance(body, bytes):
            return succeeded(stage, body, stage.handler(**_single_arguments(stage, body, work.message)))
        arguments, opened = _arguments(stage, body, work.message)
        if opened is None:
            return invoker.call(work, body, arguments, None, put)
        if not opened.places:
            return opened.settled(DONE)
        return opened.settled(invoker.call(work, body, arguments, opened.places, put))
    except BaseException as error:  # noqa: BLE001 - the thread belongs to the worker, not to the handler
        return failed(error)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
