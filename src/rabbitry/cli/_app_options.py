"""Options that installed apps add to `rabbitry web` and `rabbitry up`: the parameters of the plug-ins' functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

import typer
from typer.main import get_command
from typer.models import ParameterInfo

from rabbitry.apps import Plugin
from rabbitry.apps.installed import Broken, attempt, installed, resolve
from rabbitry.runtime.output import warn

AppOptions: TypeAlias = Mapping[str, Mapping[str, Any]]
"""App → the values of its own options, by the names of the parameters."""
_PARAMETER = "app_options"


def with_app_options(command: Callable[..., None], kind: Literal["router", "services"]) -> Callable[..., None]:
    """Return a command that also takes the options of the installed apps, and passes them on as `app_options`.

    The options of an app are left out, with a warning on stderr, if one of them is already taken. Apps that do not load
    are skipped here; the code that calls the apps reports them.

    Args:
        command: A command with a parameter `app_options`.
        kind: The plug-ins' functions whose parameters become options: `router` or `services`.
    """
    own = [each for each in _parameters(command) if each.name != _PARAMETER]
    taken = {flag for each in own for flag in _flags(each)}
    added: dict[str, list[inspect.Parameter]] = {}
    for name, plugin in installed().plugins.items():
        options = attempt(plugin, partial(_options_of, plugin, kind))
        if isinstance(options, Broken):
            continue
        flags = {flag for each in options for flag in _flags(each)}
        if not flags.isdisjoint(taken):
            warn(f"app {name!r} can't have the options {', '.join(sorted(flags & taken))}: they are already taken")
            continue
        taken |= flags
        added[name] = options
    return _extended(command, own, added)


def _extended(
    command: Callable[..., None], own: Sequence[inspect.Parameter], added: Mapping[str, Sequence[inspect.Parameter]]
) -> Callable[..., None]:
    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = {name: {each.name: given.pop(each.name) for each in many} for name, many in added.items()}
        command(**given, **{_PARAMETER: options})

    # Apps' options first, as they stood: the general ones (broker, log) end the list.
    everything = [*own, *(each for many in added.values() for each in many)]
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in everything]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined] # `inspect` and Typer read it
    return run


def _options_of(plugin: Plugin, kind: Literal["router", "services"]) -> list[inspect.Parameter]:
    reference = plugin.router if kind == "router" else plugin.services
    if reference is None:
        return []
    found = [each for each in _parameters(resolve(reference)) if _info(each) is not None]
    trial = typer.Typer(add_completion=False)
    trial.command()(_extended(lambda **_: None, [], {plugin.name: found}))
    get_command(trial)  # raises for what Typer can't make an option of, before that breaks the command of all
    return found


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    # Not what it returns, which may be a type that only type checkers import.
    written = {name: text for name, text in inspect.get_annotations(function).items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=written), function.__globals__, include_extras=True)
    found = inspect.signature(function).parameters.values()
    return [each.replace(annotation=hints.get(each.name, each.annotation)) for each in found]


def _info(parameter: inspect.Parameter) -> ParameterInfo | None:
    """Return a parameter's Typer option or argument; None if it has none."""
    return next((each for each in get_args(parameter.annotation) if isinstance(each, ParameterInfo)), None)


def _flags(parameter: inspect.Parameter) -> set[str]:
    """Return the names that a parameter takes: its options, and its own name, which no other parameter can have."""
    info = _info(parameter)
    declared = info.param_decls or () if info is not None else ()
    return {f"--{parameter.name.replace('_', '-')}", *declared}
