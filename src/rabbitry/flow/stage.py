"""Stages: a handler, where its messages come from and where its results go."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypedDict, Unpack

from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.flow._annotations import called, where, written
from rabbitry.flow._options import MOST_BATCH_BYTES, MOST_UNACKED
from rabbitry.flow._signature import Handler, Signature, signature_of
from rabbitry.flow.codec import Codec
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.key import Key, name_of
from rabbitry.flow.message import Message

Then: TypeAlias = "str | Key[Any] | Callable[[Any], str | Key[Any] | None] | None"
Argument: TypeAlias = str | int | float | bool
"""The value of an argument of a queue."""
HandlerKind: TypeAlias = Literal["async", "thread", "process"]

ATTEMPTS: Final = 5
UNCOUNTED: Final = 1000
DELAYS: Final = (1.0, 5.0, 30.0, 300.0)
TIME_LIMIT: Final = 10 * 60.0
"""Seconds; brokers close the channel of a consumer that keeps a message for 30 minutes, also before it is handled."""
WITHIN: Final = 0.05
"""Seconds that a batch waits for more after its first message."""
CONCURRENCY: Final[dict[HandlerKind, int]] = {"async": 100, "thread": 8, "process": os.cpu_count() or 1}
BATCHES: Final[dict[HandlerKind, int]] = {"async": 1, "thread": 1, "process": os.cpu_count() or 1}
"""The same for handlers of batches: with more at once, each fills more slowly and the worker holds more messages."""


@dataclass(frozen=True, slots=True)
class Output:
    """A key by which messages leave the app. See `App.output`."""

    key: str
    queue: str | None
    required: bool
    exchange: str | None = None
    """Its own; None for the app's."""
    single_active: bool = False
    queue_arguments: Mapping[str, Argument] = field(default_factory=dict)


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
    batch_bytes: int
    """The most bytes of the bodies of a batch, unless a single message has more."""
    attempts: int
    delays: Sequence[float]
    jitter: float
    uncounted: int
    """Retries of a message that are not counted at most, if they ask for it."""
    time_limit: float
    concurrency: int
    keep_unknown: bool
    exchange: str | None
    single_active: bool
    queue_arguments: Mapping[str, Argument]
    replies: bool
    is_plain: bool
    """Whether the handler takes a message's value and metadata, returns its results, and nothing else is to be done."""
    takes: Codec | None = None
    """Decodes the messages' values, if the wrapped handler takes undecoded bodies; see `_gates`."""

    @property
    def value_codec(self) -> Codec:
        """Decodes the values of the stage's messages, for other programs than its worker."""
        return self.takes or self.codec

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
        return min(running * (self.batch or 1) * (2 if ahead else 1), MOST_UNACKED)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` failed, without jitter."""
        return self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0

    def key_for(self, result: object) -> str | Key[Any] | None:
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
        if isinstance(key, Key):
            return key
        if not isinstance(key, str):
            raise TypeError(f"`then` gave {key!r} for a key; it must be a string, or None")
        encode_short(key)
        return str(key)


class _Kept(TypedDict):
    """Options of `App.stage` that a stage keeps as they are."""

    attempts: int
    uncounted: int
    time_limit: float
    exchange: str | None
    single_active: bool


def make_stage(  # noqa: PLR0913 - the options of `App.stage`
    handler: Handler,
    *,
    app: str,
    name: str | None,
    key: str | Key[Any],
    queue: str | None,
    then: Then,
    processes: bool,
    batch: int | None,
    within: float | None,
    batch_bytes: int | None,
    delays: Sequence[float],
    jitter: float,
    concurrency: int | None,
    keep_unknown: bool,
    queue_arguments: Mapping[str, Argument] | None,
    priorities: int | None,
    replies: bool,
    takes_parts: bool = False,
    **kept: Unpack[_Kept],
) -> Stage:
    """Make a stage of the app of this name. Raises AppError, naming app, stage and function, for what is invalid.

    The options themselves were checked before (`check_options`).
    """
    what = described(app, name, handler)
    kind = _kind_of(handler, what, processes=processes)
    _check_batch(what, batch, within, batch_bytes, keep_unknown=keep_unknown)
    signature = signature_of(handler, what, takes_batches=batch is not None, takes_parts=takes_parts)
    _check_dependencies(what, kind, signature)
    source = written(handler)
    yields = inspect.isgeneratorfunction(source) or inspect.isasyncgenfunction(source)
    if replies and (yields or batch is not None):
        raise AppError(f"{what}: replies=True is for handlers of single messages that return, and do not yield")
    return Stage(
        name=name or called(handler),
        key=name_of(key),
        queue=queue or f"{app}.{name or called(handler)}",
        then=then,
        handler=handler,
        kind=kind,
        yields=yields,
        codec=_codec_of(what, key, signature),
        signature=signature,
        batch=batch,
        within=WITHIN if within is None else within,
        batch_bytes=batch_bytes or MOST_BATCH_BYTES,
        delays=tuple(delays),
        jitter=float(jitter),
        concurrency=(CONCURRENCY if batch is None else BATCHES)[kind] if concurrency is None else concurrency,
        keep_unknown=keep_unknown,
        queue_arguments=_queue_arguments(what, queue_arguments or {}, priorities),
        replies=replies,
        is_plain=not yields and batch is None and signature.context is None and not signature.plan.providers,
        **kept,
    )


def _codec_of(what: str, key: str | Key[Any], signature: Signature) -> Codec:
    """Return the codec of a handler's values. Raises AppError for a type that the key or JSON does not have."""
    if isinstance(key, Key) and signature.type not in (key.type, bytes):
        raise AppError(
            f"{what}: parameter {signature.value!r} is {signature.type}, and the messages of key {key.name!r} are "
            f"{key.type}: take this type, or bytes"
        )
    try:
        return Codec(signature.type)
    except (TypeError, ValueError) as error:
        raise AppError(
            f"{what}: the type of {signature.value!r} can't be decoded: {error}; "
            "take a msgspec type, a dataclass, a pydantic model, dict, str or bytes"
        ) from error


def _queue_arguments(what: str, given: Mapping[str, Argument], priorities: int | None) -> Mapping[str, Argument]:
    """Return the arguments of a stage's queue. Raises AppError for two values of one argument."""
    if priorities is None:
        return dict(given)
    if "x-max-priority" in given:
        raise AppError(f"{what}: priorities=… and x-max-priority in queue_arguments=… are the same: leave out one")
    return {**given, "x-max-priority": priorities}


def described(app: str, name: str | None, handler: Handler) -> str:
    """Return a stage in words, for errors: its app, its name and its handler."""
    if not callable(handler):
        raise AppError(f"app {app!r}: {handler!r} can't be a handler: it is no function")
    return f"app {app!r}, stage {name or called(handler)!r} ({where(handler)})"


def _kind_of(handler: Handler, what: str, *, processes: bool) -> HandlerKind:
    source = written(handler)
    method = getattr(handler, "__call__", None)  # noqa: B004 - of an object that can be called
    is_async = (
        inspect.iscoroutinefunction(handler)
        or inspect.iscoroutinefunction(method)
        or inspect.isasyncgenfunction(source)
    )
    if processes:
        if is_async:
            raise AppError(f"{what}: processes=True is for `def`; an `async def` handler can't use it")
        _check_importable(handler, what)
    return "async" if is_async else "process" if processes else "thread"


def _check_dependencies(what: str, kind: HandlerKind, signature: Signature) -> None:
    """Raise AppError for what the handler can't get where it runs."""
    if kind == "process" and signature.context is not None:
        raise AppError(
            f"{what}: parameter {signature.context!r}: processes=True has no rabbitry.Context: "
            "take rabbitry.Message, and return or yield rabbitry.Outgoing"
        )
    for provider in signature.plan.providers:
        if kind == "process" and provider.takes_context:
            raise AppError(f"{what}: dependency {provider.name!r}: processes=True has no rabbitry.Context")
        if provider.is_async and (kind == "process" or (kind == "thread" and provider.scope == "message")):
            more = "" if kind == "process" else ", or give it scope='worker'"
            raise AppError(
                f"{what}: dependency {provider.name!r} is asynchronous, and a `def` handler can't wait for it: "
                f"make it a `def`{more}"
            )


def _check_batch(
    what: str, batch: int | None, within: float | None, batch_bytes: int | None, *, keep_unknown: bool
) -> None:
    if batch is None:
        for name, value in (("within", within), ("batch_bytes", batch_bytes)):
            if value is not None:
                raise AppError(f"{what}: {name}=… is for stages with batch=…")
    elif keep_unknown:
        raise AppError(f"{what}: keep_unknown=True can't go with batch=…: a result has no single input there")


def _check_importable(handler: Handler, what: str) -> None:
    """Raise AppError for a handler that worker processes can't import by its name."""
    name, module_name = getattr(handler, "__qualname__", None), getattr(handler, "__module__", "")
    if name is None or _importable(module_name, name) is not handler:
        # While its module is being imported the name is not there yet.
        module = sys.modules.get(module_name)
        if name is None or "<locals>" in name or module is None:
            raise AppError(f"{what}: processes=True needs a function at the top of its module")
    if module_name == "__main__" and not _has_main_file():
        raise AppError(
            f"{what}: processes=True needs a function that another process can import, and '__main__' has no "
            "file here (a notebook, a REPL, `python -c`): put the function into a module and import it"
        )


def _has_main_file() -> bool:
    """Return whether multiprocessing can import the main module anew (multiprocessing.spawn.get_preparation_data)."""
    main = sys.modules["__main__"]
    # Read from stdin, its file is called "<stdin>".
    return getattr(main, "__spec__", None) is not None or os.path.exists(getattr(main, "__file__", None) or "")


def _importable(module: str, name: str) -> object:
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
