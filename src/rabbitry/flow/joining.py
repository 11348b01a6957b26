"""Joins: stages whose handler runs once for all parts of a job.

Each part is kept in the join's store and acknowledged. The message that brings the last one runs the handler: its id is
in the store, so that it is told from a copy of a part that comes later, and runs the handler again if its worker dies.
With the results goes a message to the join itself, which notes in the store that they are confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from rabbitry._installing import missing
from rabbitry.flow._parts import Join, Joined, Late, part_of
from rabbitry.flow._plan import Plan, plan_of
from rabbitry.flow._signature import Handler
from rabbitry.flow.codec import Codec
from rabbitry.flow.depends import Depends
from rabbitry.flow.exceptions import AppError, Reject, Retry
from rabbitry.flow.message import INTERRUPTED, PART, UNCOUNTED, Message, text_header
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.stage import Stage
from rabbitry.flow.wiring.delays import LONGEST

if TYPE_CHECKING:
    from rabbitry.flow._join_store import Store

_JOINED: Final = "x-rabbitry-joined"
"""The job whose join is done, in a message to the join itself."""
_STORE: Final = "_rabbitry_store"
_MESSAGE: Final = "_rabbitry_message"
_GIVEN: Final = "RABBITRY_HARNESS_STORE"
"""Names the store of a harness to the processes of its worker."""
_given: ContextVar[str | None] = ContextVar("store of joins", default=None)


@contextlib.contextmanager
def store_given(url: str) -> Iterator[None]:
    """Have the joins of workers that are entered within the block use this store, for tests."""
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


def make_join(
    stage: Stage, what: str, *, app: str, of: str, within: float, late: Late, store: str | None
) -> tuple[Stage, Join]:
    """Make a join of a stage whose handler takes a list. Raises AppError for a handler that can't be one."""
    if not within:
        raise AppError(f"{what}: within={within!r}: a join has a limit of time: give positive seconds")
    if within > LONGEST:
        raise AppError(f"{what}: within={within!r}: give at most {LONGEST} seconds, four years")
    join = Join(of, stage.queue, float(within), stage.time_limit, stage.codec)

    async def opened() -> AsyncIterator[Any]:  # resolved when the plan is made, without the store's module
        found = await asyncio.to_thread(_open, _given.get() or store or _default_store(app), join, what)
        try:
            yield found
        finally:
            await asyncio.to_thread(found.close)

    def opened_in_process() -> Iterator[Any]:
        with contextlib.closing(_open(os.environ.get(_GIVEN) or store or _default_store(app), join, what)) as found:
            yield found

    opening = opened_in_process if stage.kind == "process" else opened
    own = plan_of([(_STORE, Depends(opening, scope="worker"))], what)
    plan = stage.signature.plan
    signature = stage.signature._replace(
        type=bytes,
        message=stage.signature.message or _MESSAGE,
        plan=Plan(plan.parameters + own.parameters, plan.providers + own.providers),
    )
    wrap = _WRAPS[stage.kind, stage.yields]
    return (
        dataclasses.replace(
            stage, handler=wrap(stage, join, late), codec=Codec(bytes), signature=signature, is_plain=False
        ),
        join,
    )


def _open(url: str, join: Join, what: str) -> Store:
    try:
        from rabbitry.flow._join_store import Store
    except ModuleNotFoundError as error:
        raise AppError(missing(f"{what}: a join", error, "records")) from error
    return Store(url, join.queue, join.within, join.time_limit)


def _default_store(app: str) -> str:
    return (
        os.environ.get("RABBITRY_DATABASE")
        or f"sqlite:///{platformdirs.user_data_path('rabbitry') / app}.joins.sqlite3"
    )


def _joined(stage: Stage, join: Join, late: Late) -> Handler:
    @functools.wraps(stage.handler)
    def handle(**arguments: Any) -> Any:
        arrival = _arrival(stage, join, arguments)
        parts = arrival.take(late)
        if parts is None:
            return Joined([], is_whole=False)
        try:
            returned = stage.handler(**arguments | {stage.signature.value: parts})
        except BaseException:  # also of a generator that is closed half-way
            arrival.release()
            raise
        return arrival.joined(returned, join)

    return handle


def _joined_async(stage: Stage, join: Join, late: Late) -> Handler:
    @functools.wraps(stage.handler)
    async def handle(**arguments: Any) -> Any:
        arrival = _arrival(stage, join, arguments)
        parts = await asyncio.to_thread(arrival.take, late)
        if parts is None:
            return Joined([], is_whole=False)
        try:
            returned = await stage.handler(**arguments | {stage.signature.value: parts})
        except BaseException:  # also of a task that is cancelled, and of a generator that is closed half-way
            await asyncio.to_thread(arrival.release)
            raise
        return arrival.joined(returned, join)

    return handle


def _yielding(stage: Stage, join: Join, late: Late) -> Handler:
    @functools.wraps(stage.handler)
    def handle(**arguments: Any) -> Iterator[Any]:
        arrival = _arrival(stage, join, arguments)
        parts = arrival.take(late)
        if parts is None:
            return
        try:
            yield from stage.handler(**arguments | {stage.signature.value: parts})
        except BaseException:  # also of a generator that is closed half-way
            arrival.release()
            raise
        yield arrival.note(join)

    return handle


def _yielding_async(stage: Stage, join: Join, late: Late) -> Handler:
    @functools.wraps(stage.handler)
    async def handle(**arguments: Any) -> AsyncIterator[Any]:
        arrival = _arrival(stage, join, arguments)
        parts = await asyncio.to_thread(arrival.take, late)
        if parts is None:
            return
        try:
            async with contextlib.aclosing(stage.handler(**arguments | {stage.signature.value: parts})) as values:
                async for value in values:
                    yield value
        except BaseException:  # also of a task that is cancelled, and of a generator that is closed half-way
            await asyncio.to_thread(arrival.release)
            raise
        yield arrival.note(join)

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


def _arrival(stage: Stage, join: Join, arguments: dict[str, Any]) -> _Arrival:
    """Take out of a handler's arguments what the join alone needs."""
    name = stage.signature.message
    message = arguments.pop(_MESSAGE) if name is None else arguments[name]
    return _Arrival(arguments.pop(_STORE), message, arguments[stage.signature.value], join.codec)


class _Arrival:
    """A message of a join's queue, and the store that it goes to."""

    def __init__(self, store: Store, message: Message, body: bytes, codec: Codec) -> None:
        self._store = store
        self._message = message
        self._body = body
        self._codec = codec
        self._job = ""
        counts = (message.headers.get(name, 0) for name in (UNCOUNTED, INTERRUPTED))
        self._run = ".".join(str(count) for count in (message.attempt, *counts))

    def take(self, late: Late) -> list[object] | None:
        """Return the parts of the job, in their order, if the join runs now. Raises Reject, Retry and Undecodable."""
        headers = self._message.headers
        if (job := text_header(headers, _JOINED)) is not None:
            self._store.finish(job)
            return None
        part = part_of(text_header(headers, PART) or "")
        if part is None:
            raise Reject("no part of a job: a join takes what follows from the results of the stage that it is `of`")
        self._job = part.job
        if part.is_notice:
            bodies = self._store.end(part, self._message.id, self._run, late)
        else:
            # One that can't be decoded is a dead letter of its own.
            body = self._codec.kept(self._body, self._message.content_type)
            bodies = self._store.arrive(part, self._message.id, self._run, body)
        return None if bodies is None else [self._codec.decode(body) for body in bodies]

    def release(self) -> None:
        """Note that the handler failed or was ended. While the store can't be reached, a copy waits longer."""
        with contextlib.suppress(Retry):
            self._store.release(self._job, self._run)

    def joined(self, returned: Any, join: Join) -> Joined:
        """Return the results of the join, and the message to itself after them."""
        results = [] if returned is None else returned if isinstance(returned, list) else [returned]
        return Joined([*results, self.note(join)], returned)

    def note(self, join: Join) -> Outgoing:
        """Return the message of the join to itself that notes that its results are confirmed."""
        return Outgoing(b"", key=join.queue, headers={_JOINED: self._job})
