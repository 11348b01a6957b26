"""The parameters of a handler, read from their annotations when it is declared."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from rabbitry.flow._annotations import dependency_of, parameters_of
from rabbitry.flow._plan import Plan, plan_of
from rabbitry.flow.batch import Batch
from rabbitry.flow.context import Context
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.message import Message

Handler: TypeAlias = Callable[..., Any]
"""A user's function. Its types are checked when it is registered; type checkers can't."""

_SPECIAL: tuple[object, ...] = (Message, list[Message], Batch, Context)


class Signature(NamedTuple):
    """Names of a handler's parameters, and the type of one message's value.

    message: of the metadata, None if the handler does not ask for it. batch, context: the same for `rabbitry.Batch` and
    `rabbitry.Context`.
    """

    value: str
    type: object
    message: str | None
    batch: str | None
    context: str | None = None
    plan: Plan = Plan()


def signature_of(handler: Handler, what: str, *, takes_batches: bool, takes_parts: bool = False) -> Signature:
    """Read a handler's parameters. Raises AppError if they are invalid.

    what: the handler in words. takes_parts: whether its value is the list of all parts of a job, as a join's is.
    """
    asked = parameters_of(handler, what)
    dependencies = [(name, found) for name, (type_, _) in asked.items() if (found := dependency_of(type_)) is not None]
    others = {name: each for name, each in asked.items() if name not in dict(dependencies)}
    name, type_ = _value_of(others, what, takes_batches=takes_batches)
    wanted: object = list[Message] if takes_batches else Message
    messages = [name for name, (type_, _) in others.items() if type_ in (Message, list[Message])]
    batches = [name for name, (type_, _) in others.items() if type_ is Batch]
    contexts = [name for name, (type_, _) in others.items() if type_ is Context]
    for other in messages:
        if others[other][0] != wanted:
            how = "batches has list[rabbitry.Message]" if takes_batches else "single messages has rabbitry.Message"
            raise AppError(f"{what}: parameter {other!r}: a handler of {how}")
    if batches and not takes_batches:
        raise AppError(f"{what}: parameter {batches[0]!r}: rabbitry.Batch is for stages with batch=…")
    if contexts and takes_batches:
        raise AppError(
            f"{what}: parameter {contexts[0]!r}: rabbitry.Context is for handlers of single messages; "
            "a batch returns or yields rabbitry.Outgoing(value, index=…)"
        )
    for names in (messages, batches, contexts):
        if len(names) > 1:
            raise AppError(f"{what}: it asks for the same twice: {', '.join(names)}")
    plan = plan_of(dependencies, what)
    if takes_batches:
        _check_batched(plan, what)
    if takes_batches or takes_parts:
        if typing.get_origin(type_) is not list:
            where = "in a join" if takes_parts else "with batch=…"
            raise AppError(f"{what}: {where} {name!r} must be a list of what a message holds: list[T]")
        (type_,) = typing.get_args(type_)
    return Signature(name, type_, _one(messages), _one(batches), _one(contexts), plan)


def _value_of(others: dict[str, tuple[object, bool]], what: str, *, takes_batches: bool) -> tuple[str, object]:
    """Return the one parameter that takes the value, and its type; it has no default, unless it is the only one."""
    values = {name: each for name, each in others.items() if each[0] not in _SPECIAL}
    needed = {name: type_ for name, (type_, has_default) in values.items() if not has_default}
    if not needed and len(values) == 1:
        needed = {name: type_ for name, (type_, _) in values.items()}
    if len(needed) != 1:
        more = "" if takes_batches else " (and rabbitry.Message, rabbitry.Context or dependencies, if it wants them)"
        names = f", and not {', '.join(repr(name) for name in needed)}" if needed else ""
        raise AppError(f"{what}: it must take one value{more}{names}")
    return next(iter(needed.items()))


def _check_batched(plan: Plan, what: str) -> None:
    for provider in plan.providers:
        if provider.takes_message or provider.takes_context:
            name = (provider.takes_message or provider.takes_context)[0]
            raise AppError(
                f"{what}: dependency {provider.name!r}: parameter {name!r}: a batch has no single message to give it"
            )


def _one(names: list[str]) -> str | None:
    return names[0] if names else None
