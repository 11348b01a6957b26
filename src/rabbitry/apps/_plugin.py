"""An app as a plug-in: `Plugin`, and the objects that it exchanges with `rabbitry web`, `up` and `doctor`.

A plug-in names code as `module:attribute`. The module is imported when it is used, so each start of `rabbitry`
imports only the module that holds the plug-in.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from rabbitry._words import counted
from rabbitry.apps.exceptions import PluginError
from rabbitry.exceptions import ConnectFailed

if TYPE_CHECKING:
    from rabbitry.amqp.client import Connection

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_REFERENCE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A page of an app in the dashboard.

    Attributes:
        title: The entry in the navigation.
        module: The ES module that draws the page into the element `page`, a file of the plug-in's `static` folder.
        styles: Style sheets of that folder, beside the dashboard's own.
        path: The page's place under `/NAME/`, without a slash at either end; empty for `/NAME/` itself.
        description: One sentence for search engines and screen readers.
    """

    title: str
    module: str
    styles: tuple[str, ...] = ()
    path: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A part of the dashboard's first page that an app provides.

    Attributes:
        module: An ES module of the plug-in's `static` folder. Its default export is a Preact component without props.
        styles: Style sheets of that folder.
    """

    module: str
    styles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A command for somebody who sees the dashboard for the first time, which its first page shows until it was tried.

    Attributes:
        title: What the command does, in a few words.
        command: The arguments of `rabbitry`, without the broker.
        queue: The queue that shows it: the command was tried once messages came to it.
        consumes: It was tried once somebody consumes the queue instead.
    """

    title: str
    command: str
    queue: str
    consumes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """An app, as `rabbitry` finds it in the entry-point group `rabbitry.apps`.

    Attributes:
        name: The subcommand and the place in the dashboard; the entry point has the same name. Lower-case letters,
            digits and hyphens.
        title: One line for `rabbitry --help` and `rabbitry apps`.
        commands: A `typer.Typer`, mounted as `rabbitry NAME`.
        until_stopped: Commands of it that run until a signal, which is then their ordinary end (exit code 0).
        router: A function of a `Site` that returns a `fastapi.APIRouter`, mounted under `/NAME`. Further parameters,
            annotated as Typer's options, become options of `rabbitry web`.
        views: The pages in the dashboard's navigation.
        static: The folder with the files of the pages, served under `/NAME/static`.
        panel: What the app shows on the dashboard's first page, if anything.
        trials: Commands to try for newcomers, on the dashboard's first page.
        routes_at_root: The router lies at `/`, for programs that expect its paths there. One app has it.
        services: A function of an `Up` that returns `Services`, which `rabbitry up` runs. Further parameters become
            options of `rabbitry up`, as for `router`.
        joins: Whether `rabbitry up --broker URL` runs the services too if `--apps` names none.
        checks: A `Checks`, which `rabbitry doctor` asks.

    `commands`, `router`, `services` and `checks` are written `module:attribute`.

    Raises:
        PluginError: A name or a reference is malformed.
    """

    name: str
    title: str
    commands: str | None = None
    until_stopped: tuple[str, ...] = ()
    router: str | None = None
    views: tuple[View, ...] = ()
    static: Path | None = None
    panel: Panel | None = None
    trials: tuple[Trial, ...] = ()
    routes_at_root: bool = False
    services: str | None = None
    joins: bool = False
    checks: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PluginError(f"plug-in name {self.name!r}: use a-z, 0-9 and hyphens, beginning with a letter")
        for reference in (self.commands, self.router, self.services, self.checks):
            if reference is not None and not _REFERENCE.fullmatch(reference):
                raise PluginError(f"plug-in {self.name!r} names {reference!r}: write module:attribute")
        if (self.views or self.panel) and self.static is None:
            raise PluginError(f"plug-in {self.name!r} has views and no static folder: name the folder of their modules")


def _forget(subject: str, numbers: Mapping[str, float | None]) -> None:
    """Record nothing: the default where no dashboard keeps a history."""


class Metric(NamedTuple):
    """A gauge for Prometheus.

    Attributes:
        name: Its name: `rabbitry_`, then letters a to z, digits and underscores, with the unit at its end.
        help: Its description.
        samples: Its values, each with its labels: name → value.
    """

    name: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def _export_nothing(metrics: Callable[[], Iterable[Metric]]) -> None:
    """Export nothing: the default where no dashboard answers Prometheus."""


@asynccontextmanager
async def _audit_nothing(who: str, action: str, what: str) -> AsyncIterator[None]:
    """Log nothing: the default where no dashboard keeps an audit log."""
    yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The broker and the settings that the dashboard passes to the pages of an app.

    Attributes:
        broker: The broker's URL, password included.
        plain: Whether exchanges and queues are declared with the flags of the original programs.
        variables: The settings of the environment and of `.env`, by name.
        refused: Called when the broker refuses the login or the virtual host for good; it ends `rabbitry web`.
        record: Records numbers in the dashboard's history, at most one a second for each name. Arguments: the id of
            the thing that they describe; name → number, or None if it is unknown. Call it on the event loop.
        export: Adds a function that returns gauges of the app to the dashboard's `/metrics`. It is called on the event
            loop for each answer.
        audit: Logs a change before and after it: `async with site.audit(user_of(request).who, "purge", "board x"):`.
            Arguments: the user, the action in a few words, and what is changed. A change that can't be logged raises
            RecordsError, and is not made.
    """

    broker: str = field(repr=False)
    plain: bool = False
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    refused: Callable[[ConnectFailed], None] | None = None
    record: Callable[[str, Mapping[str, float | None]], None] = _forget
    export: Callable[[Callable[[], Iterable[Metric]]], None] = _export_nothing
    audit: Callable[[str, str, str], AbstractAsyncContextManager[None]] = _audit_nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A command that `rabbitry up` runs as a child process, and starts again when it dies.

    Attributes:
        name: Its name in the output of `rabbitry up`, e.g. `the agent`.
        arguments: The arguments of `rabbitry`. The environment has the rest: RABBITRY_BROKER, RABBITRY_LOG_LEVEL and
            RABBITRY_LOG_JSON, which the commands' shared options read.
        is_quiet: Whether it logs only warnings while `rabbitry up` logs at level info.
        after_page: Whether it starts once the dashboard is served.
        is_needed: Whether `rabbitry up` ends if it ends for good. Otherwise its end is logged, and the rest runs on
            as long as one of the apps' services does.
    """

    name: str
    arguments: tuple[str, ...]
    is_quiet: bool = True
    after_page: bool = True
    is_needed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What an app adds to `rabbitry up`: child processes, and options of the dashboard (`rabbitry web`)."""

    children: tuple[Service, ...] = ()
    web: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """The options of `rabbitry up` that concern an app.

    Attributes:
        is_wanted: Whether the app's services are run; its `Services.web` is used either way.
        plain, strict: Whether these options were given.
        free_port: Returns a free port for a service, or 0 if it may take any. Arguments: the port asked for, or None;
            the usual port; the option's name. Raises UsageError if the port is taken.
    """

    is_wanted: bool
    plain: bool
    strict: bool
    free_port: Callable[[int | None, int, str], int]

    @property
    def declaring(self) -> tuple[str, ...]:
        """`--plain` and `--strict`, if they were given, as arguments for a service."""
        from rabbitry.runtime.options import as_arguments  # needs Typer, which a plug-in without commands does not

        return as_arguments(plain=self.plain, strict=self.strict)


Verdict = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of `rabbitry doctor`, and what to do if something is wrong."""

    check: str
    verdict: Verdict
    what: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Untaken:
    """Messages that wait in a queue without consumers. grown: how many more than `seconds` before."""

    queue: str
    ready: int
    grown: int
    seconds: float

    @property
    def what(self) -> str:
        """Describe the waiting messages."""
        if self.grown > 0:
            return f"it has no consumer and grows: {self.ready} ready, {self.grown} more in {self.seconds:.0f} s"
        return f"it has no consumer, and {counted(self.ready, 'message')} waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What an app adds to `rabbitry doctor`.

    Attributes:
        connected: Checks over a connection to the broker. The second argument is their time limit in seconds.
        untaken: Queue name → function that judges the queue without consumers: (whether it is bad, the problem, the
            remedy), or None if all is well.
    """

    connected: Callable[[Connection, float], AsyncIterator[Finding]] | None = None
    untaken: Mapping[str, Callable[[Untaken], tuple[bool, str, str] | None]] = field(default_factory=dict)
