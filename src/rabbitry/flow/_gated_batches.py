"""Batches behind gates: the handler gets the messages that are to be handled, and the others are settled alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from rabbitry.flow._gate import Gate
from rabbitry.flow._parts import Joined
from rabbitry.flow._signature import Handler
from rabbitry.flow.batch import Batch, failures_of, on_failure, skip
from rabbitry.flow.exceptions import StoreError
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.stage import Stage


class GatedBatch:
    """The messages of a batch, each with its gate, and those of them that the handler gets."""

    def __init__(self, gates: Sequence[Gate], batch: Batch) -> None:
        """batch: settles single messages."""
        self.inner = Batch(0)
        """The batch of the messages that the handler gets."""
        self.places: list[int] = []
        """Their places among all messages."""
        self._gates = gates
        self._batch = batch
        on_failure(batch, self.release)

    def take(self) -> list[object]:
        """Return the values of the messages that the handler gets; the others are done, skipped, or fail alone."""
        values: list[object] = []
        away: Exception | None = None
        for place, gate in enumerate(self._gates):
            if away is not None:
                self._batch.fail(place, away)  # else each message would wait for the store anew
                continue
            try:
                taken = gate.take()
            except Exception as error:  # noqa: BLE001 - that of one message, as if it were handled alone
                self._batch.fail(place, error)
                away = error if isinstance(error.__cause__, StoreError) else None
                continue
            if taken is not None:
                self.places.append(place)
                values.append(taken.value)
            elif gate.is_skipped:
                skip(self._batch, place)
        self.inner = Batch(len(values))
        return values

    def release(self) -> None:
        """Note that the handler failed or was ended."""
        for place in self.places:
            self._gates[place].release()

    def placed(self, value: object) -> object:
        """Return what the handler returned or yielded, with the place of its message among all. Raises IndexError."""
        if not isinstance(value, Outgoing) or value.index is None:
            return value
        if not 0 <= value.index < len(self.places):
            raise IndexError(f"index={value.index} is none of the batch's messages: there are {len(self.places)}")
        return replace(value, index=self.places[value.index])

    def published(self, returned: Any) -> Joined:
        """Return the results of the handler, and the notes after them."""
        results = [] if returned is None else returned if isinstance(returned, list) else [returned]
        placed = [self.placed(value) for value in results]
        return Joined([*placed, *self.notes()])

    def notes(self) -> list[Outgoing]:
        """Return the notes of the messages that are done. Those that the handler let fail are released."""
        failures, notes = failures_of(self.inner), []
        for index, place in enumerate(self.places):
            if index in failures:
                self._gates[place].release()
                self._batch.fail(place, failures[index])
            elif (note := self._gates[place].note()) is not None:
                notes.append(replace(note, index=place))
        return notes


_Gated: TypeAlias = Callable[[dict[str, Any]], GatedBatch]
"""Takes out of a handler's arguments what the gates alone need."""


def _arguments(stage: Stage, arguments: dict[str, Any], gated: GatedBatch, values: list[object]) -> dict[str, Any]:
    """Return the arguments of the handler: the values, metadata and batch of the messages that it gets."""
    signature = stage.signature
    own: dict[str, Any] = {signature.value: values}
    if signature.message is not None:
        own[signature.message] = [arguments[signature.message][place] for place in gated.places]
    if signature.batch is not None:
        own[signature.batch] = gated.inner
    return arguments | own


async def _taken(gated: GatedBatch) -> list[object]:
    """Return what `GatedBatch.take` returns. If this fails or is cancelled, what it took is released."""
    taking = asyncio.ensure_future(asyncio.to_thread(gated.take))
    try:
        return await asyncio.shield(taking)
    except BaseException:  # also if this is cancelled
        with contextlib.suppress(Exception):  # the batch's outcome is known
            await taking  # the thread can't be ended
        await asyncio.to_thread(gated.release)
        raise


def _returning(stage: Stage, gated_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    def handle(**arguments: Any) -> Any:
        gated = gated_of(arguments)
        try:
            if not (values := gated.take()):
                return None
            return gated.published(stage.handler(**_arguments(stage, arguments, gated, values)))
        except BaseException:  # also an exit
            gated.release()
            raise

    return handle


def _returning_async(stage: Stage, gated_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    async def handle(**arguments: Any) -> Any:
        gated = gated_of(arguments)
        if not (values := await _taken(gated)):
            return None
        try:
            returned = await stage.handler(**_arguments(stage, arguments, gated, values))
            return await asyncio.to_thread(gated.published, returned)
        except BaseException:  # also of a task that is cancelled
            await asyncio.to_thread(gated.release)
            raise

    return handle


def _yielding(stage: Stage, gated_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    def handle(**arguments: Any) -> Iterator[Any]:
        gated = gated_of(arguments)
        try:
            if not (values := gated.take()):
                return
            with contextlib.closing(stage.handler(**_arguments(stage, arguments, gated, values))) as yielded:
                for value in yielded:
                    yield gated.placed(value)
            yield from gated.notes()
        except BaseException:  # also of a generator that is closed half-way
            gated.release()
            raise

    return handle


def _yielding_async(stage: Stage, gated_of: _Gated) -> Handler:
    @functools.wraps(stage.handler)
    async def handle(**arguments: Any) -> AsyncIterator[Any]:
        gated = gated_of(arguments)
        if not (values := await _taken(gated)):
            return
        try:
            async with contextlib.aclosing(stage.handler(**_arguments(stage, arguments, gated, values))) as yielded:
                async for value in yielded:
                    yield gated.placed(value)
            for note in await asyncio.to_thread(gated.notes):
                yield note
        except BaseException:  # also of a task that is cancelled, and of a generator that is closed half-way
            await asyncio.to_thread(gated.release)
            raise

    return handle


WRAPS: Final = {
    ("thread", False): _returning,
    ("thread", True): _yielding,
    ("process", False): _returning,
    ("process", True): _yielding,
    ("async", False): _returning_async,
    ("async", True): _yielding_async,
}
"""By the kind of the handler, and whether it yields."""
