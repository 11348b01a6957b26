"""Stages: a handler, where its messages come from and where its results go."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.flow._signature import Handler, Signature, signature_of, where
from rabbitry.flow.codec import Codec
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.message import Message

Then: TypeAlias = "str | Callable[[Any], str | None] | None"
HandlerKind: TypeAlias = Literal["async", "thread", "process"]

ATTEMPTS: Final = 5
DELAYS: Final = (1.0, 5.0, 30.0, 300.0)
TIME_LIMIT: Final = 10 * 60.0
"""Seconds; brokers close the channel of a consumer that keeps a message for 30 minutes, also before it is handled."""
WITHIN: Final = 0.05
"""Seconds that a batch waits for more after its first message."""
CONCURRENCY: Final[dict[HandlerKind, int]] = {"async": 100, "thread": 8, "process": os.cpu_count() or 1}
BATCHES: Final[dict[HandlerKind, int]] = {"async": 1, "thread": 1, "process": os.cpu_count() or 1}
"""The same for handlers of batches: with more at once, each fills more slowly and the worker holds more messages."""
_MOST_UNACKED: Final = 65_535
"""The largest prefetch (AMQP 0-9-1, basic.qos), and so the largest batch."""


@dataclass(frozen=True, slots=True)
class Output:
    """A key by which messages leave the app. See `App.output`."""

    key: str
    queue: str | None
    required: bool
    exchange: str | None = None
    """Its own; None for the app's."""
    single_active: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A handler with its options. Made by `App.stage`, whose arguments these are."""

    name: str
    key: str
    queue: str
    then: Then
    handler: Handler
    kind: HandlerKind
    yields: bool
    """Whether the handler is a generator."""
    codec: Codec
    signature: Signature
    batch: int | None
    """Messages that the handler gets at once at most; None if it gets one."""
    within: float
    attempts: int
    delays: Sequence[float]
    time_limit: float
    concurrency: int
    keep_unknown: bool
    exchange: str | None
    single_active: bool

    @property
    def where(self) -> str:
        """File, line and function."""
        return where(self.handler)

    def arguments(self, value: object, message: Callable[[], Message | list[Message]]) -> dict[str, object]:
        """Return the arguments to call the handler with; `message` is called if the handler asks for it."""
        arguments: dict[str, object] = {self.signature.value: value}
        if self.signature.message is not None:
            arguments[self.signature.message] = message()
        return arguments

    def prefetch(self, running: int, *, ahead: bool) -> int:
        """Return the prefetch of a worker.

        Args:
            running: How many calls of the handler run at once.
            ahead: Whether as many messages again wait in the worker.
        """
        return min(running * (self.batch or 1) * (2 if ahead else 1), _MOST_UNACKED)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` failed."""
        return self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0

    def key_for(self, result: object) -> str | None:
        """Return the key that a result is published with; None if it goes nowhere.

        Raises:
            TypeError: `then` returned something other than a string or None.
            UsageError: AMQP can't carry the key.
            Exception: Whatever a function `then` raises.
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


def make_stage(  # noqa: PLR0913 - the options of `App.stage`
    handler: Handler,
    *,
    app: str,
    name: str | None,
    key: str,
    queue: str | None,
    then: Then,
    processes: bool,
    batch: int | None,
    within: float | None,
    attempts: int,
    delays: Sequence[float],
    time_limit: float,
    concurrency: int | None,
    keep_unknown: bool,
    exchange: str | None,
    single_active: bool,
) -> Stage:
    """Make a stage of the app of this name. Raises AppError, naming file and function, for what is invalid."""
    written = inspect.unwrap(handler)
    is_async = inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(written)
    if processes and is_async:
        raise AppError(f"{where(handler)}: processes=True is for `def`; an `async def` handler can't use it")
    kind: HandlerKind = "async" if is_async else "process" if processes else "thread"
    number = (CONCURRENCY if batch is None else BATCHES)[kind] if concurrency is None else concurrency
    if attempts < 1 or number < 1 or time_limit <= 0 or not all(0 <= delay < math.inf for delay in delays):
        raise AppError(f"{where(handler)}: attempts, concurrency and time_limit are positive, delays not negative")
    _check_batch(handler, batch, within, keep_unknown=keep_unknown)
    if processes:
        _check_importable(handler)
    signature = signature_of(handler, takes_batches=batch is not None)
    try:
        codec = Codec(signature.type)
    except (TypeError, ValueError) as error:
        raise AppError(
            f"{where(handler)}: the type of {signature.value!r} can't be decoded: {error}; "
            "take a msgspec type, a dataclass, a pydantic model, dict, str or bytes"
        ) from error
    return Stage(
        name=name or handler.__name__,
        key=key,
        queue=queue or f"{app}.{name or handler.__name__}",
        then=then,
        handler=handler,
        kind=kind,
        yields=inspect.isgeneratorfunction(written) or inspect.isasyncgenfunction(written),
        codec=codec,
        signature=signature,
        batch=batch,
        within=WITHIN if within is None else within,
        attempts=attempts,
        delays=tuple(delays),
        time_limit=time_limit,
        concurrency=number,
        keep_unknown=keep_unknown,
        exchange=exchange,
        single_active=single_active,
    )


def _check_batch(handler: Handler, batch: int | None, within: float | None, *, keep_unknown: bool) -> None:
    if batch is None:
        if within is not None:
            raise AppError(f"{where(handler)}: within=… is for stages with batch=…")
        return
    if not 1 <= batch <= _MOST_UNACKED:
        raise AppError(f"{where(handler)}: batch={batch!r}: a batch has 1 to {_MOST_UNACKED} messages")
    if within is not None and not 0 <= within < math.inf:
        raise AppError(f"{where(handler)}: within={within!r}: seconds, not negative")
    if keep_unknown:
        raise AppError(f"{where(handler)}: keep_unknown=True can't go with batch=…: a result has no single input there")


def _check_importable(handler: Handler) -> None:
    """Raise AppError for a handler that worker processes can't import by its name."""
    if _importable(handler) is not handler:
        # While its module is being imported the name is not there yet.
        module = sys.modules.get(handler.__module__)
        if "<locals>" in handler.__qualname__ or module is None:
            raise AppError(f"{where(handler)}: processes=True needs a function at the top of its module")
    if handler.__module__ == "__main__" and not _has_main_file():
        raise AppError(
            f"{where(handler)}: processes=True needs a function that another process can import, and '__main__' has no "
            "file here (a notebook, a REPL, `python -c`): put the function into a module and import it"
        )


def _has_main_file() -> bool:
    """Return whether multiprocessing can import the main module anew (multiprocessing.spawn.get_preparation_data)."""
    main = sys.modules["__main__"]
    # Read from stdin, its file is called "<stdin>".
    return getattr(main, "__spec__", None) is not None or os.path.exists(getattr(main, "__file__", None) or "")


def _importable(handler: Handler) -> object:
    found: object = sys.modules.get(handler.__module__)
    for part in handler.__qualname__.split("."):
        found = getattr(found, part, None)
    return found
