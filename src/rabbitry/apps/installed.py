"""The installed apps, found by the entry-point group `rabbitry.apps`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Final, TypeVar

from rabbitry._errors import text_of
from rabbitry.apps._plugin import Plugin
from rabbitry.apps.exceptions import PluginError

GROUP: Final = "rabbitry.apps"
OWN: Final = "rabbitry"
"""The distribution whose app wins if another app has the same name."""
RESERVED: Final = frozenset(
    {
        "api", "apps", "bindings", "broker",
        "cancel", "channels", "connections", "consumers", "dead", "doctor", "exchanges", "pause", "paused", "publish",
        "queues", "resume", "schema", "topology", "up", "version", "web", "worker",
        "audit", "feed", "flows", "healthz", "login", "logout", "metrics", "raw", "session", "static", "way", "ws",
    }
)  # fmt: skip
"""Names that no app may have: Rabbitry's own commands, and paths of the dashboard."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Broken:
    """An app that does not load. source: the distribution that brings it, with its version. error: the reason."""

    name: str
    source: str
    error: BaseException

    @property
    def reason(self) -> str:
        """The error in one line."""
        text = " ".join(text_of(self.error).split())
        kind = type(self.error).__name__
        return text if isinstance(self.error, PluginError) else f"{kind}: {text}" if text else kind

    @property
    def is_own(self) -> bool:
        """Whether it is one of Rabbitry's own apps."""
        return self.source.startswith(f"{OWN} ")

    def __str__(self) -> str:
        return f"app {self.name!r} of {self.source} does not load: {self.reason}"


@dataclass(frozen=True, slots=True)
class Installed:
    """The loaded apps by name in alphabetical order, their sources, and the apps that do not load."""

    plugins: Mapping[str, Plugin]
    sources: Mapping[str, str]
    broken: list[Broken] = field(default_factory=list)

    def broken_named(self, name: str) -> Broken | None:
        """Return the app of this name that does not load; None if there is none."""
        return next((broken for broken in self.broken if broken.name == name), None)


@functools.cache
def installed() -> Installed:
    """Return the installed apps. One that does not load is listed as broken; the others still load."""
    plugins: dict[str, Plugin] = {}
    sources: dict[str, str] = {}
    broken: list[Broken] = []
    # Reading a distribution's name parses its metadata: do it once for each, not once for each of its apps.
    found = [(entry, *_named(entry.dist)) for entry in entry_points(group=GROUP)]
    for entry, _, source in sorted(found, key=lambda each: (each[1] != OWN, each[0].name, each[1])):
        try:
            plugin = _load(entry)
            if plugin.name in plugins:
                raise PluginError(f"{sources[plugin.name]} already has an app of that name")
            if plugin.routes_at_root and (other := next((one for one in plugins.values() if one.routes_at_root), None)):
                raise PluginError(f"app {other.name!r} already has its routes at /")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an error of one app's module must not stop the others
            broken.append(Broken(entry.name, source, error))
        else:
            plugins[plugin.name], sources[plugin.name] = plugin, source
    return Installed(dict(sorted(plugins.items())), sources, broken)


def resolve(reference: str) -> Any:
    """Import what `module:attribute` names. Raises what importing raises, and PluginError for a missing attribute."""
    module_name, _, name = reference.partition(":")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise PluginError(f"module {module_name!r} has no {name!r}") from error


def attempt(plugin: Plugin, work: Callable[[], T]) -> T | Broken:
    """Return the result of `work`, or why this plug-in does not load."""
    try:
        return work()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an error of one app's code must not stop the others
        return Broken(plugin.name, installed().sources.get(plugin.name, "?"), error)


def _load(entry: EntryPoint) -> Plugin:
    plugin = entry.load()
    if not isinstance(plugin, Plugin):
        raise PluginError(f"{entry.value!r} is a {type(plugin).__name__}, not a rabbitry.apps.Plugin")
    if plugin.name != entry.name:
        raise PluginError(f"its plug-in has the name {plugin.name!r}: rename the entry point to match")
    if plugin.name in RESERVED:
        raise PluginError(f"the name {plugin.name!r} is reserved: choose another")
    return plugin


@functools.cache
def _named(distribution: Distribution | None) -> tuple[str, str]:
    """Return a distribution's name, and its name with the version."""
    if distribution is None:
        return "", "an unknown distribution"
    about = distribution.metadata
    return about["Name"], f"{about['Name']} {about['Version']}"
