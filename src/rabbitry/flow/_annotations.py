"""Users' functions: their place and name for errors, and the types of their parameters."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

from rabbitry.flow.depends import Depends
from rabbitry.flow.exceptions import AppError

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def written(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a user wrote: within decorators, a partial, or an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = getattr(function, "__call__", function)  # noqa: B004 - the method is wanted, not whether there is one
    source: Callable[..., Any] = inspect.unwrap(function)
    return source


def called(function: Callable[..., Any]) -> str:
    """Return a function's name; for an object that can be called, its class's."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


def where(function: Callable[..., Any]) -> str:
    """Return a function's file, line and name, for errors."""
    source = written(function)
    code = getattr(source, "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else getattr(source, "__module__", "?")
    return f"{place}: {getattr(source, '__qualname__', repr(source))}"


def parameters_of(function: Callable[..., Any], what: str) -> dict[str, tuple[object, bool]]:
    """Return the type of each parameter that has one, and whether the parameter has a default.

    Args:
        function: The function.
        what: The function in words, for errors.

    Raises:
        AppError: A parameter without a default has no type, or can't be given by name; or a type can't be resolved.
    """
    try:
        hints = typing.get_type_hints(_annotated(function), include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise AppError(f"{what}: its annotations can't be resolved: {error}") from error
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise AppError(f"{what}: its parameters can't be read: {error}") from error
    found: dict[str, tuple[object, bool]] = {}
    for parameter in parameters:
        name, has_default = parameter.name, parameter.default is not inspect.Parameter.empty
        if isinstance(parameter.default, Depends):
            raise AppError(
                f"{what}: parameter {name!r}: write `{name}: Annotated[TYPE, Depends(…)]`, not `= Depends(…)`"
            )
        if parameter.kind not in _BY_NAME:
            raise AppError(f"{what}: parameter {name!r} must be one that can be given by name")
        if name in hints:
            found[name] = (hints[name], has_default)
        elif not has_default:
            raise AppError(f"{what}: parameter {name!r} has no type: annotate it")
    return found


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function or method that holds the annotations."""
    if inspect.isclass(function):
        return written(function.__init__)
    return written(function)


def dependency_of(type_: object) -> Depends | None:
    """Return the Depends of `Annotated[…, Depends(…)]`; None for any other type."""
    if typing.get_origin(type_) is not Annotated:
        return None
    return next((item for item in typing.get_args(type_)[1:] if isinstance(item, Depends)), None)
