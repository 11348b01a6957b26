"""Middleware: functions around each call of a handler."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rabbitry.flow._annotations import called, parameters_of, where, written
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.message import Message

if TYPE_CHECKING:
    from rabbitry.flow.stage import Stage

Next: TypeAlias = Callable[[], Awaitable[Any]]
"""Calls the next middleware, or the handler: the second argument of an `async def` middleware."""
NextBlocking: TypeAlias = Callable[[], Any]
"""The same for a `def` middleware."""
_PARAMETERS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Middleware:
    """A function around the calls of handlers. Made by `App.middleware`.

    stages: names of the stages whose handlers it is around; None for all.
    """

    function: Callable[..., Any]
    name: str
    place: str
    is_async: bool
    takes_batches: bool
    stages: frozenset[str] | None

    def is_around(self, stage: Stage) -> bool:
        """Return whether it is around the handler of a stage."""
        return self.stages is None or stage.name in self.stages

    def check(self, app: str, stage: Stage) -> None:
        """Raise AppError if it can't be around the handler of a stage."""
        mine = "async def" if self.is_async else "def"
        takes = "list[rabbitry.Message]" if self.takes_batches else "rabbitry.Message"
        if stage.kind == "process":
            problem = "its handler runs in processes, where no middleware is"
        elif self.is_async != (stage.kind == "async"):
            problem = f"the middleware is `{mine}`, and the handler is not"
        elif self.takes_batches != (stage.batch is not None):
            problem = (
                f"the middleware takes {takes}, and the handler {'one message' if self.takes_batches else 'batches'}"
            )
        else:
            return
        raise AppError(
            f"app {app!r}, middleware {self.name!r} ({self.place}): it can't be around stage {stage.name!r}: "
            f"{problem}; name the stages that it is for: @app.middleware(stages=[…])"
        )


def middleware_of(function: Callable[..., Any], stages: Collection[str] | None, app: str) -> Middleware:
    """Read a middleware. Raises AppError if it is none."""
    what = f"app {app!r}, middleware {called(function)!r} ({where(function)})"
    if stages is not None and (isinstance(stages, str) or not all(isinstance(name, str) for name in stages)):
        raise AppError(f"{what}: stages={stages!r}: give a list of names of stages")
    source = written(function)
    if inspect.isgeneratorfunction(source) or inspect.isasyncgenfunction(source):
        raise AppError(f"{what}: it must return what `call_next()` returned, and not yield")
    parameters = parameters_of(function, what)
    if len(parameters) != _PARAMETERS or next(iter(parameters.values()))[0] not in (Message, list[Message]):
        raise AppError(
            f"{what}: a middleware takes the message (rabbitry.Message, or list[rabbitry.Message] for batches) and the "
            "next call, in this order"
        )
    takes_batches = next(iter(parameters.values()))[0] == list[Message]
    return Middleware(
        function,
        called(function),
        where(function),
        inspect.iscoroutinefunction(source),
        takes_batches,
        None if stages is None else frozenset(stages),
    )
