"""The root command, which imports only the subcommand that is called, and turns errors into exit codes."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rabbitry._version import __version__
from rabbitry.exceptions import ConnectionClosed, RabbitryError, RequestTimeout, UsageError
from rabbitry.runtime.interrupt import is_interrupted
from rabbitry.runtime.output import ExitCode, exit_code, say_last, warn
from rabbitry.runtime.parent import parent

if TYPE_CHECKING:
    from rabbitry.apps.installed import Installed

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "up": "Run broker, apps and dashboard until Ctrl-C.",
        "broker": "Run the embedded AMQP broker.",
        "web": "Serve the dashboard.",
        "worker": "Run an app's stages.",
        "publish": "Publish JSON lines to an app.",
        "pause": "Pause a stage of an app.",
        "resume": "Resume a stage that is paused.",
        "paused": "List the stages that are paused.",
        "cancel": "Cancel a job of an app.",
        "dead": "Look at an app's dead letters, replay and drop them.",
        "topology": "Show, check and export what an app needs on the broker.",
        "schema": "Export the messages of an app, and compare two versions.",
        "queues": "List the broker's queues.",
        "exchanges": "List the broker's exchanges.",
        "bindings": "List the broker's bindings.",
        "connections": "List the broker's connections.",
        "channels": "List the broker's channels.",
        "consumers": "List the broker's consumers.",
        "doctor": "Find out why nothing arrives, and what to do about it.",
        "apps": "List the apps that are installed.",
        "version": "Print the version.",
    }
)
"""Name → help of each built-in subcommand; `rabbitry.cli.NAME.app` is its `typer.Typer`, or a function returning it."""
_SHARED: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("queues", "exchanges", "bindings", "connections", "channels", "consumers"), "listings")
    | dict.fromkeys(("pause", "resume", "paused"), "pausing")
)
"""Subcommands whose module of `rabbitry.cli` they share with others."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    A `RabbitryError` becomes one line on stderr; any other error is a defect, and its traceback is shown.
    """
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    try:
        root(args=list(arguments), prog_name="rabbitry")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else ExitCode.FAILED
    except RabbitryError as error:
        if is_interrupted():  # while an app was loaded
            raise
        say_last(str(error), is_transient=isinstance(error, ConnectionClosed | RequestTimeout))
        return exit_code(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "rabbitry":
            raise
        say_last(_missing(wanted, error))
        return ExitCode.FAILED
    except Exception as error:
        if parent() is not None and not is_interrupted():  # which prints it once more, as the last line
            say_last(f"{type(error).__name__}: {error}")
        raise
    return ExitCode.DONE


def _missing(wanted: str | None, error: ModuleNotFoundError) -> str:
    """Return a line that names the missing package of a command and how to install it."""
    from rabbitry._installing import extra_of, missing
    from rabbitry.apps.installed import OWN, installed

    source = "" if wanted in COMMANDS else installed().sources.get(wanted or "", "")
    if source and not source.startswith(f"{OWN} "):
        return f"`rabbitry {wanted}` needs {error.name!r}, which is not installed: {source} does not bring it"
    return missing(f"`rabbitry {wanted}`", error, extra_of(wanted))


class _Root(TyperGroup):
    """The subcommands. Each is imported when it is called; apps are loaded only if no built-in subcommand is meant.

    Importing all of them would make `rabbitry --help` and `rabbitry broker` half a second slower.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # the context is of Typer's own class or of click's, by version
        """Return the names for `--help` and for suggestions, and register stand-ins that only have their help."""
        apps = _installed()
        for broken in apps.broken:
            warn(str(broken))
        titles = {name: plugin.title for name, plugin in apps.plugins.items() if plugin.commands is not None}
        names = [*COMMANDS]
        at = names.index("queues")
        order = [*names[:at], *titles, *names[at:]]
        self.commands = {name: TyperCommand(name, help=(titles | {**COMMANDS})[name]) for name in order}
        return order

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # a command is of Typer's own class or of click's, too
        """Import a subcommand. Raises PluginError for an app that does not load."""
        if (known := self.commands.get(cmd_name)) is not None:
            return known
        if cmd_name in COMMANDS:
            module = _SHARED.get(cmd_name, cmd_name)
            app = importlib.import_module(f"rabbitry.cli.{module}").app
            # If its options depend on the apps that are installed, it is a function.
            return _mounted(app if isinstance(app, typer.Typer) else app(), cmd_name, COMMANDS[cmd_name])
        from rabbitry.apps.exceptions import PluginError
        from rabbitry.apps.installed import resolve

        apps = _installed()
        plugin = apps.plugins.get(cmd_name)
        if plugin is not None and plugin.commands is not None:
            return _mounted(resolve(plugin.commands), cmd_name, plugin.title)
        if (broken := apps.broken_named(cmd_name)) is not None:
            raise PluginError(str(broken))
        if not cmd_name.startswith("-"):
            self.list_commands(ctx)  # for a suggestion
        return None


def _installed() -> Installed:
    from rabbitry.apps.installed import OWN, installed

    found = installed()
    if OWN not in {source.partition(" ")[0] for source in found.sources.values()}:
        from rabbitry._installing import how_to_install

        warn(f"this installation of Rabbitry is older than its apps: {how_to_install('all')}")
    return found


@functools.cache  # Typer takes 0.1 s for an app with many commands: a process that runs several asks again
def _mounted(app: object, name: str, text: str) -> Any:
    """Return a Typer app as a command: its only command, or a group called `name`."""
    if not isinstance(app, typer.Typer):
        from rabbitry.apps.exceptions import PluginError

        raise PluginError(f"the commands of app {name!r} are a {type(app).__name__}, and no typer.Typer")
    holder = _plain_typer()
    is_command = app.registered_callback is not None and app.registered_callback.invoke_without_command is True
    if app.registered_callback is None and not app.registered_groups and len(app.registered_commands) == 1:
        holder.add_typer(app)  # without a name: its command stands beside the others
        (only,) = _commands_of(holder).values()
        return _strict(only)
    if name in _SHARED:
        holder.add_typer(app)
    elif is_command:
        holder.add_typer(app, name=name)  # a command of its own that has subcommands too
    else:
        holder.add_typer(app, name=name, help=text, no_args_is_help=True)
    return _strict(_commands_of(holder)[name])


def _strict(command: Any) -> Any:
    """Return a command that refuses names that are not UTF-8. Those of files may be any bytes."""
    for each in getattr(command, "commands", {}).values():
        _strict(each)
    invoke = command.invoke

    def checked(context: Any) -> Any:
        for each in command.params:
            if not {"FILE", "DIR"} & {*(each.metavar or "").split("|")}:
                _check_text(each.metavar or each.human_readable_name, context.params.get(each.name))
        return invoke(context)

    command.invoke = checked
    return command


def _check_text(name: str, value: object) -> None:
    """Raise UsageError for a text that is not UTF-8, whose other bytes Python keeps as surrogates."""
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
            shown = os.fsencode(text).decode(errors="backslashreplace")
            raise UsageError(f"{name} is not UTF-8: '{shown}'")


def _commands_of(holder: typer.Typer) -> Mapping[str, Any]:
    group = get_command(holder)
    return group.commands if isinstance(group, TyperGroup) else {}


def _plain_typer(**more: Any) -> typer.Typer:
    # Plain help: Rich's boxes would cost each start 0.1 s, and break an error over several lines.
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **more)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"rabbitry {__version__}")
        raise typer.Exit


root = _plain_typer(
    cls=_Root,
    help="AMQP messages over any broker, a broker where there is none, and a live view of your machines.",
    no_args_is_help=True,
)


@root.callback()
def _options(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Handle the options before the subcommand."""
