"""Gates, which decide in front of a handler, with a store, whether a message is handled.

A join's handler runs once for all parts of a job, and an idempotent stage's once for each key. The handler is wrapped:
the wrapper asks the gate, which uses a store that lives as long as the worker, and adds a note to the results: a
message to the stage itself, which is published after them, and by which the store learns that they are confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import platformdirs

from rabbitry.flow._gate import Gate, GatedCall
from rabbitry.flow._gated_batches import GatedBatch
from rabbitry.flow._parts import Joined
from rabbitry.flow._plan import Plan, plan_of
from rabbitry.flow._signature import Handler
from rabbitry.flow.codec import Codec
from rabbitry.flow.depends import Depends
from rabbitry.flow.message import Message
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.stage import Stage

_STORE: Final = "_rabbitry_store"
_MESSAGE: Final = "_rabbitry_message"
_BATCH: Final = "_rabbitry_batch"
_GIVEN: Final = "RABBITRY_HARNESS_STORE"
"""Names the store of a harness to the processes of its worker."""
_given: ContextVar[str | None] = ContextVar("store of a harness", default=None)


GateOf: TypeAlias = Callable[[Any, Message, bytes], Gate]
"""Makes the gate of a message: of the store, the metadata, and the body."""


@contextlib.contextmanager
def store_given(url: str) -> Iterator[None]:
    """Have the apps whose workers and publishers are entered within the block use this store, for tests."""
    token, before = _given.set(url), os.environ.get(_GIVEN)
    os.environ[_GIVEN] = url
    try:
        yield
    finally:
        _given.reset(token)
        if before is None:
            del os.environ[_GIVEN]
        else:
            os.environ[_GIVEN] = before


def store_url(app: str, store: str | None, kind: str) -> str:
    """Return the URL of the store that is used. kind: names the file in the user's data folder, if none is given."""
    # A process of a worker has the harness's store in its environment, and a thread of the harness too.
    given = _given.get() or os.environ.get(_GIVEN) or store or os.environ.get("RABBITRY_DATABASE")
    return given or f"sqlite:///{platformdirs.user_data_path('rabbitry') / app}.{kind}.sqlite3"


def gated(stage: Stage, what: str, open_store: Callable[[], Any], gate_of: GateOf) -> Stage:
    """Return a stage whose handler is called if a gate says so.

    Args:
        stage: The stage.
        what: The stage in words.
        open_store: Opens the store, which has a method `close`. Called in a thread.
        gate_of: Makes the gate of a message.
    """

    async def opened() -> AsyncIterator[Any]:
        found = await asyncio.to_thread(open_store)
        try:
            yield found
        finally:
            await asyncio.to_thread(found.close)

    def opened_in_process() -> Iterator[Any]:
        with contextlib.closing(open_store()) as found:
            yield found

    opening = opened_in_process if stage.kind == "process" else opened
    own = plan_of([(_STORE, Depends(opening, scope="worker"))], what)
    plan = stage.signature.plan
    signature = stage.signature._replace(
        type=bytes,
        message=stage.signature.message or _MESSAGE,
        batch=None if stage.batch is None else stage.signature.batch or _BATCH,
        plan=Plan(plan.parameters + own.parameters, plan.providers + own.providers),
    )

    own_message, own_batch, value = stage.signature.message, stage.signature.batch, stage.signature.value

    def call(arguments: dict[str, Any]) -> GatedCall:
        """Take out of a handler's arguments what the gates alone need."""
        message = arguments.pop(_MESSAGE) if own_message is None else arguments[own_message]
        store, body = arguments.pop(_STORE), arguments[value]
        if stage.batch is None:
            return _GatedMessage(gate_of(store, message, body), arguments, value)
        batch = arguments.pop(_BATCH) if own_batch is None else arguments[own_batch]
        gates = [gate_of(store, *each) for each in zip(message, body, strict=True)]
        return GatedBatch(gates, batch, arguments, stage.signature)

    return dataclasses.replace(
        stage,
        handler=_WRAPS[stage.kind == "async", stage.yields](stage.handler, call),
        codec=Codec(bytes),
        takes=stage.codec,
        signature=signature,
        is_plain=False,
    )


class _GatedMessage:
    """A call with one message: a `GatedCall`."""

    def __init__(self, gate: Gate, arguments: dict[str, Any], value: str) -> None:
        """value: the name of the handler's parameter for the value."""
        self._gate = gate
        self._arguments = arguments
        self._value = value

    @property
    def is_skipped(self) -> bool:
        return self._gate.is_skipped

    def take(self) -> dict[str, Any] | None:
        taken = self._gate.take()
        return None if taken is None else self._arguments | {self._value: taken.value}

    def release(self) -> None:
        self._gate.release()

    def placed(self, value: object) -> object:
        return value

    def notes(self) -> list[Outgoing]:
        note = self._gate.note()
        return [] if note is None else [note]


_CallOf: TypeAlias = Callable[[dict[str, Any]], GatedCall]
"""Makes the call of a handler, of its arguments and those of the gates."""


def _published(call: GatedCall, returned: Any) -> Joined:
    """Return the results of a handler, and the notes after them."""
    results = [] if returned is None else returned if isinstance(returned, list) else [returned]
    placed = [call.placed(value) for value in results]
    return Joined([*placed, *call.notes()], returned)


async def _taken(call: GatedCall) -> dict[str, Any] | None:
    """Return what `GatedCall.take` returns. If this is cancelled, what it takes meanwhile is released."""
    taking = asyncio.ensure_future(asyncio.to_thread(call.take))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):  # the outcome is that the call was cancelled
            if await taking is not None:  # the thread can't be ended
                await asyncio.to_thread(call.release)
        raise


def _returning(handler: Handler, call_of: _CallOf) -> Handler:
    @functools.wraps(handler)
    def handle(**arguments: Any) -> Any:
        call = call_of(arguments)
        if (given := call.take()) is None:
            return Joined([], is_whole=False, is_skipped=call.is_skipped)
        try:
            return _published(call, handler(**given))
        except BaseException:  # also an exit
            call.release()
            raise

    return handle


def _returning_async(handler: Handler, call_of: _CallOf) -> Handler:
    @functools.wraps(handler)
    async def handle(**arguments: Any) -> Any:
        call = call_of(arguments)
        if (given := await _taken(call)) is None:
            return Joined([], is_whole=False, is_skipped=call.is_skipped)
        try:
            returned = await handler(**given)
            return await asyncio.to_thread(_published, call, returned)
        except BaseException:  # also of a task that is cancelled
            await asyncio.to_thread(call.release)
            raise

    return handle


def _yielding(handler: Handler, call_of: _CallOf) -> Handler:
    @functools.wraps(handler)
    def handle(**arguments: Any) -> Iterator[Any]:
        call = call_of(arguments)
        if (given := call.take()) is None:
            return
        try:
            with contextlib.closing(handler(**given)) as values:
                yield from map(call.placed, values)
            yield from call.notes()
        except BaseException:  # also of a generator that is closed half-way
            call.release()
            raise

    return handle


def _yielding_async(handler: Handler, call_of: _CallOf) -> Handler:
    @functools.wraps(handler)
    async def handle(**arguments: Any) -> AsyncIterator[Any]:
        call = call_of(arguments)
        if (given := await _taken(call)) is None:
            return
        try:
            async with contextlib.aclosing(handler(**given)) as values:
                async for value in values:
                    yield call.placed(value)
            for note in await asyncio.to_thread(call.notes):
                yield note
        except BaseException:  # also of a task that is cancelled, and of a generator that is closed half-way
            await asyncio.to_thread(call.release)
            raise

    return handle


_WRAPS: Final = {
    (False, False): _returning,
    (False, True): _yielding,
    (True, False): _returning_async,
    (True, True): _yielding_async,
}
"""By whether the handler is an `async def`, and whether it yields."""
