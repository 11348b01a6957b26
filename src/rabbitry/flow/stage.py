"""Stages: a handler, where its messages come from and where its results go."""

from __future__ import annotations

import inspect
import math
import os
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.exceptions import AppError
from rabbitry.flow.codec import Codec
from rabbitry.flow.message import Message

Handler: TypeAlias = Callable[..., Any]
"""A user's function. Its types are looked at when it is registered, since Python can't before."""
Then: TypeAlias = "str | Callable[[Any], str | None] | None"
Kind: TypeAlias = Literal["async", "thread", "process"]

ATTEMPTS: Final = 5
DELAYS: Final = (1.0, 5.0, 30.0, 300.0)
TIME_LIMIT: Final = 10 * 60.0
"""Seconds; brokers close the channel of a consumer that keeps a message for 30 minutes, also before it is handled."""
CONCURRENCY: Final[dict[Kind, int]] = {"async": 100, "thread": 8, "process": os.cpu_count() or 1}


@dataclass(frozen=True, slots=True)
class Output:
    """A key by which messages leave the app. See `App.output`."""

    key: str
    queue: str | None
    required: bool
    exchange: str | None = None
    """Its own; None for the app's."""


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A handler with its options. Made by `App.stage`, whose arguments these are."""

    name: str
    key: str
    queue: str
    then: Then
    handler: Handler
    kind: Kind
    codec: Codec
    value_name: str
    message_name: str | None
    attempts: int
    delays: Sequence[float]
    time_limit: float
    concurrency: int
    keep_unknown: bool
    exchange: str | None

    @property
    def where(self) -> str:
        """File, line and function."""
        return where(self.handler)

    def arguments(self, value: object, message: Callable[[], Message]) -> dict[str, object]:
        """Return the arguments to call the handler with; `message` is called where the handler asks for it."""
        arguments: dict[str, object] = {self.value_name: value}
        if self.message_name is not None:
            arguments[self.message_name] = message()
        return arguments

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` failed."""
        return self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0

    def key_for(self, result: object) -> str | None:
        """Return the key that a result is published with; None where it goes nowhere.

        Raises TypeError or UsageError for one that can't be sent, as well as what `then` raises.
        """
        if not callable(self.then):
            return self.then
        key: object = self.then(result)
        if key is None:
            return None
        if not isinstance(key, str):
            raise TypeError(f"`then` gave {key!r} for a key; it must be a string, or None")
        encode_short(key)
        return str(key)


def make_stage(
    handler: Handler,
    *,
    name: str | None,
    key: str,
    queue: str,
    then: Then,
    processes: bool,
    attempts: int,
    delays: Sequence[float],
    time_limit: float,
    concurrency: int | None,
    keep_unknown: bool,
    exchange: str | None = None,
) -> Stage:
    """Look at a handler and its options. Raises AppError, naming file and function, where they make no sense."""
    is_async = inspect.iscoroutinefunction(handler)
    if processes and is_async:
        raise AppError(f"{where(handler)}: processes=True is for `def`; an `async def` handler can't use it")
    kind: Kind = "async" if is_async else "process" if processes else "thread"
    number = CONCURRENCY[kind] if concurrency is None else concurrency
    if attempts < 1 or number < 1 or time_limit <= 0 or not all(0 <= delay < math.inf for delay in delays):
        raise AppError(f"{where(handler)}: attempts, concurrency and time_limit are positive, delays not negative")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise AppError(f"{where(handler)}: a handler can't yield; return a list for several results")
    if processes and _importable(handler) is not handler:
        # Worker processes import it by this name. While its module is being imported the name is not there yet.
        module = sys.modules.get(handler.__module__)
        if "<locals>" in handler.__qualname__ or module is None:
            raise AppError(f"{where(handler)}: processes=True needs a function at the top of its module")
    if processes and handler.__module__ == "__main__" and not _has_main_file():
        raise AppError(
            f"{where(handler)}: processes=True needs a function that another process can import, and '__main__' has no "
            "file here (a notebook, a REPL, `python -c`): put the function into a module and import it"
        )
    value_name, type_, message_name = _parameters(handler)
    try:
        codec = Codec(type_)
    except (TypeError, ValueError) as error:
        raise AppError(
            f"{where(handler)}: the type of {value_name!r} can't be decoded: {error}; "
            "take a msgspec type, a dataclass, a pydantic model, dict, str or bytes"
        ) from error
    return Stage(
        name=name or handler.__name__,
        key=key,
        queue=queue,
        then=then,
        handler=handler,
        kind=kind,
        codec=codec,
        value_name=value_name,
        message_name=message_name,
        attempts=attempts,
        delays=tuple(delays),
        time_limit=time_limit,
        concurrency=number,
        keep_unknown=keep_unknown,
        exchange=exchange,
    )


def where(handler: Handler) -> str:
    """Name a function by file, line and name."""
    code = getattr(inspect.unwrap(handler), "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else handler.__module__
    return f"{place}: {getattr(handler, '__qualname__', repr(handler))}"


def _parameters(handler: Handler) -> tuple[str, object, str | None]:
    """Return the value's parameter and type, and the parameter of the metadata where there is one."""
    try:
        hints = typing.get_type_hints(handler, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise AppError(f"{where(handler)}: its annotations can't be resolved: {error}") from error
    values: list[tuple[str, object]] = []
    message_name: str | None = None
    for parameter in inspect.signature(handler).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise AppError(f"{where(handler)}: parameter {parameter.name!r} must be one that can be given by name")
        if parameter.name not in hints:
            raise AppError(f"{where(handler)}: parameter {parameter.name!r} has no type; say what its messages hold")
        if hints[parameter.name] is Message:
            message_name = parameter.name
        else:
            values.append((parameter.name, hints[parameter.name]))
    if len(values) != 1:
        raise AppError(f"{where(handler)}: it must take one value (and rabbitry.Message, where it wants the metadata)")
    return *values[0], message_name


def _has_main_file() -> bool:
    """Whether multiprocessing can import the main module anew (multiprocessing.spawn.get_preparation_data)."""
    main = sys.modules["__main__"]
    # Read from stdin, its file is called "<stdin>".
    return getattr(main, "__spec__", None) is not None or os.path.exists(getattr(main, "__file__", None) or "")


def _importable(handler: Handler) -> object:
    found: object = sys.modules.get(handler.__module__)
    for part in handler.__qualname__.split("."):
        found = getattr(found, part, None)
    return found
