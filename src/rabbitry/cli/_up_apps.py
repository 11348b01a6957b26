"""The apps of `rabbitry up`: which ones run, and their services."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rabbitry.apps import Plugin, Services, Up
from rabbitry.apps.exceptions import PluginError
from rabbitry.apps.installed import Broken, attempt, installed, resolve
from rabbitry.exceptions import UsageError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The apps whose services are to run. is_asked: whether the user named them with `--apps`, so each must load."""

    names: frozenset[str]
    is_asked: bool


def wanted(text: str | None, *, has_broker: bool) -> Wanted:
    """Parse the value of `--apps`. Raises UsageError if a name is no app's, or an app does not load."""
    known = _with_services()
    if text is None:
        names = frozenset(name for name in known if not has_broker or installed().plugins[name].joins)
        for broken in installed().broken:
            _logger.warning("%s", broken)
        return Wanted(names, is_asked=False)
    names = frozenset(name for name in (part.strip() for part in text.split(",")) if name)
    for name in sorted(names - {*known}):
        if (unloaded := installed().broken_named(name)) is not None:
            raise UsageError(f"--apps {name}: {unloaded}")
        raise UsageError(f"--apps: there is no app {name!r}: choose among {', '.join(known)}")
    return Wanted(names, is_asked=True)


def services(
    chosen: Wanted,
    options: Mapping[str, Mapping[str, Any]],
    *,
    plain: bool,
    strict: bool,
    free_port: Callable[[int | None, int, str], int],
) -> dict[str, Services]:
    """Return the services that each installed app brings.

    An app that does not load is logged, and left out unless the user asked for it.

    Args:
        chosen: The apps to run. Of the others, only the options for the dashboard are used.
        options: App → the values of its own options.
        plain: See `Up`.
        strict: See `Up`.
        free_port: See `Up`.

    Raises:
        UsageError: An option is invalid, a port is taken, or an app that the user asked for does not load.
    """
    found: dict[str, Services] = {}
    for name in _with_services():
        plugin = installed().plugins[name]
        up = Up(is_wanted=name in chosen.names, plain=plain, strict=strict, free_port=free_port)
        brought = attempt(plugin, partial(_services_of, plugin, up, options.get(name, {})))
        if isinstance(brought, Services):
            found[name] = brought
        elif isinstance(brought.error, UsageError) and not isinstance(brought.error, PluginError):
            raise brought.error
        elif chosen.is_asked and name in chosen.names:
            raise UsageError(f"--apps {name}: {_how(brought)}") from brought.error
        elif isinstance(brought.error, ModuleNotFoundError):
            _logger.info("without app %r: %s", name, _how(brought))
        else:
            _logger.warning("%s", brought)
    return found


def _services_of(plugin: Plugin, up: Up, options: Mapping[str, Any]) -> Services:
    made = resolve(plugin.services or "")(up, **options)
    if not isinstance(made, Services):
        raise PluginError(f"{plugin.services!r} returned a {type(made).__name__}, and no rabbitry.apps.Services")
    return made


def _with_services() -> list[str]:
    """Return the names of the apps that have services, in the order in which they are started."""
    return [name for name, plugin in reversed([*installed().plugins.items()]) if plugin.services is not None]


def _how(broken: Broken) -> str:
    """Return why an app does not load, and how to install a missing package if the app is Rabbitry's own."""
    from rabbitry._installing import extra_of, missing

    if isinstance(broken.error, ModuleNotFoundError) and broken.is_own:
        return missing(f"app {broken.name!r}", broken.error, extra_of(broken.name))
    return str(broken)
