"""The parameters of a handler, read from their annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from rabbitry.flow.batch import Batch
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.message import Message

Handler: TypeAlias = Callable[..., Any]
"""A user's function. Its types are checked when it is registered; type checkers can't."""


class Signature(NamedTuple):
    """Names of a handler's parameters, and the type of one message's value.

    message: of the metadata, None if the handler does not ask for it. batch: the same for `rabbitry.Batch`.
    """

    value: str
    type: object
    message: str | None
    batch: str | None


def signature_of(handler: Handler, *, takes_batches: bool) -> Signature:
    """Read a handler's parameters. Raises AppError, naming file and function, if they are invalid."""
    asked = _annotated(handler)
    wanted: object = list[Message] if takes_batches else Message
    values = {name: type_ for name, type_ in asked.items() if type_ not in (Message, list[Message], Batch)}
    if len(values) != 1:
        more = " (and rabbitry.Message, if it wants the metadata)" if not takes_batches else ""
        raise AppError(f"{where(handler)}: it must take one value{more}")
    messages = [name for name, type_ in asked.items() if type_ in (Message, list[Message])]
    batches = [name for name, type_ in asked.items() if type_ is Batch]
    for name in messages:
        if asked[name] != wanted:
            how = "batches has list[rabbitry.Message]" if takes_batches else "single messages has rabbitry.Message"
            raise AppError(f"{where(handler)}: parameter {name!r}: a handler of {how}")
    if batches and not takes_batches:
        raise AppError(f"{where(handler)}: parameter {batches[0]!r}: rabbitry.Batch is for stages with batch=…")
    if len(messages) > 1 or len(batches) > 1:
        raise AppError(f"{where(handler)}: it asks for the same twice: {', '.join(messages[1:] or batches[1:])}")
    (name, type_), *_ = values.items()
    if takes_batches:
        if typing.get_origin(type_) is not list:
            raise AppError(f"{where(handler)}: with batch=… {name!r} must be a list of what a message holds: list[T]")
        (type_,) = typing.get_args(type_)
    return Signature(name, type_, messages[0] if messages else None, batches[0] if batches else None)


def _annotated(handler: Handler) -> dict[str, object]:
    """Return the annotations of all parameters, each of which can be given by name."""
    try:
        hints = typing.get_type_hints(handler, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise AppError(f"{where(handler)}: its annotations can't be resolved: {error}") from error
    for parameter in (parameters := inspect.signature(handler).parameters).values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise AppError(f"{where(handler)}: parameter {parameter.name!r} must be one that can be given by name")
        if parameter.name not in hints:
            raise AppError(f"{where(handler)}: parameter {parameter.name!r} has no type; say what its messages hold")
    return {name: hints[name] for name in parameters}


def where(handler: Handler) -> str:
    """Return a function's file, line and name, for errors."""
    code = getattr(inspect.unwrap(handler), "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else handler.__module__
    return f"{place}: {getattr(handler, '__qualname__', repr(handler))}"
