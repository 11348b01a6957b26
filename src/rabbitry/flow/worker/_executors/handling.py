"""Decode and call: what happens to a message's body, in whatever thread or process the handler runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

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
    codec = stage.codec
    if not codec.needs_content_type:
        return stage.arguments(codec.decode_body(body), message)
    metadata = message()
    assert isinstance(metadata, Message)  # noqa: S101 # of a single body; narrows the type
    return stage.arguments(codec.decode(body, metadata.content_type), message)


def call_async(invoker: Invoker, work: Input, put: PutAsync) -> Coroutine[Any, Any, Result]:
    """Run an `async def` handler; errors become results. Raises CancelledError, which may not be the handler's."""
    return (_call_traced_async if _tracing.is_used() else _call_async)(invoker, work, put)


async def _call_traced_async(invoker: Invoker, work: Input, put: PutAsync) -> Result:
    from rabbitry.flow import _spans

    with _spans.handling(invoker.stage.queue, work.message(), _size(work.body)) as note:
        result = await _call_async(invoker, work, put)
        note(result.kind, result.reason, result.error)
        return result


async def _call_async(invoker: Invoker, work: Input, put: PutAsync) -> Result:
    stage, body = invoker.stage, work.body
    opened: OpenedBatch | None = None
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
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not _is_loop_running():
            raise  # the loop is closed, and so is this coroutine: nobody takes a result
        if opened is not None and opened.undo is not None and not isinstance(error, GeneratorExit):
            await asyncio.to_thread(opened.undo)
        if isinstance(error, asyncio.CancelledError):
            raise
        return failed(error)


def call(invoker: Invoker, work: Input, put: Put) -> Result:
    """Run a `def` handler; its errors become results, also SystemExit and other BaseExceptions."""
    if not _tracing.is_used():
        return _call(invoker, work, put)
    from rabbitry.flow import _spans

    with _spans.handling(invoker.stage.queue, work.message(), _size(work.body)) as note:
        result = _call(invoker, work, put)
        note(result.kind, result.reason, result.error)
        return result


def _call(invoker: Invoker, work: Input, put: Put) -> Result:
    stage, body = invoker.stage, work.body
    opened: OpenedBatch | None = None
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
        if opened is not None and opened.undo is not None:
            opened.undo()
        return failed(error)


def _size(body: Body) -> int:
    return sum(map(len, body)) if isinstance(body, list) else len(body)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
