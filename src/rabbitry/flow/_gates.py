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

from rabbitry.flow._gate import Gate, Taken
from rabbitry.flow._gated_batches import WRAPS as BATCH_WRAPS
from rabbitry.flow._gated_batches import GatedBatch
from rabbitry.flow._parts import Joined
from rabbitry.flow._plan import Plan, plan_of
from rabbitry.flow._signature import Handler
from rabbitry.flow.codec import Codec
from rabbitry.flow.depends import Depends
from rabbitry.flow.message import Message
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

    own_message, own_batch = stage.signature.message, stage.signature.batch

    def gate(arguments: dict[str, Any]) -> Gate:
        """Take out of a handler's arguments what the gate alone needs."""
        message = arguments.pop(_MESSAGE) if own_message is None else arguments[own_message]
        return gate_of(arguments.pop(_STORE), message, arguments[stage.signature.value])

    def gates(arguments: dict[str, Any]) -> GatedBatch:
        """Do the same for a batch."""
        messages = arguments.pop(_MESSAGE) if own_message is None else arguments[own_message]
        batch = arguments.pop(_BATCH) if own_batch is None else arguments[own_batch]
        store, bodies = arguments.pop(_STORE), arguments[stage.signature.value]
        return GatedBatch([gate_of(store, *each) for each in zip(messages, bodies, strict=True)], batch)

    kind = stage.kind, stage.yields
    return dataclasses.replace(
        stage,
        handler=_WRAPS[kind](stage, gate) if stage.batch is None else BATCH_WRAPS[kind](stage, gates),
        codec=Codec(bytes),
        takes=stage.codec,
        signature=signature,
        is_plain=False,
    )


def _published(gate: Gate, returned: Any) -> Joined:
    """Return the results of a handler, and the note after them."""
    results = [] if returned is None else returned if isinstance(returned, list) else [returned]
    note = gate.note()
    return Joined(results if note is None else [*results, note], returned)


async def _taken(gate: Gate) -> Taken | None:
    """Return what `Gate.take` returns. If this is cancelled, what it takes meanwhile is released."""
    taking = asyncio.ensure_future(asyncio.to_thread(gate.take))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):  # the message's outcome is that it was cancelled
            if await taking is not None:  # the thread can't be ended
                await asyncio.to_thread(gate.release)
        raise


_Gated: TypeAlias = Callable[[dict[str, Any]], Gate]


def _joined(stage: Stage, gate_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    def handle(**arguments: Any) -> Any:
        gate = gate_of(arguments)
        taken = gate.take()
        if taken is None:
            return Joined([], is_whole=False, is_skipped=gate.is_skipped)
        try:
            returned = stage.handler(**arguments | {stage.signature.value: taken.value})
        except BaseException:  # also an exit
            gate.release()
            raise
        return _published(gate, returned)

    return handle


def _joined_async(stage: Stage, gate_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    async def handle(**arguments: Any) -> Any:
        gate = gate_of(arguments)
        taken = await _taken(gate)
        if taken is None:
            return Joined([], is_whole=False, is_skipped=gate.is_skipped)
        try:
            returned = await stage.handler(**arguments | {stage.signature.value: taken.value})
            return await asyncio.to_thread(_published, gate, returned)
        except BaseException:  # also of a task that is cancelled
            await asyncio.to_thread(gate.release)
            raise

    return handle


def _yielding(stage: Stage, gate_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    def handle(**arguments: Any) -> Iterator[Any]:
        gate = gate_of(arguments)
        taken = gate.take()
        if taken is None:
            return
        try:
            yield from stage.handler(**arguments | {stage.signature.value: taken.value})
        except BaseException:  # also of a generator that is closed half-way
            gate.release()
            raise
        if (note := gate.note()) is not None:
            yield note

    return handle


def _yielding_async(stage: Stage, gate_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    async def handle(**arguments: Any) -> AsyncIterator[Any]:
        gate = gate_of(arguments)
        taken = await _taken(gate)
        if taken is None:
            return
        try:
            async with contextlib.aclosing(stage.handler(**arguments | {stage.signature.value: taken.value})) as values:
                async for value in values:
                    yield value
        except BaseException:  # also of a task that is cancelled, and of a generator that is closed half-way
            await asyncio.to_thread(gate.release)
            raise
        if (note := await asyncio.to_thread(gate.note)) is not None:
            yield note

    return handle


_WRAPS: Final = {
    ("thread", False): _joined,
    ("thread", True): _yielding,
    ("process", False): _joined,
    ("process", True): _yielding,
    ("async", False): _joined_async,
    ("async", True): _yielding_async,
}
"""By the kind of the handler, and whether it yields."""
