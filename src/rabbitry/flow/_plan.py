"""Plans: the dependencies of a handler in the order of their set-up, read once when the handler is declared."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from rabbitry.flow._annotations import called, dependency_of, parameters_of, where, written
from rabbitry.flow.context import Context
from rabbitry.flow.depends import Depends, Scope
from rabbitry.flow.exceptions import AppError
from rabbitry.flow.message import Message


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """A function that makes a dependency, and its parameters.

    key: the same for all uses of the function in one scope. make: returns the value, an awaitable of it, or a context
    manager of it. takes_message, takes_context: names of parameters. needs: by parameter, the key of its provider.
    """

    key: Hashable
    name: str
    scope: Scope
    make: Callable[..., Any]
    is_async: bool
    cleans_up: bool
    takes_message: tuple[str, ...] = ()
    takes_context: tuple[str, ...] = ()
    needs: tuple[tuple[str, Hashable], ...] = ()


class Plan(NamedTuple):
    """The dependencies of a handler. parameters: by name, the key of its provider. providers: each after its needs."""

    parameters: tuple[tuple[str, Hashable], ...] = ()
    providers: tuple[Provider, ...] = ()

    def of_scope(self, scope: Scope) -> tuple[Provider, ...]:
        """Return the providers of one scope."""
        return tuple(provider for provider in self.providers if provider.scope == scope)


def plan_of(asked: Iterable[tuple[str, Depends]], what: str) -> Plan:
    """Read the dependencies of a handler, by parameter. what: the handler in words. Raises AppError."""
    found: dict[Hashable, Provider] = {}
    parameters = tuple((name, _add(depends, found, (), f"{what}: parameter {name!r}")) for name, depends in asked)
    return Plan(parameters, tuple(found.values()))


def lifespan_of(function: Callable[..., Any], what: str) -> Plan:
    """Read a function around the life of a worker. Raises AppError."""
    plan = plan_of([("", Depends(function, scope="worker"))], what)
    if not plan.providers[-1].cleans_up:
        raise AppError(
            f"{what}: {where(function)}: a lifespan yields once: write a generator (`async def` with `yield`), or "
            "decorate it with contextlib.asynccontextmanager"
        )
    return plan


def _add(depends: Depends, found: dict[Hashable, Provider], outer: tuple[Hashable, ...], what: str) -> Hashable:
    """Add a dependency and those that it needs to `found`, and return its key. outer: keys of those that need it."""
    function, scope = depends.provider, depends.scope
    if not callable(function):
        raise AppError(f"{what}: Depends({function!r}): give a function, not what it returns")
    if scope not in ("message", "worker"):
        raise AppError(f"{what}: Depends(…, scope={scope!r}): a scope is 'message' or 'worker'")
    try:
        key: Hashable = (scope, function)
        is_known = key in found
    except TypeError as error:
        raise AppError(f"{what}: Depends({function!r}): it can't be hashed: {error}") from error
    if is_known:
        return key
    if key in outer:
        raise AppError(f"{what}: dependency {called(function)!r} needs itself")
    what = f"{what}: dependency {called(function)!r} ({where(function)})"
    messages: list[str] = []
    contexts: list[str] = []
    needs: list[tuple[str, Hashable]] = []
    for name, (type_, has_default) in _parameters_of(function, what).items():
        inner = dependency_of(type_)
        if inner is not None:
            needs.append((name, _add(inner, found, (*outer, key), what)))
            if scope == "worker" and inner.scope == "message":
                raise AppError(f"{what}: it lives as long as the worker, and its parameter {name!r} only for a message")
        elif type_ is Message or type_ is Context:
            if scope == "worker":
                raise AppError(f"{what}: parameter {name!r}: scope='worker' has no message")
            (messages if type_ is Message else contexts).append(name)
        elif not has_default:
            raise AppError(
                f"{what}: parameter {name!r}: a dependency takes rabbitry.Message, rabbitry.Context, "
                "Annotated[TYPE, Depends(…)], or parameters with a default"
            )
    make, is_async, cleans_up = _kind_of(function)
    found[key] = Provider(
        key, called(function), scope, make, is_async, cleans_up, tuple(messages), tuple(contexts), tuple(needs)
    )
    return key


def _parameters_of(function: Callable[..., Any], what: str) -> dict[str, tuple[object, bool]]:
    try:
        return parameters_of(function, what)
    except AppError:
        # A class of another library may have annotations that can't be resolved. It may need no arguments.
        if not inspect.isclass(function) or not _needs_nothing(function):
            raise
        return {}


def _needs_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _kind_of(function: Callable[..., Any]) -> tuple[Callable[..., Any], bool, bool]:
    """Return the function that makes the value, whether it is asynchronous, and whether it cleans up."""
    if inspect.isclass(function):
        is_async = issubclass(function, AbstractAsyncContextManager)
        return function, is_async, is_async or issubclass(function, AbstractContextManager)
    source = written(function)
    if inspect.isasyncgenfunction(source):
        made = contextlib.asynccontextmanager(function) if _is(inspect.isasyncgenfunction, function) else function
        return made, True, True
    if inspect.isgeneratorfunction(source):
        made = contextlib.contextmanager(function) if _is(inspect.isgeneratorfunction, function) else function
        return made, False, True
    return function, inspect.iscoroutinefunction(source), False


def _is(check: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Return whether calling a function returns a generator, and not a context manager that was made of one."""
    return check(function) or check(getattr(function, "__call__", None))  # noqa: B004 - the method is wanted
